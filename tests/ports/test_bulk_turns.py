"""Bulk orders on their way: turns, interruptions, cancellations, deadlines, and what is told of them."""

from __future__ import annotations

from datetime import timedelta

from payflow.contracts.bulk import (
    BulkEnded,
    BulkNotFound,
    BulkState,
    GetBulk,
    ItemStatus,
    ListBulkItems,
    UploadGap,
)
from payflow.kernel.errors import UnknownOutcome
from payflow.services.confirm.bulk import usecases
from tests.builders_bulk import ITEMS, Orders, bad_line, told
from tests.builders_bulk import orders as orders
from tests.builders_confirm import world as world


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


async def test_cancelling_keeps_back_what_was_not_begun(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    await orders.duty.take_turn()

    first = await orders.cancel(bulk_id)
    await orders.run()
    again = await orders.cancel(bulk_id)

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

    await orders.cancel(bulk_id)
    assert await orders.run() == 0
    orders.world.clock.move(timedelta(seconds=15))
    await orders.run()
    await orders._confirm(list(usecases.commands_of(turn.order, turn.chunk).values()))

    assert (await orders.view(bulk_id)).counts == {"SUCCESS": 3, "CANCELLED": 4}
    assert await orders.world.balance(orders.world.creditor) == (3000, 0)


async def test_a_file_is_cancelled_while_it_is_received(orders: Orders) -> None:
    opened = await orders.open()
    await orders.send(opened.bulk_id, orders.lines())

    await orders.cancel(opened.bulk_id)
    await orders.run()

    assert (await orders.view(opened.bulk_id)).state == "CANCELLED"
    assert told(await orders.close(opened.bulk_id, ITEMS)) == BulkEnded.code


async def test_what_has_ended_is_not_cancelled_and_a_stranger_s_is_not_found(orders: Orders) -> None:
    bulk_id = await orders.accepted(orders.lines())
    await orders.run()

    assert told(await orders.cancel(bulk_id)) == BulkEnded.code
    assert told(await orders.cancel(bulk_id, customer="somebody")) == BulkNotFound.code
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
