"""Bulk orders over memory and over PostgreSQL, with the single payments' use case and a real ledger behind them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from payflow.contracts.bulk import (
    BulkEnded,
    BulkPayment,
    FileFormat,
    ItemStatus,
    LinesStored,
    UploadGap,
)
from payflow.contracts.confirm import ConfirmPayment, Creditor, KeyReused, PaymentView
from payflow.kernel.envelope import Event
from payflow.services.confirm.domain import end_to_end_id_of
from tests.builders import new_id
from tests.builders_bulk import ITEMS, Orders, bad_line, told
from tests.builders_bulk import orders as orders
from tests.builders_confirm import with_otp
from tests.builders_confirm import world as world


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


async def test_the_payments_of_a_file_name_it_and_a_single_one_names_none(orders: Orders) -> None:
    single = await orders.world.pay(orders.world.request())
    bulk_id = await orders.accepted(orders.lines())
    await orders.run()

    named = [item.payment.bulk_id for item in await orders.items(bulk_id) if item.payment]

    assert named == [bulk_id] * ITEMS
    assert isinstance(single, PaymentView)
    assert single.bulk_id is None


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


async def test_a_line_that_is_no_payment_uses_up_no_transaction_id(orders: Orders) -> None:
    mended = orders.line(2)
    assert mended.payment is not None
    lines = [bad_line(1, transaction_id=mended.payment.transaction_id), mended]

    bulk_id = await orders.accepted(lines)
    await orders.run()

    items = await orders.items(bulk_id)
    assert [item.status for item in items] == ["INVALID", "SUCCESS"]
    assert {item.transaction_id for item in items} == {mended.payment.transaction_id}


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


@pytest.mark.parametrize("world", ["postgres"], indirect=True)
async def test_the_event_of_a_files_end_counts_what_has_ended_and_what_that_has_paid(
    orders: Orders, database_url: str
) -> None:
    orders.world.bank.gate = asyncio.Event()
    abroad = orders.line(2, creditor_account="DE08990100100000001001", creditor=Creditor(name="Erika Musterfrau"))
    lines = [orders.line(1, "12.50"), abroad, orders.line(3, "999999.00"), orders.line(4, "0.25"), bad_line(5)]
    bulk_id = await orders.accepted(lines, chunk=2)

    await orders.run()

    orders.world.bank.gate.set()
    owner = await asyncpg.connect(database_url)
    rows = await owner.fetch("SELECT events FROM event_log.batch WHERE 'bulk.completed' = ANY(types)")
    await owner.close()
    events = [event for row in rows for event in msgspec.msgpack.decode(row["events"], type=list[Event])]
    (data,) = (event.data for event in events if event.subject == str(bulk_id) and event.type == "bulk.completed")
    assert data["counts"] == {"SUCCESS": 2, "PENDING": 1, "OTP_REQUIRED": 1, "INVALID": 1}
    assert data["paid_minor"] == {"USD": 1275}


@pytest.mark.parametrize("key", ["bulk:00000000-0000-0000-0000-000000000000:1", "bulk:"])
async def test_a_key_that_looks_like_a_files_makes_no_payment_of_a_file(orders: Orders, key: str) -> None:
    view = await orders.world.pay(msgspec.structs.replace(orders.world.request(), idempotency_key=key + new_id().hex))

    assert isinstance(view, PaymentView)
    assert (view.state, view.bulk_id) == ("COMPLETED", None)


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
    other_format = await orders.open(format=FileFormat.CSV, columns=["amount"])
    assert (told(other_format), other_format.extra) == (KeyReused.code, {"bulk_id": str(opened.bulk_id)})
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
    assert (told(too_far), too_far.extra) == (UploadGap.code, {"next_line": 7, "bulk_id": str(opened.bulk_id)})
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
