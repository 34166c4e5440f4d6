"""What an account was at an instant, what moved it in a range, how it changes: both stores, by the contract."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from payflow.contracts.account import (
    AccountState,
    AccountView,
    Booked,
    CaptureHold,
    ChangeAccountState,
    EntryPage,
    GetAccount,
    KeepHold,
    ListEntries,
    ReleaseHold,
)
from payflow.platform.crypto import ColumnCipher
from payflow.services.account.domain import INTERNAL_KINDS
from payflow.services.account.usecases import ledger
from tests.builders import NOON, a_hold, a_transfer
from tests.builders import NORDBANK_BIC as NORDBANK
from tests.builders_account import World, in_memory, on_postgres
from tests.conftest import ConnectAs

MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs, cipher: ColumnCipher) -> World:
    return in_memory() if request.param == "memory" else await on_postgres(connect_as, cipher)


async def _as_of(world: World, account: AccountView, at: datetime) -> tuple[int, int, int]:
    (view,) = await world.operator.get_accounts([GetAccount(number=account.number, at=at)])
    assert isinstance(view, AccountView), view
    assert view.as_of == at
    return view.posted_minor, view.held_minor, view.available_minor


async def _page(world: World, account: AccountView, **query: object) -> EntryPage:
    (page,) = await world.operator.list_entries([ListEntries(number=account.number, **query)])
    assert isinstance(page, EntryPage), page
    return page


async def _paid_each_minute(world: World, amounts: list[int]) -> AccountView:
    """An account of 10.00 that pays the amounts at 12:01, 12:02, ..."""
    debtor, creditor = await world.account(1_000), await world.account()
    debtor_id, creditor_id = await world.id_of(debtor), await world.id_of(creditor)
    for amount in amounts:
        world.clock.move(MINUTE)
        (booked,) = await world.confirm.transfer([a_transfer(debtor_id, creditor_id, amount)])
        assert isinstance(booked, Booked), booked
    return debtor


async def test_an_account_is_asked_for_as_of_any_past_instant(world: World) -> None:
    account = await _paid_each_minute(world, [100, 200, 300])

    seen = [
        (await _as_of(world, account, at))[0]
        for at in (
            NOON - timedelta(days=3650),
            NOON - timedelta(microseconds=1),
            NOON,
            NOON + MINUTE,
            NOON + 2.5 * MINUTE,
            world.clock.now(),
        )
    ]

    assert seen == [0, 0, 1_000, 900, 700, 400]


async def test_what_was_held_at_an_instant_is_known_also_when_the_hold_has_ended(world: World) -> None:
    account = await world.account(1_000)
    account_id = await world.id_of(account)
    captured, released, kept = a_hold(account_id, 100), a_hold(account_id, 200), a_hold(account_id, 400)
    await world.confirm.place_hold([captured])
    world.clock.move(MINUTE)
    await world.confirm.place_hold([released, kept])
    world.clock.move(MINUTE)
    await world.confirm.capture_hold([CaptureHold(payment_id=captured.payment_id, fencing_token=1, agent_bic=NORDBANK)])
    world.clock.move(MINUTE)
    await world.confirm.release_hold([ReleaseHold(payment_id=released.payment_id, fencing_token=1, reason="cancelled")])

    seen = [await _as_of(world, account, NOON + minutes * MINUTE) for minutes in (-1, 0, 1, 2, 3)]

    assert seen == [(0, 0, 0), (1_000, 100, 900), (1_000, 700, 300), (900, 600, 300), (900, 400, 500)]


async def test_an_instant_that_has_not_passed_is_refused(world: World) -> None:
    account = await world.account(1_000)

    (answer,) = await world.operator.get_accounts([GetAccount(number=account.number, at=NOON + MINUTE)])

    assert answer.code == "INSTANT_NOT_PASSED"


async def test_anothers_account_is_no_more_to_be_seen_in_the_past(world: World) -> None:
    account = await world.account(1_000)

    (answer,) = await world.operator.get_accounts([GetAccount(number=account.number, customer_id="nobody", at=NOON)])

    assert answer.code == "ACCOUNT_NOT_FOUND"


async def test_a_range_has_its_lines_and_the_balances_around_them(world: World) -> None:
    account = await _paid_each_minute(world, [100, 200, 300])

    whole = await _page(world, account)
    # From and until: the first instant belongs to the range, the last does not.
    middle = await _page(world, account, booked_from=NOON + MINUTE, booked_until=NOON + 3 * MINUTE)
    before = await _page(world, account, booked_until=NOON)
    open_end = await _page(world, account, booked_from=NOON + 3 * MINUTE)

    assert (whole.opening_minor, whole.closing_minor, len(whole.entries)) == (0, 400, 4)
    assert [line.amount_minor for line in middle.entries] == [-200, -100]
    assert (middle.opening_minor, middle.closing_minor) == (1_000, 700)
    assert (before.entries, before.opening_minor, before.closing_minor) == ([], 0, 0)
    assert ([line.amount_minor for line in open_end.entries], open_end.opening_minor) == ([-300], 700)


async def test_a_statement_adds_up_in_any_range(world: World) -> None:
    account = await _paid_each_minute(world, [1, 2, 3, 4, 5])

    for begin in range(-1, 7):
        for end in range(begin, 7):
            page = await _page(world, account, booked_from=NOON + begin * MINUTE, booked_until=NOON + end * MINUTE)
            assert page.closing_minor - page.opening_minor == sum(line.amount_minor for line in page.entries)


async def test_a_cursor_goes_on_where_the_page_ended_while_new_entries_arrive(world: World) -> None:
    account = await _paid_each_minute(world, [1, 2, 3, 4])
    account_id, other_id = await world.id_of(account), await world.id_of(await world.account())
    seen, cursor = [], None
    while True:
        page = await _page(world, account, limit=2, cursor=cursor)
        seen += [line.amount_minor for line in page.entries]
        cursor = page.next_cursor
        if cursor is None:
            break
        await world.confirm.transfer([a_transfer(account_id, other_id, 50)])

    assert seen == [-4, -3, -2, -1, 1_000]


async def test_lines_of_one_instant_are_paged_without_loss(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    debtor_id, creditor_id = await world.id_of(debtor), await world.id_of(creditor)
    await world.confirm.transfer([a_transfer(debtor_id, creditor_id, amount) for amount in (1, 2, 3, 4, 5)])

    for is_oldest_first in (False, True):
        seen, cursor = [], None
        while len(seen) < 6:
            page = await _page(world, debtor, limit=2, cursor=cursor, is_oldest_first=is_oldest_first)
            seen += [line.amount_minor for line in page.entries]
            cursor = page.next_cursor

        assert seen == ([1_000, -1, -2, -3, -4, -5] if is_oldest_first else [-5, -4, -3, -2, -1, 1_000])
        assert cursor is None


async def test_the_first_line_is_the_opening_balance(world: World) -> None:
    account = await _paid_each_minute(world, [100])

    page = await _page(world, account, limit=1, is_oldest_first=True)

    assert [(line.kind, line.payment_id, line.amount_minor) for line in page.entries] == [("opening", None, 1_000)]


async def test_instants_of_an_account_never_go_back_although_a_clock_does(world: World) -> None:
    account = await _paid_each_minute(world, [100])
    account_id, other_id = await world.id_of(account), await world.id_of(await world.account())

    world.clock.move(-MINUTE)
    (booked,) = await world.confirm.transfer([a_transfer(account_id, other_id, 50)])

    assert isinstance(booked, Booked)
    assert booked.booked_at == NOON + MINUTE
    assert (await _page(world, account)).entries[0].amount_minor == -50


async def test_a_part_of_a_hold_is_captured_and_the_rest_is_available_again(world: World) -> None:
    account = await world.account(1_000)
    hold = a_hold(await world.id_of(account), 300)
    await world.confirm.place_hold([hold])
    part = CaptureHold(payment_id=hold.payment_id, fencing_token=1, agent_bic=NORDBANK, amount_minor=120)

    (booked,) = await world.confirm.capture_hold([part])
    repeats = [
        *await world.confirm.capture_hold([part]),
        *await world.confirm.capture_hold(
            [CaptureHold(payment_id=hold.payment_id, fencing_token=1, agent_bic=NORDBANK)]
        ),
    ]

    assert isinstance(booked, Booked)
    assert repeats == [booked, booked]
    assert await world.balance(account) == (880, 0)


@pytest.mark.parametrize(
    ("amount", "code"), [(301, "CAPTURE_TOO_LARGE"), (0, "INVALID_AMOUNT"), (-1, "INVALID_AMOUNT")]
)
async def test_what_cannot_be_captured_leaves_the_hold_as_it_is(world: World, amount: int, code: str) -> None:
    account = await world.account(1_000)
    hold = a_hold(await world.id_of(account), 300)
    await world.confirm.place_hold([hold])
    wrong = CaptureHold(payment_id=hold.payment_id, fencing_token=1, agent_bic=NORDBANK, amount_minor=amount)

    (refused,) = await world.confirm.capture_hold([wrong])
    held = await world.balance(account)
    (booked,) = await world.confirm.capture_hold(
        [CaptureHold(payment_id=hold.payment_id, fencing_token=1, agent_bic=NORDBANK, amount_minor=300)]
    )

    assert (refused.code, held) == (code, (1_000, 300))
    assert isinstance(booked, Booked)
    assert await world.balance(account) == (700, 0)


@pytest.mark.parametrize("kind", sorted(INTERNAL_KINDS))
async def test_each_kind_of_internal_account_is_made_once(world: World, kind: str) -> None:
    bic = NORDBANK if kind == "nostro" else None

    ids = {await world.store.internal_account(kind=kind, currency="EUR", agent_bic=bic) for _ in range(2)}

    assert len(ids) == 1


async def test_a_hold_that_is_kept_for_submission_never_expires(world: World) -> None:
    account = await world.account(1_000)
    kept, other = [a_hold(await world.id_of(account), 300, expires_in=MINUTE) for _ in range(2)]
    await world.confirm.place_hold([kept, other])
    await world.confirm.keep_hold([KeepHold(payment_id=kept.payment_id, fencing_token=1)])

    for days in (1, 10_000):
        await ledger.expire_holds(store=world.store, now=NOON + timedelta(days=days))

    assert await world.balance(account) == (1_000, 300)


_ALL = list(AccountState)


@pytest.mark.parametrize("before", [state for state in _ALL if state is not AccountState.CLOSED])
@pytest.mark.parametrize("after", _ALL)
async def test_an_account_changes_from_each_state_to_each(
    world: World, before: AccountState, after: AccountState
) -> None:
    account = await world.account()

    answers = [await _change(world, account, state) for state in (before, after)]

    assert answers == [before, after]


@pytest.mark.parametrize("state", _ALL)
async def test_a_closed_account_stays_closed(world: World, state: AccountState) -> None:
    account = await world.account()
    await _change(world, account, AccountState.CLOSED)

    answer = await _change(world, account, state)

    assert answer == (AccountState.CLOSED if state is AccountState.CLOSED else "ACCOUNT_CLOSED")
    assert (await world.operator.get_accounts([GetAccount(number=account.number)]))[0].state is AccountState.CLOSED


@pytest.mark.parametrize("state", [state for state in _ALL if state is not AccountState.CLOSED])
async def test_an_account_with_money_or_holds_is_not_closed_whatever_its_state(
    world: World, state: AccountState
) -> None:
    account = await world.account(1_000)
    account_id, other_id = await world.id_of(account), await world.id_of(await world.account())
    hold = a_hold(account_id, 1_000)
    await world.confirm.place_hold([hold])
    await _change(world, account, state)
    first = await _change(world, account, AccountState.CLOSED)
    await world.confirm.release_hold([ReleaseHold(payment_id=hold.payment_id, fencing_token=1, reason="cancelled")])
    second = await _change(world, account, AccountState.CLOSED)
    await _change(world, account, AccountState.OPEN)
    await world.confirm.transfer([a_transfer(account_id, other_id, 1_000)])

    third = await _change(world, account, AccountState.CLOSED)

    assert [first, second, third] == ["ACCOUNT_NOT_EMPTY", "ACCOUNT_NOT_EMPTY", AccountState.CLOSED]


@pytest.mark.parametrize(
    ("state", "pays", "is_paid"),
    [
        (AccountState.OPEN, None, None),
        (AccountState.BLOCKED_DEBIT, "ACCOUNT_BLOCKED", None),
        (AccountState.BLOCKED_CREDIT, None, "ACCOUNT_BLOCKED"),
        (AccountState.BLOCKED, "ACCOUNT_BLOCKED", "ACCOUNT_BLOCKED"),
    ],
)
async def test_a_state_says_what_an_account_may(
    world: World, state: AccountState, pays: str | None, is_paid: str | None
) -> None:
    account, other = await world.account(1_000), await world.account(1_000)
    account_id, other_id = await world.id_of(account), await world.id_of(other)
    await _change(world, account, state)

    answers = await world.confirm.transfer([a_transfer(account_id, other_id, 10), a_transfer(other_id, account_id, 10)])
    (held,) = await world.confirm.place_hold([a_hold(account_id, 10)])

    assert [getattr(answer, "code", None) for answer in (*answers, held)] == [pays, is_paid, pays]


async def _change(world: World, account: AccountView, state: AccountState) -> str:
    command = ChangeAccountState(number=account.number, state=state, reason="test", changed_by="operator")
    (answer,) = await world.operator.change_account_state([command])
    return answer.state if isinstance(answer, AccountView) else answer.code
