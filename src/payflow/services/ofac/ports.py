"""What the ofac service needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.confirm import DecideReview, GetPayment, PaymentView
from payflow.contracts.ofac import PaymentDecision, ReviewState
from payflow.contracts.operation import Answers
from payflow.kernel.envelope import Event
from payflow.services.ofac.domain.cases import Decision, Delivery, ReviewCase


class CaseTransaction(Protocol):
    """One database transaction over review cases and proofs."""

    async def open_cases(self, cases: Sequence[ReviewCase]) -> dict[UUID, UUID]:
        """Insert cases, at most one per payment. Review ids by payment id: the new one's, or the one's that was there.

        Waits for another transaction that opens a case for the same payment, so that both get the same id.
        """
        ...

    async def insert_proofs(self, *, proofs: Sequence[bytes], list_version: str, now: datetime) -> None:
        """Store proofs of clear names; one that is there keeps its first instant."""
        ...

    async def lock_cases(self, review_ids: Sequence[UUID]) -> dict[UUID, ReviewCase]:
        """Cases locked until the end of the transaction, in one order everywhere; unknown ids are left out."""
        ...

    async def save_decisions(self, *, cases: Sequence[ReviewCase], deliver_after: datetime) -> None:
        """Write the decisions of cases that were locked open; they are undelivered, and due after that instant."""
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Store events in this transaction; consumers are woken after the commit."""
        ...


class Store(Protocol):
    """The ofac service's database."""

    def transaction(self) -> AbstractAsyncContextManager[CaseTransaction]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def cases(self, review_ids: Sequence[UUID]) -> dict[UUID, ReviewCase]:
        """Cases by id; unknown ids are left out."""
        ...

    async def reviews_of(self, payment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        """Review ids by payment id; payments without a case are left out. One statement, however many payments."""
        ...

    async def decisions_of(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentDecision]:
        """How payments' cases stand, by payment id; payments without a case are left out."""
        ...

    async def newest_cases(self, *, state: ReviewState | None, before: UUID | None, limit: int) -> list[ReviewCase]:
        """At most `limit` cases in this state (None: any), newest first, from the one after `before` on."""
        ...

    async def open_reviews(self) -> tuple[int, datetime | None]:
        """How many cases nobody has decided, and when the oldest of them was opened."""
        ...

    async def undelivered(self, *, now: datetime, limit: int) -> list[Decision]:
        """Decisions of which confirm must be told now, the longest due first."""
        ...

    async def save_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """Write what tries to tell confirm came to. A case that is delivered stays delivered."""
        ...


class Payments(Protocol):
    """The part of confirm that hears decisions (contracts.confirm.Confirm)."""

    async def decide_review(self, commands: list[DecideReview]) -> Answers[PaymentView]:
        """Let payments under review go on or end. Raises Unavailable or UnknownOutcome for the whole call."""
        ...

    async def get(self, queries: list[GetPayment]) -> Answers[PaymentView]:
        """Payments as they stand. Raises as above."""
        ...
