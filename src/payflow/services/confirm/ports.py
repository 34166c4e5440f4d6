"""What the confirm service needs from outside: its store, and four other services by their contracts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.account import Account
from payflow.contracts.confirm import ListPayments, PaymentState, TransitionView
from payflow.contracts.otp import Otp
from payflow.contracts.partner_bank import PartnerBank
from payflow.contracts.risk import Risk
from payflow.kernel.clock import Clock, Ids
from payflow.services.confirm.domain import Deadlines, Payment


class Store(Protocol):
    """The confirm service's database. Every write checks the fencing token in the same statement."""

    async def claim(self, payments: Sequence[Payment]) -> set[UUID]:
        """Store new payments with their keys and first transitions; returns the ids that were stored.

        A payment whose key or transaction_id the customer has used before is left out.
        """
        ...

    async def find(self, keys: Sequence[tuple[str, str, str]]) -> list[Payment | None]:
        """The payment of each (customer_id, idempotency_key, transaction_id): by key, else by transaction id."""
        ...

    async def save(self, payments: Sequence[Payment], *, now: datetime) -> set[UUID]:
        """Store the steps taken, with one event each, in one transaction; returns the ids whose token still held.

        Saved payments have no open transitions any more.
        """
        ...

    async def lease(self, payment_ids: Sequence[UUID], *, now: datetime, until: datetime) -> dict[UUID, Payment]:
        """Take the lease of payments that nobody works on: a higher fencing token each. Final ones are left out."""
        ...

    async def lease_due(self, *, now: datetime, until: datetime, limit: int) -> list[Payment]:
        """Take the lease of payments whose automatic next step is due and that nobody works on."""
        ...

    async def return_leases(self, payments: Sequence[Payment], *, due_at: datetime) -> None:
        """Stop working on payments without a step: the next one is due at `due_at`."""
        ...

    async def withdraw(self, payments: Sequence[Payment]) -> set[UUID]:
        """Undo claims of payments that nothing was done for: row, key and first step are gone.

        Returns the ids that were withdrawn: RECEIVED, and never taken over.
        """
        ...

    async def open_by_state(self) -> dict[PaymentState, tuple[int, datetime]]:
        """How many unfinished payments there are in each state, and since when the oldest of them is in it."""
        ...

    async def by_ids(self, payment_ids: Sequence[UUID]) -> dict[UUID, Payment]:
        """Payments by id."""
        ...

    async def by_transaction(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Payment]:
        """Payments by (customer_id, transaction_id)."""
        ...

    async def page(self, query: ListPayments) -> list[Payment]:
        """At most `limit` + 1 payments, newest first, after the cursor."""
        ...

    async def transitions(self, payment_ids: Sequence[UUID]) -> dict[UUID, list[TransitionView]]:
        """The steps of payments, first to last."""
        ...


class Endings(Protocol):
    """Tells waiting requests that a payment has ended; a hint within one process, the store is the truth."""

    def tell(self, payment_id: UUID) -> None:
        """A payment has reached an end state."""
        ...

    async def wait(self, payment_id: UUID, *, seconds: float) -> None:
        """Return when told, or after `seconds`."""
        ...


class Background(Protocol):
    """Lets work go on after the answer."""

    def start(self, payments: Sequence[Payment]) -> None:
        """Take these submitted payments through the other bank."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Everything that the saga reaches out to."""

    store: Store
    account: Account
    risk: Risk
    otp: Otp
    bank: PartnerBank
    clock: Clock
    ids: Ids
    deadlines: Deadlines
    endings: Endings
