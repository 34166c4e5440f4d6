"""Who the two sides of a payment are: accounts here, and accounts at other banks. Part of the account contract."""

from __future__ import annotations

from uuid import UUID

import msgspec


class ResolveParties(msgspec.Struct, frozen=True, kw_only=True):
    """Ask who the two sides of a payment are. `creditor_agent` is the BIC given by the customer, if any."""

    customer_id: str
    debtor_account: str
    creditor_account: str
    creditor_agent: str | None = None


class Party(msgspec.Struct, frozen=True, kw_only=True):
    """An account of ours and its owner, as a payment needs them."""

    account_id: UUID
    number: str
    customer_id: str
    name: str
    country: str | None
    currency: str


class ExternalParty(msgspec.Struct, frozen=True, kw_only=True):
    """An account at another bank: an IBAN, or a number together with the bank's BIC."""

    number: str
    agent_bic: str
    country: str | None


class PartiesResolved(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides. `creditor` is None where the money leaves us; then `external` tells where it goes."""

    debtor: Party
    creditor: Party | None = None
    external: ExternalParty | None = None

    @property
    def is_on_us(self) -> bool:
        """Whether both accounts are in our ledger."""
        return self.creditor is not None
