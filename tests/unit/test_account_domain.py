"""The ledger's decisions: greedy, repeatable, and balanced whatever comes."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.contracts.account import (
    AccountBlocked,
    AccountClosed,
    AccountState,
    AlreadyBooked,
    Booked,
    HoldKept,
    HoldPlaced,
    InsufficientFunds,
    PaymentEnded,
    Released,
    StaleCommand,
)
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import CurrencyMismatch
from payflow.services.account.domain import Balance, Batch, Outcomes
from tests.builders import NOON, a_balance, a_hold, a_transfer, new_id


def a_batch(*balances: Balance, outcomes: Outcomes | None = None) -> Batch:
    return Batch(
        balances={balance.account_id: balance for balance in balances}, outcomes=outcomes or Outcomes(), now=NOON
    )


def test_a_transfer_is_one_entry_with_two_postings_that_sum_to_zero() -> None:
    debtor, creditor = a_balance(posted=1_000), a_balance(posted=0)
    batch = a_batch(debtor, creditor)

    answer = batch.transfer(a_transfer(debtor.account_id, creditor.account_id, 400), entry_id=new_id())

    assert isinstance(answer, Booked)
    assert [posting.amount_minor for posting in batch.changes.postings] == [-400, 400]
    assert (debtor.posted_minor, creditor.posted_minor) == (600, 400)


def test_an_item_that_does_not_fit_is_refused_alone_and_the_next_one_sees_the_balance_as_it_is() -> None:
    debtor, creditor = a_balance(posted=1_000), a_balance(posted=0)
    batch = a_batch(debtor, creditor)

    answers = [
        batch.transfer(a_transfer(debtor.account_id, creditor.account_id, amount), entry_id=new_id())
        for amount in (700, 400, 300)
    ]

    assert [type(answer) for answer in answers] == [Booked, InsufficientFunds, Booked]
    assert debtor.posted_minor == 0


def test_a_repeated_transfer_gets_the_first_answer_and_moves_nothing() -> None:
    debtor, creditor = a_balance(posted=1_000), a_balance(posted=0)
    batch = a_batch(debtor, creditor)
    command = a_transfer(debtor.account_id, creditor.account_id, 400)

    first = batch.transfer(command, entry_id=new_id())
    second = batch.transfer(command, entry_id=new_id())

    assert first == second
    assert debtor.posted_minor == 600


def test_a_refused_transfer_stays_refused_when_money_has_come_in_since() -> None:
    debtor, creditor = a_balance(posted=100), a_balance(posted=0)
    batch = a_batch(debtor, creditor)
    command = a_transfer(debtor.account_id, creditor.account_id, 400)
    batch.transfer(command, entry_id=new_id())
    debtor.posted_minor = 10_000

    answer = batch.transfer(command, entry_id=new_id())

    assert isinstance(answer, InsufficientFunds)


@pytest.mark.parametrize(
    ("debtor", "creditor", "expected"),
    [
        (a_balance(state=AccountState.BLOCKED_DEBIT), a_balance(), AccountBlocked),
        (a_balance(state=AccountState.BLOCKED), a_balance(), AccountBlocked),
        (a_balance(is_owner_blocked=True), a_balance(), AccountBlocked),
        (a_balance(state=AccountState.BLOCKED_CREDIT), a_balance(), Booked),
        (a_balance(), a_balance(state=AccountState.BLOCKED_CREDIT), AccountBlocked),
        (a_balance(), a_balance(state=AccountState.BLOCKED_DEBIT), Booked),
        (a_balance(), a_balance(is_owner_blocked=True), AccountBlocked),
        (a_balance(state=AccountState.CLOSED), a_balance(), AccountClosed),
        (a_balance(), a_balance(state=AccountState.CLOSED), AccountClosed),
        (a_balance(currency="EUR"), a_balance(), CurrencyMismatch),
        (a_balance(), a_balance(currency="JPY"), CurrencyMismatch),
    ],
)
def test_account_states_and_currencies_decide_who_may_pay(
    debtor: Balance, creditor: Balance, expected: type[object]
) -> None:
    answer = a_batch(debtor, creditor).transfer(a_transfer(debtor.account_id, creditor.account_id), entry_id=new_id())

    assert isinstance(answer, expected)


def test_held_funds_cannot_be_spent_twice() -> None:
    debtor, creditor = a_balance(posted=1_000), a_balance(posted=0)
    batch = a_batch(debtor, creditor)
    batch.place_hold(a_hold(debtor.account_id, 800), hold_id=new_id())

    answer = batch.transfer(a_transfer(debtor.account_id, creditor.account_id, 300), entry_id=new_id())

    assert isinstance(answer, InsufficientFunds)


def test_a_transfer_can_take_the_money_that_its_own_payment_holds() -> None:
    debtor, creditor = a_balance(posted=1_000), a_balance(posted=0)
    batch = a_batch(debtor, creditor)
    hold = a_hold(debtor.account_id, 1_000)
    batch.place_hold(hold, hold_id=new_id())

    answer = batch.transfer(
        a_transfer(debtor.account_id, creditor.account_id, 1_000, payment_id=hold.payment_id, captures_hold=True),
        entry_id=new_id(),
    )

    assert isinstance(answer, Booked)
    assert (debtor.posted_minor, debtor.held_minor, creditor.posted_minor) == (0, 0, 1_000)


def test_a_released_hold_gives_the_money_back_once() -> None:
    debtor = a_balance(posted=1_000)
    batch = a_batch(debtor)
    hold = a_hold(debtor.account_id, 400)
    batch.place_hold(hold, hold_id=new_id())

    answers = [batch.release_hold(hold.payment_id, 1, "cancelled") for _ in range(2)]

    assert all(isinstance(answer, Released) for answer in answers)
    assert debtor.held_minor == 0


def test_a_hold_that_is_asked_for_again_obeys_the_later_process_only() -> None:
    debtor = a_balance(posted=1_000)
    batch = a_batch(debtor)
    hold = a_hold(debtor.account_id, 400, token=1)
    first = batch.place_hold(hold, hold_id=new_id())
    again = a_hold(debtor.account_id, 400, payment_id=hold.payment_id, token=2)

    repeated = batch.place_hold(again, hold_id=new_id())

    assert repeated == first
    assert isinstance(batch.release_hold(hold.payment_id, 1, "rejected"), StaleCommand)
    assert (debtor.held_minor, len(batch.changes.holds)) == (400, 1)


def test_a_hold_cannot_be_placed_after_its_payment_was_released() -> None:
    debtor = a_balance(posted=1_000)
    batch = a_batch(debtor)
    hold = a_hold(debtor.account_id, 400, token=1)
    batch.release_hold(hold.payment_id, 2, "rejected")

    answer = batch.place_hold(hold, hold_id=new_id())

    assert isinstance(answer, PayflowError)
    assert debtor.held_minor == 0


def test_a_payment_that_was_ended_unpaid_takes_no_late_transfer_or_hold_whatever_their_token() -> None:
    debtor, creditor = a_balance(posted=1_000), a_balance(posted=0)
    batch = a_batch(debtor, creditor)
    late = a_transfer(debtor.account_id, creditor.account_id, 400, token=9)
    batch.release_hold(late.payment_id, 2, "expired")

    answers = [
        batch.transfer(late, entry_id=new_id()),
        batch.place_hold(a_hold(debtor.account_id, 400, payment_id=late.payment_id, token=9), hold_id=new_id()),
    ]

    assert [type(answer) for answer in answers] == [PaymentEnded, PaymentEnded]
    assert (debtor.posted_minor, debtor.held_minor) == (1_000, 0)


def test_a_hold_is_not_placed_for_a_payment_that_is_booked() -> None:
    debtor, creditor = a_balance(posted=1_000), a_balance(posted=0)
    batch = a_batch(debtor, creditor)
    paid = a_transfer(debtor.account_id, creditor.account_id, 400)
    batch.transfer(paid, entry_id=new_id())

    answer = batch.place_hold(a_hold(debtor.account_id, 400, payment_id=paid.payment_id), hold_id=new_id())

    assert isinstance(answer, AlreadyBooked)
    assert debtor.held_minor == 0


def test_booked_funds_cannot_be_released() -> None:
    debtor, nostro = a_balance(posted=1_000), a_balance(posted=0, is_internal=True)
    batch = a_batch(debtor, nostro)
    hold = a_hold(debtor.account_id, 400)
    batch.place_hold(hold, hold_id=new_id())
    batch.capture_hold(hold.payment_id, 1, nostro_account_id=nostro.account_id, entry_id=new_id())

    answer = batch.release_hold(hold.payment_id, 1, "late")

    assert isinstance(answer, AlreadyBooked)
    assert (debtor.posted_minor, debtor.held_minor, nostro.posted_minor) == (600, 0, 400)


def test_a_kept_hold_never_expires() -> None:
    debtor = a_balance(posted=1_000)
    batch = a_batch(debtor)
    hold = a_hold(debtor.account_id, 400, expires_in=timedelta(seconds=-1))
    batch.place_hold(hold, hold_id=new_id())
    kept = batch.keep_hold(hold.payment_id, 1)

    was_released = batch.expire_hold(hold.payment_id)

    assert isinstance(kept, HoldKept)
    assert not was_released
    assert debtor.held_minor == 400


def test_a_repeated_hold_obeys_its_later_owner_only() -> None:
    debtor = a_balance(posted=1_000)
    batch = a_batch(debtor)
    first = a_hold(debtor.account_id, 400, token=1)
    batch.place_hold(first, hold_id=new_id())
    batch.place_hold(a_hold(debtor.account_id, 400, payment_id=first.payment_id, token=3), hold_id=new_id())

    late = batch.release_hold(first.payment_id, 2, "rejected")

    assert isinstance(late, StaleCommand)
    assert debtor.held_minor == 400


@pytest.mark.parametrize(("again", "is_kept"), [(None, True), (timedelta(hours=2), True), (timedelta(hours=-2), False)])
def test_a_repeated_hold_lasts_as_long_as_the_longer_of_the_two(again: timedelta | None, is_kept: bool) -> None:
    debtor = a_balance(posted=1_000)
    batch = a_batch(debtor)
    first = a_hold(debtor.account_id, 400, expires_in=timedelta(hours=-1))
    batch.place_hold(first, hold_id=new_id())
    repeat = a_hold(debtor.account_id, 400, payment_id=first.payment_id, token=2, expires_in=again)
    batch.place_hold(repeat, hold_id=new_id())

    assert batch.expire_hold(first.payment_id) is not is_kept


def test_a_transfer_takes_its_payments_hold_also_where_the_caller_does_not_know_of_it() -> None:
    debtor, creditor = a_balance(posted=1_000), a_balance(posted=0)
    batch = a_batch(debtor, creditor)
    hold = a_hold(debtor.account_id, 1_000)
    batch.place_hold(hold, hold_id=new_id())

    answer = batch.transfer(
        a_transfer(debtor.account_id, creditor.account_id, 1_000, payment_id=hold.payment_id, token=2),
        entry_id=new_id(),
    )

    assert isinstance(answer, Booked)
    assert (debtor.posted_minor, debtor.held_minor, creditor.posted_minor) == (0, 0, 1_000)


def test_an_expired_hold_gives_the_money_back() -> None:
    debtor = a_balance(posted=1_000)
    batch = a_batch(debtor)
    hold = a_hold(debtor.account_id, 400, expires_in=timedelta(seconds=0))
    batch.place_hold(hold, hold_id=new_id())

    was_released = batch.expire_hold(hold.payment_id)

    assert was_released
    assert debtor.held_minor == 0


@pytest.mark.parametrize("step", ["hold", "keep", "capture", "release"])
def test_a_process_that_was_overtaken_can_do_nothing_more(step: str) -> None:
    debtor, nostro = a_balance(posted=1_000), a_balance(is_internal=True)
    batch = a_batch(debtor, nostro)
    hold = a_hold(debtor.account_id, 400, token=1)
    batch.place_hold(hold, hold_id=new_id())
    batch.keep_hold(hold.payment_id, 2)

    commands = {
        "hold": lambda: batch.place_hold(hold, hold_id=new_id()),
        "keep": lambda: batch.keep_hold(hold.payment_id, 1),
        "capture": lambda: batch.capture_hold(
            hold.payment_id, 1, nostro_account_id=nostro.account_id, entry_id=new_id()
        ),
        "release": lambda: batch.release_hold(hold.payment_id, 1, "late"),
    }

    assert isinstance(commands[step](), StaleCommand)
    assert (debtor.posted_minor, debtor.held_minor) == (1_000, 400)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["transfer", "hold", "capture", "take", "release", "keep", "repeat"]),
            st.integers(0, 3),
            st.integers(0, 3),
            st.integers(1, 3_000),
        ),
        max_size=60,
    )
)
def test_whatever_comes_entries_balance_and_nobody_overdraws(steps: list[tuple[str, int, int, int]]) -> None:
    accounts = [a_balance(posted=2_000) for _ in range(4)]
    nostro = a_balance(posted=0, is_internal=True)
    batch = a_batch(*accounts, nostro)
    payments: list[UUID] = []
    last = None
    for what, source, target, amount in steps:
        payment = payments[amount % len(payments)] if payments else new_id()
        debtor, creditor = accounts[source].account_id, accounts[target].account_id
        if what == "transfer" and source != target:
            last = a_transfer(debtor, creditor, amount)
            batch.transfer(last, entry_id=new_id())
        elif what == "repeat" and last is not None:
            batch.transfer(last, entry_id=new_id())
        elif what == "hold":
            command = a_hold(debtor, amount)
            if isinstance(batch.place_hold(command, hold_id=new_id()), HoldPlaced):
                payments.append(command.payment_id)
        elif what == "capture":
            batch.capture_hold(payment, 1, nostro_account_id=nostro.account_id, entry_id=new_id())
        elif what == "take" and source != target:
            batch.transfer(
                a_transfer(debtor, creditor, amount, payment_id=payment, captures_hold=True), entry_id=new_id()
            )
        elif what == "release":
            batch.release_hold(payment, 1, "test")
        elif what == "keep":
            batch.keep_hold(payment, 1)

    by_entry: dict[UUID, int] = {}
    for posting in batch.changes.postings:
        by_entry[posting.entry_id] = by_entry.get(posting.entry_id, 0) + posting.amount_minor
    open_holds: dict[UUID, int] = {}
    for hold in batch.changes.holds.values():
        if hold.state == "HELD":
            open_holds[hold.account_id] = open_holds.get(hold.account_id, 0) + hold.amount_minor
    assert set(by_entry.values()) <= {0}
    assert sum(balance.posted_minor for balance in (*accounts, nostro)) == 8_000
    for balance in accounts:
        assert balance.available_minor >= 0
        assert balance.held_minor == open_holds.get(balance.account_id, 0)
