"""What the routes work with: clients of the other services, and the gateway's own use cases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, TypeVar, cast

from litestar.di import NamedDependency

from payflow.contracts.account import Account
from payflow.contracts.audit import Audit
from payflow.contracts.bulk import Bulk
from payflow.contracts.callbacks import Callbacks
from payflow.contracts.confirm import Confirm
from payflow.contracts.devices import Devices
from payflow.contracts.kyc import Kyc
from payflow.contracts.notification import Notification, Webhooks
from payflow.contracts.ofac import Ofac
from payflow.contracts.partner_bank import PartnerBank
from payflow.contracts.returns import Returns
from payflow.contracts.risk import Risk
from payflow.services.gateway.api import GatewayApi
from payflow.services.gateway.freshness import Freshness, NoReplica
from payflow.services.gateway.gate import Gate
from payflow.services.gateway.routes.streams import StreamPlaces

C = TypeVar("C")

# What further routes ask besides confirm and account.
OTHER_CONTRACTS: Final[tuple[type[Any], ...]] = (
    Audit,
    Bulk,
    Callbacks,
    Devices,
    Kyc,
    Notification,
    Ofac,
    PartnerBank,
    Returns,
    Risk,
    Webhooks,
)


@dataclass(frozen=True)
class Services:
    """Handed to every handler that has a parameter `services`. `others`: further clients, by contract."""

    confirm: Confirm
    account: Account
    gateway: GatewayApi
    gate: Gate
    freshness: Freshness = field(default_factory=NoReplica)
    streams: StreamPlaces = field(default_factory=StreamPlaces)
    others: dict[type[Any], Any] = field(default_factory=dict)

    def client(self, contract: type[C]) -> C:
        """A client of one of OTHER_CONTRACTS."""
        return cast(C, self.others[contract])


# The parameter that handlers declare: `services: FromServices`.
FromServices: TypeAlias = NamedDependency[Services]
