"""The tables of bulk orders in memory."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from payflow.contracts.bulk import BulkState, ItemStatus, ListBulks
from payflow.contracts.confirm import ConfirmPayment, PaymentState, PaymentView
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock
from payflow.platform.ids import UuidV7
from payflow.services.confirm.bulk.api import BulkApi, BulkDuty
from payflow.services.confirm.bulk.domain import BulkLimits, Chunk, Counts, Ending, Order, mark_duplicates
from payflow.services.confirm.bulk.ports import BulkPorts, OpenPayments, Tally, Turn
from payflow.services.confirm.ports import Store
from tests.builders import NOON, new_id

UNFINISHED = (BulkState.RECEIVING, BulkState.PROCESSING, BulkState.CANCELLING)


@dataclass
class _Row:
    order: Order
    key: str
    due_at: datetime | None
    leased_until: datetime | None = None
    counted_at: datetime | None = None
    chunks: list[Chunk] = field(default_factory=list)


class FakeBulkStore:
    """See ports.BulkStore. `state_of` tells the present state of a payment."""

    def __init__(self, state_of: Callable[[Sequence[UUID]], Mapping[UUID, PaymentState]]) -> None:
        self._rows: dict[UUID, _Row] = {}
        self._state_of = state_of
        self.events: list[tuple[str, UUID]] = []

    async def find(self, *, customer_id: str, key: str) -> Order | None:
        for row in self._rows.values():
            if (row.order.customer_id, row.key) == (customer_id, key):
                return copy.deepcopy(row.order)
        return None

    async def open(self, order: Order, *, key: str, running_max: int, uploads_max: int) -> Order | None:
        known = await self.find(customer_id=order.customer_id, key=key)
        if known is not None:
            return known
        if self._count(order.customer_id, BulkState.PROCESSING) >= running_max:
            return None
        if self._count(order.customer_id, BulkState.RECEIVING) >= uploads_max:
            return None
        self._rows[order.bulk_id] = _Row(copy.deepcopy(order), key, order.expires_at)
        return order

    async def get(self, keys: Sequence[tuple[str, UUID]]) -> dict[UUID, Order]:
        return {
            id: copy.deepcopy(row.order)
            for customer, id in keys
            if (row := self._rows.get(id)) is not None and row.order.customer_id == customer
        }

    async def page(self, query: ListBulks) -> list[Order]:
        matching = [
            row.order
            for _, row in sorted(self._rows.items(), reverse=True)
            if row.order.customer_id == query.customer_id
            and (query.cursor is None or row.order.bulk_id < query.cursor)
            and query.state in (None, row.order.state)
        ]
        return copy.deepcopy(matching[: query.limit + 1])

    async def append(self, *, bulk_id: UUID, customer_id: str, chunk: Chunk, items_max: int, now: datetime) -> bool:
        row = self._rows.get(bulk_id)
        if row is None or row.order.customer_id != customer_id or row.order.state is not BulkState.RECEIVING:
            return False
        if row.order.stored_to != chunk.first_line - 1 or row.order.items + len(chunk.lines) > items_max:
            return False
        row.chunks.append(copy.deepcopy(chunk))
        row.order.stored_to, row.order.updated_at = chunk.last_line, now
        row.order.items += len(chunk.lines)
        return True

    async def fingerprints(self, *, bulk_id: UUID, first_line: int, last_line: int) -> dict[int, bytes]:
        return {
            line: fingerprint
            for chunk in self._rows[bulk_id].chunks
            for line, fingerprint in zip(chunk.lines, chunk.fingerprints, strict=True)
            if first_line <= line <= last_line
        }

    async def accept(
        self, *, bulk_id: UUID, customer_id: str, last_line: int, running_max: int, now: datetime, expires_at: datetime
    ) -> Order | None:
        row = self._rows[bulk_id]
        if row.order.state is not BulkState.RECEIVING or row.order.stored_to != last_line:
            return None
        if self._count(customer_id, BulkState.PROCESSING) >= running_max:
            return None
        self._move(row, BulkState.PROCESSING, now)
        row.order.accepted_at, row.order.expires_at, row.due_at = now, expires_at, now
        first: dict[str, int] = {}
        for chunk in row.chunks:
            earlier = {}
            for line, transaction_id, code in zip(chunk.lines, chunk.transaction_ids, chunk.error_codes, strict=True):
                if transaction_id is not None and code is None and first.setdefault(transaction_id, line) != line:
                    earlier[line] = first[transaction_id]
            mark_duplicates(chunk, earlier=earlier)
        self.events.append(("bulk.accepted", bulk_id))
        return copy.deepcopy(row.order)

    async def cancel(self, *, bulk_id: UUID, customer_id: str, is_upload_only: bool, now: datetime) -> Order | None:
        row = self._rows.get(bulk_id)
        if row is None or row.order.customer_id != customer_id:
            return None
        if row.order.state is BulkState.RECEIVING or (row.order.state is BulkState.PROCESSING and not is_upload_only):
            self._move(row, BulkState.CANCELLING, now)
            if row.leased_until is None or row.leased_until <= now:
                row.due_at = now
        return copy.deepcopy(row.order)

    async def take_turn(self, *, now: datetime, until: datetime) -> Turn | None:
        due = [
            row
            for row in self._rows.values()
            if row.due_at is not None and row.due_at <= now and (row.leased_until is None or row.leased_until <= now)
        ]
        if not due:
            return None
        row = min(due, key=lambda row: row.due_at or now)
        order = row.order
        chunk = next((chunk for chunk in row.chunks if chunk.first_line > order.ran_to), None)
        if chunk and order.state is BulkState.PROCESSING and order.expires_at is not None and order.expires_at > now:
            order.started_to = chunk.last_line
        order.fencing_token += 1
        row.leased_until = row.due_at = until
        return Turn(copy.deepcopy(order), copy.deepcopy(chunk))

    async def finish_chunk(self, order: Order, chunk: Chunk, *, now: datetime) -> bool:
        row = self._rows[order.bulk_id]
        if row.order.fencing_token != order.fencing_token:
            return False
        place = next(index for index, one in enumerate(row.chunks) if one.first_line == chunk.first_line)
        row.chunks[place] = copy.deepcopy(chunk)
        row.chunks[place].payments = []
        row.order.ran_to, row.order.updated_at = chunk.last_line, now
        row.leased_until, row.due_at = None, now
        if chunk.last_line == row.order.stored_to:
            self._finish(row, BulkState.COMPLETED, now)
        return True

    async def end(self, order: Order, ending: Ending, *, now: datetime) -> bool:
        row = self._rows[order.bulk_id]
        if (row.order.fencing_token, row.order.state) != (order.fencing_token, order.state):
            return False
        for chunk in row.chunks:
            if chunk.first_line > row.order.ran_to:
                rest = [index for index, code in enumerate(chunk.error_codes) if code is None]
                for index in rest:
                    chunk.error_codes[index], chunk.error_details[index] = ending.error.code, ending.error.detail
                chunk.payments, chunk.payment_ids = [], [None] * len(chunk.lines)
                chunk.counts = {**chunk.counts, ending.status: len(rest)}
        row.order.ran_to = row.order.started_to = row.order.stored_to
        self._finish(row, ending.state, now)
        return True

    async def rest(self, order: Order, *, due_at: datetime) -> None:
        row = self._rows[order.bulk_id]
        if row.order.fencing_token == order.fencing_token and row.due_at is not None:
            row.leased_until, row.due_at = None, due_at

    async def tallies(self, bulk_ids: Sequence[UUID]) -> dict[UUID, Tally]:
        found = {}
        for id in bulk_ids:
            counts: Counter[ItemStatus] = Counter()
            for chunk in self._rows[id].chunks:
                counts.update(chunk.counts)
            told = {status: count for status, count in counts.items() if count}
            if told:
                has_open = bool(told.get(ItemStatus.OTP_REQUIRED) or told.get(ItemStatus.PENDING))
                found[id] = Tally(told, has_open)
        return found

    async def begin_recount(self, *, bulk_id: UUID, now: datetime, not_since: datetime) -> bool:
        row = self._rows[bulk_id]
        if row.counted_at is not None and row.counted_at > not_since:
            return False
        row.counted_at = now
        return True

    async def open_payments(self, bulk_id: UUID) -> dict[int, OpenPayments]:
        return {
            chunk.first_line: OpenPayments(dict(chunk.counts), dict(self._state_of(chunk.open_ids)))
            for chunk in self._rows[bulk_id].chunks
            if chunk.open_ids
        }

    async def write_counts(self, bulk_id: UUID, found: Mapping[int, tuple[Counts, list[UUID]]]) -> None:
        for chunk in self._rows[bulk_id].chunks:
            if chunk.first_line in found:
                chunk.counts, chunk.open_ids = found[chunk.first_line]

    async def chunks(self, *, bulk_id: UUID, after_line: int, limit: int) -> list[Chunk]:
        return copy.deepcopy([one for one in self._rows[bulk_id].chunks if one.last_line > after_line][:limit])

    async def open_by_state(self) -> dict[BulkState, tuple[int, datetime]]:
        found: dict[BulkState, tuple[int, datetime]] = {}
        for row in self._rows.values():
            if row.order.state in UNFINISHED:
                count, since = found.get(row.order.state, (0, row.order.updated_at))
                found[row.order.state] = (count + 1, min(since, row.order.updated_at))
        return found

    def _count(self, customer_id: str, state: BulkState) -> int:
        return sum((row.order.customer_id, row.order.state) == (customer_id, state) for row in self._rows.values())

    def _move(self, row: _Row, state: BulkState, now: datetime) -> None:
        row.order.state, row.order.updated_at = state, now
        row.order.version += 1

    def _finish(self, row: _Row, state: BulkState, now: datetime) -> None:
        self._move(row, state, now)
        row.order.ended_at, row.order.expires_at = now, None
        row.leased_until = row.due_at = None
        self.events.append((f"bulk.{state.lower()}", row.order.bulk_id))


class FakePayments:
    """Confirm's payments, from its store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def views(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentView]:
        return {id: payment.view() for id, payment in (await self._store.by_ids(payment_ids)).items()}


class FakeBulk(BulkApi):
    """Confirm's bulk orders over memory, for whoever asks them: each payment is COMPLETED, or what `outcome` says.

    Nothing is begun before a test says `run`.
    """

    def __init__(self, clock: Clock) -> None:
        self.outcome: PaymentState = PaymentState.COMPLETED
        self.commands: list[ConfirmPayment] = []
        self.payments: dict[UUID, PaymentView] = {}
        self.store = FakeBulkStore(lambda ids: {id: self.payments[id].state for id in ids})
        ports = BulkPorts(store=self.store, payments=self, clock=clock, ids=UuidV7(), limits=BulkLimits())
        self.duty = BulkDuty(ports=ports, confirm=self._confirm, slots=1, pause_s=0.01)
        super().__init__(ports=ports, duty=self.duty)

    async def run(self) -> None:
        """Do everything that is due."""
        while await self.duty.take_turn():
            pass

    async def views(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentView]:
        return {id: self.payments[id] for id in payment_ids}

    async def _confirm(self, commands: Sequence[ConfirmPayment]) -> Answers[PaymentView]:
        self.commands += commands
        views = [self._view(command) for command in commands]
        self.payments |= {view.payment_id: view for view in views}
        return list(views)

    def _view(self, command: ConfirmPayment) -> PaymentView:
        is_done = self.outcome is PaymentState.COMPLETED
        return PaymentView(
            payment_id=new_id(),
            transaction_id=command.transaction_id,
            customer_id=command.customer_id,
            state=self.outcome,
            version=2,
            amount=command.amount,
            amount_minor=None,
            currency=command.currency,
            debtor_account=command.debtor_account,
            creditor_account=command.creditor_account,
            risk_level="LOW",
            reference="PF-0001" if is_done else None,
            reason=None,
            error_code="INSUFFICIENT_FUNDS" if self.outcome is PaymentState.REJECTED else None,
            error_detail=None,
            received_at=NOON,
            updated_at=NOON,
            completed_at=NOON if is_done else None,
            expires_at=None,
        )
