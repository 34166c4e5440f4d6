"""What the confirm service needs from outside: its store, and four other services by their contracts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.account import Account
from payflow.contracts.confirm import ListPayments, PaymentState, TransitionView
from payflow.contracts.otp import Otp
from payflow.contracts.partner_bank import PartnerBank
from payflow.contracts.returns import ListReturns, ReturnState
from payflow.contracts.risk import Risk
from payflow.contracts.sides import PaymentSides
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.four_eyes import FourEyes
from payflow.services.confirm.domain import (
    UNFINISHED,
    Deadlines,
    Payment,
    ReturnDeadlines,
    ReturnPayment,
    ReturnStep,
)


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

    async def lease(
        self,
        payment_ids: Sequence[UUID],
        *,
        now: datetime,
        until: datetime,
        states: Collection[PaymentState] = UNFINISHED,
    ) -> dict[UUID, Payment]:
        """Take the lease of payments that nobody works on: a higher fencing token each.

        Those in another state than these are left as they are.
        """
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
        """How many unfinished payments there are in each state, and since when the oldest of them is in it.

        A scheduled one counts from its day, which may be to come.
        """
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

    async def sides(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentSides | None]:
        """The sides of payments, and by the ids of returns those of what they return; unknown ids are left out, and
        None is one that cannot be read."""
        ...


class ReturnStore(Protocol):
    """Returns in the confirm service's database. Every write checks the fencing token in the same statement.

    A return that is stored has taken its amount of the original; one that is refused gives it back in the same write.
    """

    async def find(self, keys: Sequence[tuple[str, str]]) -> list[ReturnPayment | None]:
        """The return of each (requested_by, idempotency_key)."""
        ...

    async def taken(self, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
        """What all returns of each payment come to, refused ones left out; payments without a return are left out."""
        ...

    async def returned(self, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
        """What the completed returns of each payment come to; payments without one are left out."""
        ...

    async def claim(self, made: ReturnPayment, *, original_minor: int, taken_minor: int) -> bool:
        """Store a new return with its first step and event, if its key is new and `taken_minor` is still the truth."""
        ...

    async def save(self, made: ReturnPayment) -> bool:
        """Store the steps taken, with an event about the last one; whether its token still held."""
        ...

    async def lease(self, return_id: UUID, *, now: datetime, until: datetime) -> ReturnPayment | None:
        """Take the lease of an unfinished return that nobody works on: a higher fencing token."""
        ...

    async def lease_due(self, *, now: datetime, until: datetime, limit: int) -> list[ReturnPayment]:
        """Take the lease of returns whose automatic next step is due and that nobody works on."""
        ...

    async def give_lease_back(self, made: ReturnPayment, *, due_at: datetime) -> None:
        """Stop working on a return without a step: the next one is due at `due_at`, or at its own deadline."""
        ...

    async def open_by_state(self) -> dict[ReturnState, tuple[int, datetime]]:
        """How many unfinished returns there are in each state, and since when the oldest of them is in it."""
        ...

    async def by_ids(self, return_ids: Sequence[UUID]) -> dict[UUID, ReturnPayment]:
        """Returns by id."""
        ...

    async def page(self, query: ListReturns) -> list[ReturnPayment]:
        """At most `limit` + 1 returns, newest first, after the cursor."""
        ...

    async def steps(self, return_id: UUID) -> list[ReturnStep]:
        """The steps of a return, first to last."""
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
        """Take these payments, stored as SUBMITTED and leased to this process, through the other bank."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnPorts:
    """Everything that returns reach out to."""

    returns: ReturnStore
    payments: Store
    account: Account
    risk: Risk
    clock: Clock
    ids: Ids
    deadlines: ReturnDeadlines
    four_eyes: FourEyes
