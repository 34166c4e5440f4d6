"""What bulk orders need from outside: their tables, and the payments that their lines have become."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol, TypeAlias
from uuid import UUID

from payflow.contracts.bulk import BulkState, ListBulks
from payflow.contracts.confirm import ConfirmPayment, PaymentState, PaymentView
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock, Ids
from payflow.services.confirm.bulk.domain import BulkLimits, Chunk, Counts, Ending, Order

# The single payments' use case: every line passes the same gates.
ConfirmAll: TypeAlias = Callable[[Sequence[ConfirmPayment]], Awaitable[Answers[PaymentView]]]


class Turn(NamedTuple):
    """An order under a lease of this process's, and its next chunk; None when no line is left."""

    order: Order
    chunk: Chunk | None


class Tally(NamedTuple):
    """How many lines have each status, and whether some of these payments may have moved on since."""

    counts: Counts
    has_open: bool


class OpenPayments(NamedTuple):
    """A chunk's counts, and the present states of the payments that were open when they were made."""

    counts: Counts
    states: dict[UUID, PaymentState]


class BulkStore(Protocol):
    """The tables of bulk orders. What an order's runner writes checks its fencing token in the same statement."""

    async def find(self, *, customer_id: str, key: str) -> Order | None:
        """The customer's order under this key."""
        ...

    async def open(self, order: Order, *, key: str, running_max: int, uploads_max: int) -> Order | None:
        """Store a new order, or get the one that has its key; None when the customer has `running_max` that are
        PROCESSING or `uploads_max` that are RECEIVING."""
        ...

    async def get(self, keys: Sequence[tuple[str, UUID]]) -> dict[UUID, Order]:
        """Orders by (customer_id, bulk_id)."""
        ...

    async def page(self, query: ListBulks) -> list[Order]:
        """At most `limit` + 1 orders, newest first, after the cursor."""
        ...

    async def append(self, *, bulk_id: UUID, customer_id: str, chunk: Chunk, items_max: int, now: datetime) -> bool:
        """Store the chunk if it is what the order, still RECEIVING, is to get next and there is room; else nothing."""
        ...

    async def fingerprints(self, *, bulk_id: UUID, first_line: int, last_line: int) -> dict[int, bytes]:
        """The stored lines from first to last, by number."""
        ...

    async def accept(
        self, *, bulk_id: UUID, customer_id: str, last_line: int, running_max: int, now: datetime, expires_at: datetime
    ) -> Order | None:
        """Let the order begin, if it is RECEIVING, `last_line` is its last, and fewer than `running_max` of its
        customer's are PROCESSING: repeated transaction ids are refused in the same transaction. None where that is
        not so."""
        ...

    async def cancel(self, *, bulk_id: UUID, customer_id: str, is_upload_only: bool, now: datetime) -> Order | None:
        """Have nothing more of an unfinished order begun, or of one that is RECEIVING only; the order as it then
        stands, None where there is none."""
        ...

    async def take_turn(self, *, now: datetime, until: datetime) -> Turn | None:
        """Take the lease of the order that has waited longest, and mark its next chunk as begun, unless the order is
        cancelled or out of time. None when nothing is due."""
        ...

    async def finish_chunk(self, order: Order, chunk: Chunk, *, now: datetime) -> bool:
        """Store a chunk's results and give the lease back; with the last one the order is COMPLETED. False when the
        lease was lost."""
        ...

    async def end(self, order: Order, ending: Ending, *, now: datetime) -> bool:
        """End the order and all lines that were not begun. False when the lease was lost or the state has changed."""
        ...

    async def rest(self, order: Order, *, due_at: datetime) -> None:
        """Give the lease back without a step."""
        ...

    async def tallies(self, bulk_ids: Sequence[UUID]) -> dict[UUID, Tally]:
        """The counts of orders."""
        ...

    async def begin_recount(self, *, bulk_id: UUID, now: datetime, not_since: datetime) -> bool:
        """Whether it is time to count again: false where somebody has begun to since `not_since`."""
        ...

    async def open_payments(self, bulk_id: UUID) -> dict[int, OpenPayments]:
        """The chunks, by first line, that have payments which had not ended when last counted."""
        ...

    async def write_counts(self, bulk_id: UUID, found: Mapping[int, tuple[Counts, list[UUID]]]) -> None:
        """Store chunks' counts and open payments, by first line."""
        ...

    async def chunks(self, *, bulk_id: UUID, after_line: int, limit: int) -> list[Chunk]:
        """The next chunks that have lines after this one, without their payments' contents."""
        ...

    async def open_by_state(self) -> dict[BulkState, tuple[int, datetime]]:
        """How many unfinished orders there are in each state, and since when the one that rests longest rests."""
        ...


class Payments(Protocol):
    """Confirm's payments, as far as bulk orders read them."""

    async def views(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentView]:
        """Payments by id."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkPorts:
    """Everything that bulk orders reach out to."""

    store: BulkStore
    payments: Payments
    clock: Clock
    ids: Ids
    limits: BulkLimits
