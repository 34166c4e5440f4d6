"""The judge of fault runs: one doctored history for each of its rules, and a whole one that it has nothing against."""

from __future__ import annotations

import pytest

from payflow_dev.chaos.history import (
    Call,
    Counts,
    Fault,
    FinalAccount,
    FinalBank,
    FinalEnd,
    FinalPayment,
    Line,
    Opening,
    Promise,
    Record,
    ToldAgain,
)
from payflow_dev.chaos.judge import judge_records
from tests.builders_chaos import PAID, Doctored, a_call, both, changed, lines, with_more, without

REFUSED = '{"error":"INSUFFICIENT_FUNDS","status":422}'
ABROAD = "DE08990100100000001001"
HOME, BANK, NO = (f"01a21fb0-5cdf-7fda-94e3-16d0b679e10{digit}" for digit in "123")

WHOLE = {"accounts": 2, "faults": 1, "payments": 3, "repeats": 3, "bank": 1}


def a_whole_history() -> list[Record]:
    """A1 pays A2 100 and another bank 30, and is refused 10,000; every word is true."""

    def final(key: str, payment_id: str, state: str, amount_minor: int) -> FinalPayment:
        return FinalPayment(
            customer="c1", transaction=key, payment_id=payment_id, state=state, amount_minor=amount_minor, error=None
        )

    return [
        Opening(account="A1", customer="c1", currency="USD", balance_minor=500),
        Opening(account="A2", customer="c2", currency="USD", balance_minor=0),
        Promise(kinds=["payment", "payment abroad"], edges=["confirm"], faults=1, kills=1, payments=2),
        a_call("home", status=None, body=None, answered_ns=None),
        a_call("home"),
        a_call("bank", creditor=ABROAD, amount_minor=30),
        a_call("no", amount_minor=10_000, status=422, body=REFUSED),
        Fault(
            name="kill", victim="confirm", edge=None, position=None, began_ns=1, is_hit=True, back_after_s=0.5,
            paying_after_s=0.5,
        ),
        final("home", HOME, "COMPLETED", 100),
        final("bank", BANK, "COMPLETED", 30),
        final("no", NO, "REJECTED", 10_000),
        ToldAgain(customer="c1", key="home", status=200, body=PAID),
        ToldAgain(customer="c1", key="bank", status=200, body=PAID),
        ToldAgain(customer="c1", key="no", status=422, body=REFUSED),
        FinalAccount(
            account="A1",
            posted_minor=370,
            held_minor=0,
            lines=[
                Line(1, None, "opening", 500, 500),
                Line(2, HOME, "transfer", -100, 400),
                Line(3, BANK, "capture", -30, 370),
            ],
        ),
        FinalAccount(account="A2", posted_minor=100, held_minor=0, lines=[Line(1, HOME, "transfer", 100, 100)]),
        FinalBank(end_to_end_id=BANK.replace("-", ""), status="ACCEPTED", amount_minor=30, times_received=2),
        FinalEnd(
            seconds_to_quiet=1.0, counts=Counts(**WHOLE),
        ),
    ]  # fmt: skip


RULES: list[tuple[str, str, Doctored]] = [
    ("lost", "an acknowledged payment is rejected", changed(FinalPayment, {"transaction": "home"}, state="REJECTED")),
    (
        "lost",
        "an acknowledged payment is not known any more",
        changed(FinalPayment, {"transaction": "home"}, state=None, payment_id=None, amount_minor=None),
    ),
    ("lost", "a completed payment is not in its creditor's books", lines("A2", 0)),
    (
        "doubled",
        "a payment is booked twice",
        lines("A2", 200, Line(1, HOME, "transfer", 100, 100), Line(2, HOME, "transfer", 100, 200)),
    ),
    (
        "made up",
        "a booking belongs to no payment that anybody asked for",
        lines("A2", 107, Line(1, HOME, "transfer", 100, 100), Line(2, "another", "transfer", 7, 107)),
    ),
    (
        "made up",
        "a payment is known that nobody asked for",
        with_more(
            FinalPayment(customer="c9", transaction="x", payment_id=NO, state="REJECTED", amount_minor=1, error=None)
        ),
    ),
    ("contradicted", "a success is told after a refusal", with_more(a_call("home", status=422, body=REFUSED))),
    (
        "contradicted",
        "two successes differ by a byte",
        with_more(a_call("home", body='{"status":"SUCCESS","reference":"PF2"}')),
    ),
    ("wrong", "another amount was paid", changed(FinalPayment, {"transaction": "home"}, amount_minor=101)),
    ("wrong balance", "a balance is one cent too high", changed(FinalAccount, {"account": "A2"}, posted_minor=101)),
    ("wrong balance", "funds are held for nothing", changed(FinalAccount, {"account": "A1"}, held_minor=10_000)),
    ("wrong statement", "a running balance does not follow", lines("A2", 100, Line(1, HOME, "transfer", 100, 99))),
    ("wrong statement", "a line is missing", lines("A2", 100, Line(2, HOME, "transfer", 100, 100))),
    (
        "refused with an effect",
        "a refused payment is paid",
        changed(FinalPayment, {"transaction": "no"}, state="SUBMITTED"),
    ),
    (
        "refused with an effect",
        "a payment that was turned away each time exists",
        changed(Call, {"key": "no"}, status=403, body="{}"),
    ),
    (
        "cancelled with an effect",
        "a cancelled payment is paid",
        with_more(a_call("home", operation="cancel", body="{}")),
    ),
    ("told otherwise", "the last repeat is told something new", changed(ToldAgain, {"key": "home"}, body=REFUSED)),
    (
        "overdrawn",
        "an account was below zero in between",
        lines(
            "A2", 100, Line(1, "x", "transfer", -5, -5), Line(2, "y", "transfer", 5, 0), Line(3, HOME, "t", 100, 100)
        ),
    ),
    (
        "paid abroad",
        "the other bank was paid for what we refused",
        with_more(FinalBank(end_to_end_id=NO, status="ACCEPTED", amount_minor=10_000, times_received=1)),
    ),
    ("paid abroad", "the other bank was paid another amount", changed(FinalBank, {}, amount_minor=31)),
    ("paid abroad", "the other bank never got what is completed", without(FinalBank)),
    (
        "paid abroad",
        "the other bank was paid under a second id",
        with_more(FinalBank(end_to_end_id="f" * 32, status="ACCEPTED", amount_minor=30, times_received=1)),
    ),
    ("left open", "a payment is still being worked on", changed(FinalPayment, {"transaction": "no"}, state="APPROVED")),
    ("unknown", "the final read broke off", without(FinalEnd)),
    ("unknown", "a payment was not read at the end", without(FinalPayment, transaction="home")),
    ("unknown", "an account was not read at the end", without(FinalAccount, account="A2")),
    ("unknown", "a promised fault never struck", changed(Fault, {}, is_hit=False)),
    ("left open", "somebody still waits for an answer", changed(FinalEnd, {}, unsettled=["home"])),
    ("unknown", "nobody has said what the run was to do", without(Promise)),
    ("unknown", "how much there was to read is not told", changed(FinalEnd, {}, counts=None)),
    ("unknown", "no repeat was told anything at the end", without(ToldAgain)),
    ("unknown", "one repeat was told nothing at the end", without(ToldAgain, key="bank")),
    ("unknown", "no fault was done", without(Fault)),
    ("unknown", "fewer faults were done than planned", changed(Promise, {}, faults=2)),
    ("unknown", "fewer processes were killed than planned", changed(Promise, {}, kills=2)),
    ("unknown", "fewer payments were acknowledged than planned", changed(Promise, {}, payments=3)),
    (
        "unknown",
        "an edge that was promised was not struck",
        changed(Promise, {}, edges=["confirm -> account.transfer"]),
    ),
    ("unknown", "what accounts had at first is not told", without(Opening)),
    ("unknown", "the other bank's books were read in part", without(FinalBank)),
    *(
        (
            "unknown",
            f"there were more {what} to read than were read",
            changed(FinalEnd, {}, counts=Counts(**(WHOLE | {what: WHOLE.get(what, 0) + 1}))),
        )
        for what in ("accounts", "faults", "payments", "repeats", "files", "returns", "bank", "incoming")
    ),
]


# Whoever has heard no end by himself is not asked once more.
NEVER_TOLD = both(
    without(ToldAgain, key="bank"),
    changed(FinalEnd, {}, counts=Counts(**(WHOLE | {"repeats": 2}))),
    changed(Promise, {}, kinds=["payment"], payments=1),
)


def test_the_judge_has_nothing_against_a_history_in_which_every_word_is_true() -> None:
    verdict = judge_records(a_whole_history())

    assert verdict.violations == []
    assert verdict.is_good
    assert (verdict.payments, verdict.acknowledged, verdict.refused, verdict.completed) == (3, 2, 1, 2)
    assert verdict.unknown == 1


@pytest.mark.parametrize(("rule", "words", "doctor"), RULES, ids=[f"{rule}: {words}" for rule, words, _ in RULES])
def test_the_judge_objects(rule: str, words: str, doctor: Doctored) -> None:
    verdict = judge_records(doctor(a_whole_history()))

    assert not verdict.is_good
    assert rule in verdict.by_rule, verdict.violations


@pytest.mark.parametrize(
    "tolerated",
    [
        with_more(a_call("home", status=409, body="{}"), a_call("home", status=429, body="{}")),
        with_more(a_call("no", amount_minor=10_000, status=503, body="{}")),
        both(NEVER_TOLD, changed(Call, {"key": "bank"}, status=None, body=None, answered_ns=None)),
        both(NEVER_TOLD, changed(Call, {"key": "bank"}, status=202, body='{"status":"PENDING"}')),
        with_more(a_call("home", status=422, body='{"error":"INVALID_OTP"}')),
    ],
    ids=["409 and 429", "503 of a refused one", "paid without a word", "pending and then paid", "a wrong code"],
)
def test_the_judge_takes_silence_and_try_again_for_what_they_are(tolerated: Doctored) -> None:
    verdict = judge_records(tolerated(a_whole_history()))

    assert verdict.violations == []
