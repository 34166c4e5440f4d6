"""What was told of an instant stays true: both stores, by the contract."""

from __future__ import annotations

import asyncio
import contextvars
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from payflow.contracts.account import AccountView, Booked, EntryPage, GetAccount, ListEntries
from payflow.kernel.errors import Unavailable
from payflow.platform.crypto import ColumnCipher
from payflow.services.account import store
from payflow.services.account.domain import Batch, Outcomes
from tests.builders import NOON, a_hold, a_transfer, new_id
from tests.builders_account import World, in_memory, on_postgres
from tests.conftest import ConnectAs

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs, cipher: ColumnCipher) -> World:
    return in_memory() if request.param == "memory" else await on_postgres(connect_as, cipher)


async def _as_of(world: World, account: AccountView, at: datetime) -> tuple[int, int]:
    (view,) = await world.operator.get_accounts([GetAccount(number=account.number, at=at)])
    assert isinstance(view, AccountView), view
    assert view.as_of == at
    return view.posted_minor, view.held_minor


async def _until(world: World, account: AccountView, until: datetime) -> tuple[int, int]:
    (page,) = await world.operator.list_entries([ListEntries(number=account.number, booked_until=until)])
    assert isinstance(page, EntryPage), page
    return len(page.entries), page.closing_minor


async def _pay_late(world: World, debtor: AccountView, creditor: AccountView, *, by: timedelta) -> Booked:
    """A payment of 1.00 by a process that has decided when it is, and comes to write only now."""
    world.clock.move(-by)
    transfer = a_transfer(await world.id_of(debtor), await world.id_of(creditor), 100)
    (booked,) = await world.confirm.transfer([transfer])
    world.clock.move(by)
    assert isinstance(booked, Booked), booked
    return booked


async def test_a_balance_that_was_told_of_an_instant_is_never_changed_by_who_comes_late(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    world.clock.move(10 * MINUTE)
    asked = world.clock.now()
    world.clock.move(MINUTE)
    told = [await _as_of(world, account, asked) for account in (debtor, creditor)]

    booked = await _pay_late(world, debtor, creditor, by=5 * MINUTE)

    assert told == [(1_000, 0), (0, 0)]
    assert [await _as_of(world, account, asked) for account in (debtor, creditor)] == told
    assert booked.booked_at > asked
    assert await world.balance(debtor) == (900, 0)


async def test_a_hold_that_comes_late_was_not_there_when_the_instant_was_asked_for(world: World) -> None:
    account = await world.account(1_000)
    world.clock.move(10 * MINUTE)
    asked = world.clock.now()
    told = await _as_of(world, account, asked)

    world.clock.move(-5 * MINUTE)
    await world.confirm.place_hold([a_hold(await world.id_of(account), 300)])
    world.clock.move(5 * MINUTE)

    assert told == await _as_of(world, account, asked) == (1_000, 0)
    assert await world.balance(account) == (1_000, 300)


async def test_a_statement_of_a_time_that_has_passed_is_the_same_for_ever(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    world.clock.move(10 * MINUTE)
    end = world.clock.now()
    told = await _until(world, debtor, end)

    booked = await _pay_late(world, debtor, creditor, by=5 * MINUTE)

    assert told == await _until(world, debtor, end) == (1, 1_000)
    # The end is not part of it: a booking at that instant is in the next statement.
    assert booked.booked_at == end


async def test_a_strangers_question_about_an_account_does_not_touch_it(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    world.clock.move(10 * MINUTE)
    await world.operator.get_accounts([GetAccount(number=debtor.number, customer_id="stranger", at=world.clock.now())])

    booked = await _pay_late(world, debtor, creditor, by=5 * MINUTE)

    assert booked.booked_at == world.clock.now() - 5 * MINUTE


async def test_several_instants_of_one_account_are_told_together(world: World) -> None:
    account = await world.account(1_000)
    world.clock.move(10 * MINUTE)
    instants = [NOON - MINUTE, NOON, NOON + 5 * MINUTE]

    views = await world.operator.get_accounts([GetAccount(number=account.number, at=at) for at in instants])

    assert [(view.as_of, view.posted_minor) for view in views] == list(zip(instants, [0, 1_000, 1_000], strict=True))


async def test_the_first_instant_of_all_is_an_instant(world: World) -> None:
    account = await world.account(1_000)

    assert await _as_of(world, account, datetime.min.replace(tzinfo=UTC)) == (0, 0)


async def test_an_account_that_is_ahead_takes_only_those_with_it_whom_it_pays(world: World) -> None:
    """The database's clock was set back: what was booked before is in the future for a while."""
    ahead, paid = await world.account(1_000), await world.account()
    debtor, creditor = await world.account(1_000), await world.account()
    world.clock.move(60 * MINUTE)
    await world.confirm.place_hold([a_hold(await world.id_of(ahead), 1)])
    world.clock.move(-50 * MINUTE)

    first, second = await world.confirm.transfer(
        [
            a_transfer(await world.id_of(ahead), await world.id_of(paid), 100),
            a_transfer(await world.id_of(debtor), await world.id_of(creditor), 100),
        ]
    )

    assert isinstance(first, Booked)
    assert isinstance(second, Booked)
    assert first.booked_at == NOON + 60 * MINUTE
    assert second.booked_at == world.clock.now() == NOON + 10 * MINUTE
    # Also where this process goes on from what it remembers of the balances.
    (third,) = await world.confirm.transfer([a_transfer(await world.id_of(debtor), await world.id_of(creditor), 100)])
    assert isinstance(third, Booked)
    assert third.booked_at == world.clock.now()
    assert await _as_of(world, creditor, world.clock.now()) == (200, 0)
    assert await _as_of(world, paid, world.clock.now()) == (0, 0)


async def test_what_is_being_booked_is_waited_for(connect_as: ConnectAs, cipher: ColumnCipher) -> None:
    world = await on_postgres(connect_as, cipher)
    debtor, creditor = await world.account(1_000), await world.account()
    ids = [await world.id_of(debtor), await world.id_of(creditor)]
    transfer = a_transfer(ids[0], ids[1], 100)
    world.clock.move(MINUTE)
    decided_at = world.clock.now()
    world.clock.move(MINUTE)
    elsewhere = contextvars.copy_context()

    async with world.store.transaction() as ledger:
        balances = await ledger.lock_balances(ids)
        batch = Batch(balances=balances, outcomes=Outcomes(), now=decided_at)
        batch.transfer(transfer, entry_id=new_id())
        await ledger.save(batch.changes)
        question = asyncio.create_task(_as_of(world, debtor, world.clock.now()), context=elsewhere)
        done, _ = await asyncio.wait([question], timeout=0.3)
        assert not done

    assert await question == (900, 0)


async def test_what_is_booked_on_an_account_right_now_is_not_waited_for_with_a_connection(
    connect_as: ConnectAs, cipher: ColumnCipher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the middle of a batch: only who asks about its account hears of that."""
    monkeypatch.setattr(store, "CLOSING_PAUSES_S", (0.0, 0.05, 0.2))
    world = await on_postgres(connect_as, cipher)
    busy, other, third = await world.account(1_000), await world.account(1_000), await world.account()
    ids = [await world.id_of(account) for account in (busy, other, third)]
    world.clock.move(5 * MINUTE)
    asked = world.clock.now()
    elsewhere = contextvars.copy_context()

    async with world.store.transaction() as ledger:
        await ledger.lock_balances(ids[:1])
        questions = [GetAccount(number=account.number, at=asked) for account in (busy, other)]
        many = [elsewhere.copy().run(asyncio.ensure_future, world.operator.get_accounts(questions)) for _ in range(6)]
        pages = elsewhere.copy().run(
            asyncio.ensure_future, world.operator.list_entries([ListEntries(number=busy.number, booked_until=asked)])
        )
        await asyncio.sleep(0.01)
        (paid,) = await elsewhere.copy().run(
            asyncio.ensure_future, world.confirm.transfer([a_transfer(ids[1], ids[2], 100)])
        )
        told = await asyncio.gather(*many)
        (page,) = await pages

    assert isinstance(paid, Booked)
    assert {type(answer) for answers in told for answer in answers[:1]} == {Unavailable}
    assert [answers[1].posted_minor for answers in told] == [1_000] * 6
    assert isinstance(page, Unavailable)
    assert await _as_of(world, busy, asked) == (1_000, 0)


async def test_who_looks_at_an_account_does_not_have_it_read_again_for_the_next_payment(
    connect_as: ConnectAs, cipher: ColumnCipher
) -> None:
    world = await on_postgres(connect_as, cipher)
    debtor, creditor = await world.account(1_000), await world.account()
    ids = [await world.id_of(debtor), await world.id_of(creditor)]
    (before,) = (await world.store.balances(ids[:1])).values()

    for _ in range(3):
        world.clock.move(MINUTE)
        await _as_of(world, debtor, world.clock.now())

    (after,) = (await world.store.balances(ids[:1])).values()
    assert after.version == before.version
    world.clock.move(MINUTE)
    (booked,) = await world.confirm.transfer([a_transfer(ids[0], ids[1], 100)])
    assert isinstance(booked, Booked)
    assert booked.booked_at == world.clock.now()


@pytest.mark.parametrize("at", [datetime.min.replace(tzinfo=UTC), NOON - MINUTE])
async def test_an_instant_before_an_account_was_opened_changes_nothing_about_it(world: World, at: datetime) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    for account in (debtor, creditor):
        assert await _as_of(world, account, at) == (0, 0)
        assert await _until(world, account, at) == (0, 0)

    booked = await world.confirm.transfer([a_transfer(await world.id_of(debtor), await world.id_of(creditor), 100)])

    assert [type(answer) for answer in booked] == [Booked]
    assert (await _until(world, creditor, datetime.min.replace(tzinfo=UTC) + timedelta(microseconds=1))) == (0, 0)


async def test_funds_of_a_captured_hold_are_at_no_instant_neither_held_nor_paid(world: World) -> None:
    """The creditor's account is a little ahead: the booking is at its instant, and so is the end of the hold."""
    debtor, creditor, third = await world.account(1_000), await world.account(), await world.account(5_000)
    ids = [await world.id_of(account) for account in (debtor, creditor, third)]
    hold = a_hold(ids[0], 1_000)
    await world.confirm.place_hold([hold])
    world.clock.move(MINUTE + timedelta(seconds=2))
    await world.confirm.transfer([a_transfer(ids[2], ids[1], 1)])
    world.clock.move(-timedelta(seconds=2))
    transfer = msgspec.structs.replace(
        a_transfer(ids[0], ids[1], 1_000), payment_id=hold.payment_id, captures_hold=True
    )

    (booked,) = await world.confirm.transfer([transfer])
    between = world.clock.now() + timedelta(seconds=1)
    world.clock.move(MINUTE)

    assert isinstance(booked, Booked)
    assert await _as_of(world, debtor, between) == (1_000, 1_000)
    assert await _as_of(world, debtor, world.clock.now()) == (0, 0)
