"""The bench's verdict on the money: it is right only if every acknowledged payment is booked once, and as asked."""

from __future__ import annotations

import pytest

from payflow_dev.bench.money import Leg, MoneyModel, MoneyReport, Recorded, Sent
from payflow_dev.bench.population import Payment
from payflow_dev.bench.wire import Outcome

OPENING = {"A": 1000, "B": 1000}
ON_US = Payment(0, "A", "B", 100)
INTER_BANK = Payment(0, "A", "DE08990100100000001001", 100)


def booked(debtor: str = "A", creditor: str | None = "B", amount: int = 100, entry: bytes = b"1") -> list[Leg]:
    return [Leg(entry, debtor, -amount), Leg(entry, creditor, amount)]


def verdict(
    *,
    outcome: Outcome,
    recorded: Recorded | None,
    balances: tuple[int, int],
    payment: Payment = ON_US,
    held: int = 0,
) -> MoneyReport:
    """The report on one payment, with the balances that A and B are found to have."""
    model = MoneyModel(OPENING)
    payments = {} if recorded is None else {"t1": recorded}
    model.replay([Sent("t1", payment, outcome)], payments)
    model.refuse_strangers(["t1"], payments)
    model.compare_balances({"A": (balances[0], held), "B": (balances[1], 0)})
    return model.report()


def test_an_acknowledged_payment_that_is_booked_once_is_right() -> None:
    report = verdict(outcome=Outcome.SUCCESS, recorded=Recorded("COMPLETED", booked()), balances=(900, 1100))

    assert report.is_right
    assert report.in_words() == "money: 1 acknowledged, 0 lost, 0 doubled, balances right"


@pytest.mark.parametrize("recorded", [None, Recorded("COMPLETED", []), Recorded("REJECTED", [])])
def test_an_acknowledged_payment_without_a_booking_is_lost(recorded: Recorded | None) -> None:
    report = verdict(outcome=Outcome.SUCCESS, recorded=recorded, balances=(1000, 1000))

    assert report.lost == 1
    assert not report.is_right


def test_two_journal_entries_for_one_payment_are_doubled() -> None:
    legs = booked(entry=b"1") + booked(entry=b"2")

    report = verdict(outcome=Outcome.SUCCESS, recorded=Recorded("COMPLETED", legs), balances=(800, 1200))

    assert report.doubled == 1
    assert "A: (posted, held) is (800, 0), expected (900, 0)" in "\n".join(report.differences)


@pytest.mark.parametrize(
    "legs", [booked(amount=99), booked(creditor="C"), booked(debtor="B", creditor="A"), booked()[:1]]
)
def test_a_booking_of_another_amount_or_between_other_accounts_is_wrong(legs: list[Leg]) -> None:
    report = verdict(outcome=Outcome.SUCCESS, recorded=Recorded("COMPLETED", legs), balances=(900, 1100))

    assert report.wrong == 1


def test_a_balance_that_the_payments_do_not_explain_is_wrong() -> None:
    report = verdict(outcome=Outcome.SUCCESS, recorded=Recorded("COMPLETED", booked()), balances=(900, 1101))

    assert report.differences == ["account B: (posted, held) is (1101, 0), expected (1100, 0)"]


def test_a_refused_payment_that_is_booked_is_wrong() -> None:
    report = verdict(outcome=Outcome.REFUSED, recorded=Recorded("COMPLETED", booked()), balances=(900, 1100))

    assert report.wrong == 1


@pytest.mark.parametrize("recorded", [None, Recorded("REJECTED", []), Recorded("AWAITING_OTP", [])])
def test_a_refused_payment_that_moved_nothing_is_right(recorded: Recorded | None) -> None:
    report = verdict(outcome=Outcome.REFUSED, recorded=recorded, balances=(1000, 1000))

    assert report.is_right
    assert report.acknowledged == 0


def test_a_payment_without_an_answer_may_be_booked_once() -> None:
    gone_through = verdict(outcome=Outcome.UNKNOWN, recorded=Recorded("COMPLETED", booked()), balances=(900, 1100))
    not_arrived = verdict(outcome=Outcome.UNKNOWN, recorded=None, balances=(1000, 1000))

    assert gone_through.is_right
    assert gone_through.late_successes == 1
    assert not_arrived.is_right


def test_a_payment_without_an_answer_must_not_be_booked_twice() -> None:
    legs = booked(entry=b"1") + booked(entry=b"2")

    report = verdict(outcome=Outcome.UNKNOWN, recorded=Recorded("COMPLETED", legs), balances=(900, 1100))

    assert report.doubled == 1


def test_money_that_left_for_another_bank_is_credited_to_an_account_of_the_bank_s_own() -> None:
    report = verdict(
        outcome=Outcome.PENDING,
        payment=INTER_BANK,
        recorded=Recorded("COMPLETED", booked(creditor=None)),
        balances=(900, 1000),
    )

    assert report.is_right


def test_a_pending_payment_still_holds_its_amount_and_is_told() -> None:
    report = verdict(
        outcome=Outcome.PENDING,
        payment=INTER_BANK,
        recorded=Recorded("SUBMITTED", []),
        balances=(1000, 1000),
        held=100,
    )

    assert report.is_right
    assert report.in_words() == "money: 1 acknowledged, 0 lost, 0 doubled, 1 still pending, balances right"


def test_a_pending_payment_that_the_other_bank_rejected_gives_the_money_back() -> None:
    rejected = Recorded("REJECTED", [])

    assert verdict(outcome=Outcome.PENDING, payment=INTER_BANK, recorded=rejected, balances=(1000, 1000)).is_right
    assert not verdict(
        outcome=Outcome.PENDING, payment=INTER_BANK, recorded=rejected, balances=(1000, 1000), held=100
    ).is_right


@pytest.mark.parametrize("recorded", [None, Recorded("COMPLETED", []), Recorded("RECEIVED", [])])
def test_a_pending_payment_that_nobody_remembers_or_books_is_lost(recorded: Recorded | None) -> None:
    report = verdict(outcome=Outcome.PENDING, payment=INTER_BANK, recorded=recorded, balances=(1000, 1000))

    assert report.lost == 1


def test_a_booked_payment_whose_state_says_otherwise_is_wrong() -> None:
    report = verdict(outcome=Outcome.UNKNOWN, recorded=Recorded("REJECTED", booked()), balances=(900, 1100))

    assert report.wrong == 1


def test_a_recorded_payment_that_nobody_sent_is_wrong() -> None:
    model = MoneyModel(OPENING)

    model.refuse_strangers(["t1"], {"t2": Recorded("COMPLETED", booked())})

    assert model.report().differences == ["t2 is recorded and was never sent"]


def test_what_the_ledger_s_own_verification_finds_is_wrong() -> None:
    model = MoneyModel(OPENING)

    model.add_broken_rules(["all accounts in USD sum to 1"])

    assert not model.report().is_right


def test_of_many_differences_the_first_are_told_and_all_are_counted() -> None:
    model = MoneyModel({f"A{number}": 1 for number in range(100)})

    model.compare_balances({})

    assert len(model.report().differences) == 20
    assert model.report().differences_count == 100
