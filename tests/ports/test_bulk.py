"""Bulk orders over memory and over PostgreSQL, with the single payments' use case and a real ledger behind them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from payflow.contracts.bulk import (
    Bulk,
    BulkEnded,
    BulkItem,
    BulkItemPage,
    BulkLine,
    BulkNotFound,
    BulkOpened,
    BulkPayment,
    BulkState,
    BulkView,
    CancelBulk,
    CloseBulk,
    FileFormat,
    GetBulk,
    ItemStatus,
    LinesStored,
    ListBulkItems,
    OpenBulk,
    StoreLines,
    TooManyBulks,
    TooManyItems,
    UploadGap,
)
from payflow.contracts.confirm import ConfirmPayment, Creditor, KeyReused, PaymentState, PaymentView
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError, UnknownOutcome
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.confirm.bulk import usecases
from payflow.services.confirm.bulk.api import BulkApi, BulkDuty
from payflow.services.confirm.bulk.domain import BulkLimits
from payflow.services.confirm.bulk.ports import BulkPorts, BulkStore
from payflow.services.confirm.bulk.store import PostgresBulkStore
from payflow.services.confirm.domain import end_to_end_id_of
from payflow.services.confirm.usecases.confirm import confirm_payments
from tests.builders import new_id
from tests.fakes_bulk import FakeBulkStore, FakePayments
from tests.fakes_confirm import FakeConfirmStore
from tests.ports.test_confirm import World, with_otp
from tests.ports.test_confirm import world as world

ITEMS = 7


class Orders:
    """Bulk orders of a confirm world. `broken` payments, by transaction id, make the use case fail."""

    def __init__(self, world: World, store: BulkStore) -> None:
        self.world, self.store = world, store
        self.broken: set[str] = set()
        self.asked: list[ConfirmPayment] = []
        self.ports = BulkPorts(
            store=store,
            payments=FakePayments(world.store),
            clock=world.clock,
            ids=UuidV7(),
            limits=BulkLimits(open_per_customer=3),
        )
        self.duty = BulkDuty(ports=self.ports, confirm=self._confirm, slots=1, pause_s=0.01)
        self.api: Bulk = in_process(Bulk, BulkApi(ports=self.ports, duty=self.duty), caller="gateway")

    async def _confirm(self, commands: Sequence[ConfirmPayment]) -> Answers[PaymentView]:
        self.asked += commands
        if any(command.transaction_id in self.broken for command in commands):
            raise RuntimeError("a payment that breaks the use case")
        return await confirm_payments(commands=commands, ports=self.world.ports, background=self.world.background)

    async def open(self, key: str = "file", *, customer: str | None = None, first_line: int = 1, **more: Any) -> Any:
        values = {"format": FileFormat.JSON_LINES, "columns": None, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        (answer,) = await self.api.open_bulk(
            [
                OpenBulk(
                    customer_id=customer or self.world.customer,
                    idempotency_key=key,
                    first_line=first_line,
                    **{**values, **more},
                )
            ]
        )
        return answer

    async def send(self, bulk_id: UUID, lines: Sequence[BulkLine], *, first_line: int | None = None) -> Any:
        command = StoreLines(
            bulk_id=bulk_id,
            customer_id=self.world.customer,
            first_line=lines[0].line if first_line is None else first_line,
            lines=list(lines),
        )
        (answer,) = await self.api.store_bulk_lines([command])
        return answer

    async def close(self, bulk_id: UUID, last_line: int) -> Any:
        (answer,) = await self.api.close_bulk(
            [CloseBulk(bulk_id=bulk_id, customer_id=self.world.customer, last_line=last_line)]
        )
        return answer

    async def accepted(self, lines: Sequence[BulkLine], *, key: str = "file", chunk: int = 3) -> UUID:
        """A whole file, ready to begin."""
        opened = await self.open(key)
        assert isinstance(opened, BulkOpened), opened
        for start in range(0, len(lines), chunk):
            assert isinstance(await self.send(opened.bulk_id, lines[start : start + chunk]), LinesStored)
        closed = await self.close(opened.bulk_id, lines[-1].line)
        assert isinstance(closed, BulkView), closed
        assert closed.state == "PROCESSING"
        return opened.bulk_id

    async def view(self, bulk_id: UUID) -> BulkView:
        (answer,) = await self.api.get_bulk([GetBulk(bulk_id=bulk_id, customer_id=self.world.customer)])
        assert isinstance(answer, BulkView), answer
        return answer

    async def page(self, bulk_id: UUID, **more: Any) -> BulkItemPage:
        (page,) = await self.api.list_bulk_items(
            [ListBulkItems(bulk_id=bulk_id, customer_id=self.world.customer, **more)]
        )
        assert isinstance(page, BulkItemPage), page
        return page

    async def items(self, bulk_id: UUID) -> list[BulkItem]:
        return (await self.page(bulk_id, limit=200)).items

    async def run(self, turns: int = 100) -> int:
        """Take turns until nothing is due; how many there were."""
        for done in range(turns):
            if not await self.duty.take_turn():
                return done
        return turns

    def line(self, number: int, amount: str = "10.00", **more: Any) -> BulkLine:
        values: dict[str, Any] = {
            "transaction_id": f"{self.world.customer[-12:]}-{number}",
            "amount": amount,
            "currency": None,
            "debtor_account": self.world.debtor,
            "creditor_account": self.world.creditor,
            "creditor": None,
            "remittance_information": None,
            "execute_at": None,
            **more,
        }
        return BulkLine(number, hashlib.sha256(repr(values).encode()).digest(), BulkPayment(**values))

    def lines(self, count: int = ITEMS, **more: Any) -> list[BulkLine]:
        return [self.line(number, **more) for number in range(1, count + 1)]


def bad_line(number: int, text: str = "{") -> BulkLine:
    digest = hashlib.sha256(text.encode()).digest()
    return BulkLine(number, digest, None, "MALFORMED_REQUEST", "The body is not valid JSON.")


def told(answer: Any) -> str:
    assert isinstance(answer, PayflowError), answer
    return answer.code


@pytest.fixture
async def orders(
    world: World, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> AsyncIterator[Orders]:
    if isinstance(world.store, FakeConfirmStore):
        memory = world.store

        def state_of(ids: Sequence[UUID]) -> Mapping[UUID, PaymentState]:
            return {id: memory._payments[id].state for id in ids}

        yield Orders(world, FakeBulkStore(state_of))
        return
    database = await connect_as("confirm")
    # What other tests left due is none of this test's business.
    await database.execute("UPDATE bulk_order SET state = 'EXPIRED', due_at = NULL WHERE due_at IS NOT NULL")
    store = PostgresBulkStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
    yield Orders(world, store)


async def test_a_file_is_paid_line_by_line_in_file_order(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())

    turns = await orders.run()

    view = await orders.view(bulk_id)
    assert (view.state, view.total, view.counts) == ("COMPLETED", ITEMS, {"SUCCESS": ITEMS})
    assert turns == 3
    assert [item.line for item in await orders.items(bulk_id)] == list(range(1, ITEMS + 1))
    assert [command.transaction_id for command in orders.asked] == [
        line.payment.transaction_id for line in orders.lines() if line.payment
    ]
    assert await orders.world.balance(orders.world.creditor) == (1000 * ITEMS, 0)


async def test_nothing_is_paid_before_the_file_is_whole(orders: Orders) -> None:
    opened = await orders.open()
    await orders.send(opened.bulk_id, orders.lines())

    assert await orders.run() == 0

    view = await orders.view(opened.bulk_id)
    assert (view.state, view.counts, view.next_line) == ("RECEIVING", {"WAITING": ITEMS}, ITEMS + 1)


async def test_bad_lines_are_told_with_their_numbers_and_do_not_keep_the_others_back(orders: Orders) -> None:
    lines = [orders.line(1), bad_line(2), orders.line(4), orders.line(5, amount="999999.00")]

    bulk_id = await orders.accepted(lines)
    await orders.run()

    items = await orders.items(bulk_id)
    assert [(item.line, item.status, item.error_code) for item in items] == [
        (1, "SUCCESS", None),
        (2, "INVALID", "MALFORMED_REQUEST"),
        (4, "SUCCESS", None),
        (5, "OTP_REQUIRED", None),
    ]
    assert items[1].error_detail == "The body is not valid JSON."
    assert (await orders.view(bulk_id)).counts == {"SUCCESS": 2, "INVALID": 1, "OTP_REQUIRED": 1}


async def test_a_repeated_transaction_id_is_refused_wherever_in_the_file_it_is(orders: Orders) -> None:
    same = orders.line(1)
    assert same.payment is not None
    lines = orders.lines()
    lines[2] = orders.line(3, transaction_id=same.payment.transaction_id)
    lines[6] = orders.line(7, transaction_id=same.payment.transaction_id, amount="11.00")

    bulk_id = await orders.accepted(lines)
    await orders.run()

    items = await orders.items(bulk_id)
    assert [item.line for item in items if item.error_code == "DUPLICATE_TRANSACTION_ID"] == [3, 7]
    assert {item.status for item in items if item.error_code} == {ItemStatus.INVALID}
    assert items[2].error_detail == "Line 1 of the file has this transaction_id already."
    assert await orders.world.balance(orders.world.creditor) == (1000 * (ITEMS - 2), 0)


async def test_a_transaction_id_of_an_earlier_single_payment_is_refused(orders: Orders) -> None:
    line = orders.line(1)
    assert line.payment is not None
    await orders.world.pay(orders.world.request("1.00", transaction_id=line.payment.transaction_id))

    bulk_id = await orders.accepted([line])
    await orders.run()

    (item,) = await orders.items(bulk_id)
    assert (item.status, item.error_code, item.payment) == ("REJECTED", "TRANSACTION_EXISTS", None)


async def test_somebody_else_s_account_is_refused_alone(orders: Orders) -> None:
    lines = [orders.line(1), orders.line(2, debtor_account=orders.world.creditor), orders.line(3)]

    bulk_id = await orders.accepted(lines)
    await orders.run()

    items = await orders.items(bulk_id)
    assert [(item.status, item.error_code) for item in items] == [
        ("SUCCESS", None),
        ("REJECTED", "ACCOUNT_NOT_OWNED"),
        ("SUCCESS", None),
    ]


async def test_money_that_runs_short_refuses_the_later_lines(orders: Orders) -> None:
    bulk_id = await orders.accepted([orders.line(number, "9000.00") for number in range(1, 14)], chunk=5)
    await orders.run()

    items = await orders.items(bulk_id)
    assert [item.status for item in items] == ["SUCCESS"] * 11 + ["REJECTED"] * 2
    assert items[-1].payment is not None
    assert items[-1].payment.error_code == "INSUFFICIENT_FUNDS"


async def test_a_line_that_needs_a_code_is_completed_as_a_single_payment_under_its_key(orders: Orders) -> None:
    line = orders.line(1, "20000.00")
    bulk_id = await orders.accepted([line, orders.line(2)])
    await orders.run()
    (waiting, _) = await orders.items(bulk_id)
    assert (waiting.status, (await orders.view(bulk_id)).state) == ("OTP_REQUIRED", "COMPLETED")
    assert line.payment is not None
    request = ConfirmPayment(
        customer_id=orders.world.customer,
        idempotency_key=waiting.idempotency_key,
        fingerprint=line.fingerprint,
        **{name: getattr(line.payment, name) for name in BulkPayment.__struct_fields__},
    )

    asked = await orders.world.pay(request)
    paid = await orders.world.pay(with_otp(request, "123456"))

    assert isinstance(asked, PaymentView)
    assert isinstance(paid, PaymentView)
    assert (asked.state, paid.state) == ("AWAITING_OTP", "COMPLETED")
    orders.world.clock.move(timedelta(seconds=2))
    assert (await orders.view(bulk_id)).counts == {"SUCCESS": 2}
    assert [item.status for item in await orders.items(bulk_id)] == ["SUCCESS"] * 2


async def test_a_payment_to_another_bank_is_pending_until_that_bank_answers(orders: Orders) -> None:
    orders.world.bank.gate = asyncio.Event()
    line = orders.line(1, creditor_account="DE08990100100000001001", creditor=Creditor(name="Erika Musterfrau"))
    bulk_id = await orders.accepted([line])
    await orders.run()
    before = await orders.view(bulk_id)

    orders.world.bank.gate.set()
    (item,) = await orders.items(bulk_id)
    await orders.world.end_of(item.payment)
    orders.world.clock.move(timedelta(seconds=2))

    assert before.counts == {"PENDING": 1}
    assert (await orders.view(bulk_id)).counts == {"SUCCESS": 1}
    assert item.payment is not None
    assert end_to_end_id_of(item.payment.payment_id)


async def test_a_line_for_a_later_day_is_scheduled(orders: Orders) -> None:
    day = orders.world.clock.now() + timedelta(days=1)
    bulk_id = await orders.accepted(
        [orders.line(1, execute_at=day), orders.line(2, execute_at=day - timedelta(days=2))]
    )
    await orders.run()
    (later, past) = await orders.items(bulk_id)
    assert (later.status, past.status) == ("PENDING", "REJECTED")
    assert later.payment is not None
    assert later.payment.state == "SCHEDULED"

    orders.world.clock.move(timedelta(days=1))
    await orders.world.due()

    assert [item.status for item in await orders.items(bulk_id)] == ["SUCCESS", "REJECTED"]


async def test_the_same_file_under_the_same_key_is_the_same_order(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    await orders.run()

    opened = await orders.open()
    # Cut in another way than the first time.
    for start, end in ((0, 2), (2, 7)):
        assert isinstance(await orders.send(opened.bulk_id, orders.lines()[start:end]), LinesStored)
    again = await orders.close(opened.bulk_id, ITEMS)

    assert again == await orders.view(bulk_id)
    assert await orders.run() == 0


@pytest.mark.parametrize("is_accepted", [False, True])
async def test_another_file_under_the_same_key_is_refused(orders: Orders, is_accepted: bool) -> None:
    lines = orders.lines()
    opened = await orders.open()
    await orders.send(opened.bulk_id, lines)
    if is_accepted:
        await orders.close(opened.bulk_id, ITEMS)
    changed = [*lines[:4], orders.line(5, "11.00"), *lines[5:]]

    assert told(await orders.send(opened.bulk_id, changed)) == KeyReused.code
    assert told(await orders.send(opened.bulk_id, [lines[0], lines[2]])) == KeyReused.code
    assert told(await orders.open(format=FileFormat.CSV, columns=["amount"])) == KeyReused.code
    shorter = await orders.close(opened.bulk_id, ITEMS - 1)
    assert told(shorter) == KeyReused.code
    if is_accepted:
        longer = await orders.send(opened.bulk_id, [*lines, orders.line(ITEMS + 1)])
        assert told(longer) == KeyReused.code


async def test_an_upload_that_was_cut_is_resumed_from_its_beginning_or_from_where_it_ended(orders: Orders) -> None:
    lines = orders.lines(9)
    opened = await orders.open()
    await orders.send(opened.bulk_id, lines[:4])

    again = await orders.open()
    assert again.next_line == 5
    assert isinstance(await orders.send(opened.bulk_id, lines[:6]), LinesStored)
    too_far = await orders.open(first_line=9)
    assert (told(too_far), too_far.extra) == (UploadGap.code, {"next_line": 7})
    rest = await orders.open(first_line=7)
    assert rest.next_line == 7
    assert told(await orders.send(opened.bulk_id, lines[7:])) == UploadGap.code
    assert isinstance(await orders.send(opened.bulk_id, lines[6:]), LinesStored)
    await orders.close(opened.bulk_id, 9)
    await orders.run()

    assert (await orders.view(opened.bulk_id)).counts == {"SUCCESS": 9}


async def test_two_uploads_of_one_file_at_once_make_one_order(orders: Orders) -> None:
    lines = orders.lines(30)

    async def upload() -> Any:
        opened = await orders.open()
        for start in range(0, 30, 3):
            stored = await orders.send(opened.bulk_id, lines[start : start + 3])
            if isinstance(stored, UploadGap):
                stored = await orders.send(opened.bulk_id, lines[start : start + 3])
            assert isinstance(stored, LinesStored), stored
        return await orders.close(opened.bulk_id, 30)

    first, second = await asyncio.gather(upload(), upload())
    await orders.run()

    assert first.bulk_id == second.bulk_id
    assert (await orders.view(first.bulk_id)).counts == {"SUCCESS": 30}
    assert await orders.world.balance(orders.world.creditor) == (30_000, 0)


async def test_a_file_that_never_becomes_whole_expires_unpaid(orders: Orders) -> None:
    opened = await orders.open()
    await orders.send(opened.bulk_id, orders.lines())
    orders.world.clock.move(timedelta(hours=24))

    await orders.run()

    view = await orders.view(opened.bulk_id)
    assert (view.state, view.counts) == ("EXPIRED", {"EXPIRED": ITEMS})
    assert {item.error_code for item in await orders.items(opened.bulk_id)} == {"PAYMENT_EXPIRED"}
    assert told(await orders.send(opened.bulk_id, orders.lines())) == BulkEnded.code
    assert await orders.world.balance(orders.world.creditor) == (0, 0)


async def test_what_could_not_be_done_now_is_done_later_under_the_same_keys(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    orders.world.risk.is_down = True

    await orders.run()
    waiting = await orders.view(bulk_id)
    orders.world.risk.is_down = False
    orders.world.clock.move(timedelta(seconds=2))
    await orders.run()

    assert (waiting.state, waiting.counts) == ("PROCESSING", {"WAITING": ITEMS})
    assert (await orders.view(bulk_id)).counts == {"SUCCESS": ITEMS}
    assert await orders.world.balance(orders.world.creditor) == (1000 * ITEMS, 0)


async def test_a_process_that_died_in_a_chunk_doubles_nothing(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    turn = await orders.store.take_turn(
        now=orders.world.clock.now(), until=orders.world.clock.now() + orders.ports.limits.lease
    )
    assert turn is not None
    await orders._confirm(list(usecases.commands_of(turn.order, turn.chunk).values()))

    assert await orders.run() == 0
    orders.world.clock.move(orders.ports.limits.lease)
    await orders.run()

    assert (await orders.view(bulk_id)).counts == {"SUCCESS": ITEMS}
    assert await orders.world.balance(orders.world.creditor) == (1000 * ITEMS, 0)


async def test_who_has_lost_the_lease_writes_nothing(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    now = orders.world.clock.now()
    turn = await orders.store.take_turn(now=now, until=now + timedelta(seconds=15))
    assert turn is not None
    assert turn.chunk is not None
    orders.world.clock.move(timedelta(seconds=15))
    await orders.run()
    turn.chunk.payment_ids = [None] * len(turn.chunk.lines)

    assert not await orders.store.finish_chunk(turn.order, turn.chunk, now=now)
    assert (await orders.view(bulk_id)).counts == {"SUCCESS": ITEMS}


async def test_a_payment_that_breaks_the_use_case_does_not_keep_its_neighbours_back(orders: Orders) -> None:
    lines = orders.lines()
    orders.broken = {lines[1].payment.transaction_id}
    bulk_id = await orders.accepted(lines)

    await orders.run()
    assert await orders.world.balance(orders.world.creditor) == (2000, 0)
    orders.broken = set()
    orders.world.clock.move(timedelta(seconds=2))
    await orders.run()

    assert (await orders.view(bulk_id)).counts == {"SUCCESS": ITEMS}


async def cancel(orders: Orders, bulk_id: UUID, *, customer: str | None = None) -> Any:
    command = CancelBulk(bulk_id=bulk_id, customer_id=customer or orders.world.customer)
    (answer,) = await orders.api.cancel_bulk([command])
    return answer


async def test_cancelling_keeps_back_what_was_not_begun(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    await orders.duty.take_turn()

    first = await cancel(orders, bulk_id)
    await orders.run()
    again = await cancel(orders, bulk_id)

    assert (first.state, again.state) == ("CANCELLING", "CANCELLED")
    assert again.counts == {"SUCCESS": 3, "CANCELLED": 4}
    items = await orders.items(bulk_id)
    assert [item.status for item in items] == ["SUCCESS"] * 3 + ["CANCELLED"] * 4
    assert {item.error_code for item in items[3:]} == {"PAYMENT_CANCELLED"}


async def test_a_chunk_that_may_have_been_begun_is_finished_although_the_order_is_cancelled(orders: Orders) -> None:
    """Or a process that stood still would pay what was told as cancelled."""
    bulk_id = await orders.accepted(orders.lines())
    now = orders.world.clock.now()
    turn = await orders.store.take_turn(now=now, until=now + timedelta(seconds=15))
    assert turn is not None

    await cancel(orders, bulk_id)
    assert await orders.run() == 0
    orders.world.clock.move(timedelta(seconds=15))
    await orders.run()
    await orders._confirm(list(usecases.commands_of(turn.order, turn.chunk).values()))

    assert (await orders.view(bulk_id)).counts == {"SUCCESS": 3, "CANCELLED": 4}
    assert await orders.world.balance(orders.world.creditor) == (3000, 0)


async def test_a_file_is_cancelled_while_it_is_received(orders: Orders) -> None:
    opened = await orders.open()
    await orders.send(opened.bulk_id, orders.lines())

    await cancel(orders, opened.bulk_id)
    await orders.run()

    assert (await orders.view(opened.bulk_id)).state == "CANCELLED"
    assert told(await orders.close(opened.bulk_id, ITEMS)) == BulkEnded.code


async def test_what_has_ended_is_not_cancelled_and_a_stranger_s_is_not_found(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    await orders.run()

    assert told(await cancel(orders, bulk_id)) == BulkEnded.code
    assert told(await cancel(orders, bulk_id, customer="somebody")) == BulkNotFound.code
    (view,) = await orders.api.get_bulk([GetBulk(bulk_id=bulk_id, customer_id="somebody")])
    (page,) = await orders.api.list_bulk_items([ListBulkItems(bulk_id=bulk_id, customer_id="somebody")])
    assert (told(view), told(page)) == (BulkNotFound.code, BulkNotFound.code)


async def test_what_could_not_be_begun_in_time_expires(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    await orders.duty.take_turn()
    orders.world.clock.move(timedelta(hours=24))

    await orders.run()

    view = await orders.view(bulk_id)
    assert (view.state, view.counts) == ("EXPIRED", {"SUCCESS": 3, "EXPIRED": 4})


async def test_orders_take_turns(orders: Orders) -> None:
    first = await orders.accepted([orders.line(number) for number in range(1, 7)], key="a")
    orders.world.clock.move(timedelta(milliseconds=1))
    second = await orders.accepted(
        [orders.line(number, transaction_id=f"{orders.world.customer}x{number}") for number in range(1, 7)], key="b"
    )

    for _ in range(2):
        orders.world.clock.move(timedelta(milliseconds=1))
        await orders.duty.take_turn()

    assert [(await orders.view(id)).counts for id in (first, second)] == [{"WAITING": 3, "SUCCESS": 3}] * 2


async def test_a_customer_has_so_many_unfinished_orders_and_no_more(orders: Orders) -> None:
    for number in range(3):
        await orders.open(f"key-{number}")

    assert told(await orders.open("one more")) == TooManyBulks.code
    assert isinstance(await orders.open("key-1"), BulkOpened)
    assert isinstance(await orders.open("one more", customer=f"c{new_id().hex}"), BulkOpened)


async def test_a_file_that_is_too_long_is_refused(orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usecases, "ITEMS_MAX", 5)
    opened = await orders.open()
    await orders.send(opened.bulk_id, orders.lines(5))

    assert told(await orders.send(opened.bulk_id, [orders.line(6)])) == TooManyItems.code


async def test_items_are_paged_and_looked_for_by_status(orders: Orders) -> None:
    lines = [bad_line(number) if number % 5 == 0 else orders.line(number) for number in range(1, 21)]
    bulk_id = await orders.accepted(lines)
    await orders.run()

    seen, cursor = [], 0
    while True:
        page = await orders.page(bulk_id, limit=4, cursor=cursor)
        seen += [item.line for item in page.items]
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    invalid = await orders.page(bulk_id, status=ItemStatus.INVALID)

    assert seen == list(range(1, 21))
    assert [item.line for item in invalid.items] == [5, 10, 15, 20]


async def test_before_its_turn_a_line_waits(orders: Orders) -> None:
    bulk_id = await orders.accepted([orders.line(1), bad_line(2)])

    items = await orders.items(bulk_id)

    assert [(item.status, item.transaction_id is None) for item in items] == [("WAITING", False), ("INVALID", True)]


async def test_a_resumed_upload_of_an_unknown_order_is_told_to_begin(orders: Orders) -> None:
    assert told(await orders.open(first_line=5)) == UploadGap.code


async def test_unfinished_orders_are_counted_by_state(orders: Orders) -> None:
    await orders.open("a")
    await orders.accepted(orders.lines(), key="b")

    found = await orders.store.open_by_state()
    await orders.duty.measure()

    assert found[BulkState.RECEIVING][0] == 1
    assert found[BulkState.PROCESSING][0] == 1


async def test_an_answer_that_is_no_result_is_asked_for_again() -> None:
    assert not usecases.is_result(UnknownOutcome())
