"""How many bulk orders a customer may have, and that whoever has too many finds them and gets rid of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from payflow.contracts.bulk import (
    BulkEnded,
    BulkOpened,
    BulkState,
    LinesStored,
    TooManyBulks,
    TooManyItems,
)
from payflow.contracts.confirm import KeyReused
from payflow.services.confirm.bulk import usecases
from tests.builders import new_id
from tests.builders_bulk import ITEMS, Orders, told
from tests.builders_bulk import orders as orders
from tests.builders_confirm import world as world


async def received(orders: Orders, key: str, count: int = ITEMS) -> UUID:
    """A file that was stored and not closed."""
    opened = await orders.open(key)
    assert isinstance(opened, BulkOpened), opened
    assert isinstance(await orders.send(opened.bulk_id, orders.lines(count)), LinesStored)
    return opened.bulk_id


async def test_so_many_uploads_of_a_customer_may_be_unfinished(orders: Orders) -> None:
    for number in range(3):
        await orders.open(f"key-{number}")

    refused = await orders.open("one more")

    assert (told(refused), refused.extra) == (TooManyBulks.code, {"running_max": 2, "uploads_max": 3})
    assert isinstance(await orders.open("key-1"), BulkOpened)
    assert isinstance(await orders.open("one more", customer=f"c{new_id().hex}"), BulkOpened)


async def test_so_many_orders_of_a_customer_may_run(orders: Orders) -> None:
    for key in ("a", "b"):
        await orders.accepted(orders.lines(), key=key)

    assert told(await orders.open("one more")) == TooManyBulks.code
    await orders.run()
    assert isinstance(await orders.open("one more"), BulkOpened)


async def test_uploads_that_were_cut_and_orders_that_run_do_not_count_as_each_other(orders: Orders) -> None:
    cut = [await received(orders, f"cut-{number}") for number in range(2)]
    for key in ("a", "b"):
        await orders.accepted(orders.lines(), key=key)
        await orders.run()

    running = await orders.accepted(orders.lines(), key="c")

    assert [(await orders.view(id)).state for id in cut] == ["RECEIVING"] * 2
    assert (await orders.view(running)).state == "PROCESSING"


async def test_a_file_that_is_whole_while_too_many_run_is_kept_and_begins_later(orders: Orders) -> None:
    waiting = await received(orders, "waiting")
    for key in ("a", "b"):
        await orders.accepted(orders.lines(), key=key)

    refused = await orders.close(waiting, ITEMS)
    kept = await orders.view(waiting)
    await orders.run()
    accepted = await orders.close(waiting, ITEMS)

    assert told(refused) == TooManyBulks.code
    assert (kept.state, kept.total) == ("RECEIVING", ITEMS)
    assert accepted.state == "PROCESSING"


async def test_files_that_become_whole_at_once_do_not_pass_the_limit_together(orders: Orders) -> None:
    files = [await received(orders, f"key-{number}") for number in range(3)]

    now = orders.world.clock.now()
    # Connections for all of them, or they would be served one after another.
    await asyncio.gather(*(orders.store.tallies(files) for _ in files))

    accepted = await asyncio.gather(
        *(
            orders.store.accept(
                bulk_id=id,
                customer_id=orders.world.customer,
                last_line=ITEMS,
                running_max=1,
                now=now,
                expires_at=now + timedelta(hours=1),
            )
            for id in files
        )
    )

    assert [order is None for order in accepted].count(False) == 1
    assert (await orders.store.open_by_state())[BulkState.PROCESSING][0] == 1


async def test_who_has_too_many_finds_them_cancels_one_and_goes_on_at_once(orders: Orders) -> None:
    for number in range(3):
        await received(orders, f"key-{number}")

    found = (await orders.list(state=BulkState.RECEIVING)).bulks
    await orders.cancel(found[-1].bulk_id)

    # Its end need not be waited for.
    assert isinstance(await orders.open("one more"), BulkOpened)
    await orders.run()
    assert (await orders.view(found[-1].bulk_id)).state == "CANCELLED"


async def test_a_file_that_is_too_long_is_refused_for_good_and_counts_no_longer(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usecases, "ITEMS_MAX", 5)
    for number in range(3):
        bulk_id = await received(orders, f"key-{number}", 5)

        refused = await orders.send(bulk_id, [orders.line(6)])

        assert told(refused) == TooManyItems.code
        assert "nothing of it is paid" in refused.detail
    again = await orders.send(bulk_id, orders.lines(6))
    whole = await orders.close(bulk_id, 5)

    assert isinstance(await orders.open("one more"), BulkOpened)
    await orders.run()
    assert (await orders.view(bulk_id)).counts == {"CANCELLED": 5}
    assert await orders.world.balance(orders.world.creditor) == (0, 0)
    assert [told(again), told(whole)] == [BulkEnded.code] * 2
    assert again.detail == "The bulk order is CANCELLING: send the file under another key."


async def test_an_order_that_runs_is_not_ended_by_a_longer_file_under_its_key(
    orders: Orders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usecases, "ITEMS_MAX", 5)
    bulk_id = await orders.accepted(orders.lines(5))

    refused = await orders.send(bulk_id, orders.lines(6))
    await orders.run()

    assert told(refused) == KeyReused.code
    assert (await orders.view(bulk_id)).counts == {"SUCCESS": 5}


async def test_an_upload_alone_is_cancelled_where_only_that_is_asked_for(orders: Orders) -> None:
    upload = await received(orders, "upload")
    running = await orders.accepted(orders.lines(), key="running")

    answers = [await orders.cancel(id, is_upload_only=True) for id in (upload, running)]

    assert [answer.state for answer in answers] == ["CANCELLING", "PROCESSING"]


async def test_orders_are_listed_newest_first_page_by_page(orders: Orders) -> None:
    made = []
    for number in range(5):
        made.append(await orders.accepted(orders.lines(number + 1), key=f"key-{number}"))
        await orders.run()

    seen, cursor, sizes = [], None, []
    while True:
        page = await orders.list(limit=2, cursor=cursor)
        seen += page.bulks
        sizes.append(len(page.bulks))
        if page.next_cursor is None:
            break
        cursor = page.next_cursor

    assert [view.bulk_id for view in seen] == made[::-1]
    assert sizes == [2, 2, 1]
    assert (await orders.list(limit=5)).next_cursor is None
    assert seen == [await orders.view(id) for id in made[::-1]]


async def test_orders_are_looked_for_by_their_state_and_are_their_customer_s_alone(orders: Orders) -> None:
    done = await orders.accepted(orders.lines(), key="done")
    await orders.run()
    cut = await received(orders, "cut", 2)

    receiving = await orders.list(state=BulkState.RECEIVING)
    completed = await orders.list(state=BulkState.COMPLETED)

    assert [(view.bulk_id, view.next_line) for view in receiving.bulks] == [(cut, 3)]
    assert [view.bulk_id for view in completed.bulks] == [done]
    assert (await orders.list(state=BulkState.EXPIRED)).bulks == []
    assert (await orders.list(customer="somebody")).bulks == []


async def test_a_list_tells_what_was_last_counted_and_looking_at_one_order_counts(orders: Orders) -> None:
    day = orders.world.clock.now() + timedelta(days=1)
    bulk_id = await orders.accepted([orders.line(1, execute_at=day)], key="later")
    await orders.run()
    before = await orders.list()

    orders.world.clock.move(timedelta(days=1))
    await orders.world.due()
    not_counted = await orders.list()
    one = await orders.view(bulk_id)
    after = await orders.list()

    counts = [view.counts for page in (before, not_counted, after) for view in page.bulks]
    assert counts == [{"PENDING": 1}, {"PENDING": 1}, {"SUCCESS": 1}]
    assert one.counts == {"SUCCESS": 1}
