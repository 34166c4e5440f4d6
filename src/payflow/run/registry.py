"""Which processes make a Payflow: data that the supervisor, the command line and the documentation read.

`tools/new_service.py` appends a row to SERVICES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

PUBLIC_PORT: Final = 8080
PORT_BASE: Final = 3000
# The own ports of further copies, above those of the services and of a Kafka of the instance's own.
COPIES_OFFSET: Final = 51
COPIES_LAST_OFFSET: Final = 99


@dataclass(frozen=True, slots=True)
class Deployable:
    """One process. `name` is shown to people; `service` names its code, role, schema and PAYFLOW_<SERVICE>_URL.

    `shared_offset`: where a service has copies, the port on which all of them take calls besides their own.
    """

    name: str
    service: str
    module: str
    port_offset: int
    shared_offset: int | None = None

    @property
    def is_gateway(self) -> bool:
        """Gateways also share the public port, and stop first."""
        return self.service == "gateway"


def _row(name: str, port_offset: int, service: str | None = None) -> Deployable:
    service = service or name.replace("-", "_")
    return Deployable(name=name, service=service, module=f"payflow.services.{service}.app", port_offset=port_offset)


SERVICES: Final[tuple[Deployable, ...]] = (
    _row("gateway-1", 1, "gateway"),
    _row("gateway-2", 2, "gateway"),
    _row("confirm", 3),
    _row("risk", 4),
    _row("notification", 5),
    _row("otp", 6),
    _row("account", 7),
    _row("audit", 8),
    _row("ofac", 9),
    _row("kyc", 10),
    _row("partner-bank", 11),
    # tools/new_service.py adds rows above this line.
)

# The simulated other bank stands for the world outside: it is no service of ours and does not exist in production.
OTHER_BANK: Final = Deployable(
    name="other-bank", service="other_bank", module="payflow_dev.other_bank.app", port_offset=12
)


def deployables(*, is_production: bool) -> tuple[Deployable, ...]:
    """Every process of an instance, in the order of their ports; without the simulated bank in production."""
    return SERVICES if is_production else (*SERVICES, OTHER_BANK)


def with_copies(rows: tuple[Deployable, ...], copies: Mapping[str, int]) -> tuple[Deployable, ...]:
    """The rows with so many processes of a service: {"confirm": 3} gives confirm-1 to confirm-3 in confirm's place.

    Each has a port of its own, for its health and its metrics, and all share the service's port, where callers go.
    Gateways share the public port in any case. Raises ValueError for a service that is not there or cannot have copies,
    for fewer than there are, and for more processes than there are ports.
    """
    offsets = iter(range(COPIES_OFFSET, COPIES_LAST_OFFSET + 1))
    found: list[Deployable] = []
    for service in dict.fromkeys(row.service for row in rows):
        mine = [row for row in rows if row.service == service]
        wanted = copies.get(service, len(mine))
        if wanted < len(mine) or (wanted > 1 and service == OTHER_BANK.service):
            raise ValueError(f"{service} cannot have {wanted} copies")
        own_name = service.replace("_", "-")
        if len(mine) == 1 and wanted > 1:
            shared = mine[0].port_offset
            mine = [replace(mine[0], name=f"{own_name}-1", port_offset=next(offsets), shared_offset=shared)]
        try:
            while len(mine) < wanted:
                mine.append(replace(mine[0], name=f"{own_name}-{len(mine) + 1}", port_offset=next(offsets)))
        except StopIteration:
            raise ValueError(f"there are ports for {COPIES_LAST_OFFSET - COPIES_OFFSET + 1} copies") from None
        found += mine
    unknown = sorted(set(copies) - {row.service for row in rows})
    if unknown:
        raise ValueError(f"there is no service {unknown[0]}")
    return tuple(found)


def highest_port_offset() -> int:
    """The services' ports are `port_base` + 1 to this number, whether or not this is production."""
    return max(row.port_offset for row in (*SERVICES, OTHER_BANK))


def service_names(rows: tuple[Deployable, ...] = SERVICES) -> tuple[str, ...]:
    """Each service once, in the order of the rows: both gateways are one service."""
    return tuple(dict.fromkeys(row.service for row in rows))


def find(name: str, rows: tuple[Deployable, ...] = (*SERVICES, OTHER_BANK)) -> Deployable | None:
    """The row of a name as people type it: `partner-bank`, `partner_bank` and `gateway` (the first one) all work."""
    for row in rows:
        if name in (row.name, row.service) or name.replace("-", "_") == row.service:
            return row
    return None
