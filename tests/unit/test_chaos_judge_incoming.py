"""The judge of fault runs on money that comes in: credited once when it is accepted, nothing when it is refused."""

from __future__ import annotations

import pytest

from payflow_dev.chaos.history import (
    Counts,
    FinalAccount,
    FinalEnd,
    FinalIncoming,
    IncomingCall,
    Line,
    Opening,
    Promise,
    Record,
)
from payflow_dev.chaos.judge import judge_records
from tests.builders_chaos import Doctored, both, changed, lines, with_more, without

CREDITED, REFUSED, SILENT = (f"01a21fb0-5cdf-5fda-94e3-16d0b679e10{digit}" for digit in "123")


def a_call(end_to_end_id: str, told: str | None, **change: object) -> IncomingCall:
    call = IncomingCall(
        end_to_end_id=end_to_end_id, creditor="A1", amount_minor=70, invoked_ns=1, answered_ns=2, told=told
    )
    return changed(IncomingCall, {}, **change)([call])[0]


def a_final(end_to_end_id: str, told: str | None, payment_id: str | None, state: str | None) -> FinalIncoming:
    return FinalIncoming(
        end_to_end_id=end_to_end_id,
        told=told,
        payment_id=payment_id,
        state=state,
        amount_minor=None if state is None else 70,
    )


def a_whole_history() -> list[Record]:
    """70 come in, told at the second try and sent again; 70 are refused; and 70 come of which nobody tells the run."""
    return [
        Opening(account="A1", customer="c1", currency="USD", balance_minor=0),
        Promise(kinds=["incoming"]),
        a_call("in", None, answered_ns=None),
        a_call("in", "ACCEPTED"),
        a_call("no", "REJECTED"),
        a_call("silent", None, answered_ns=None),
        a_call("in", "ACCEPTED"),
        a_final("in", "ACCEPTED", CREDITED, "CREDITED"),
        a_final("no", "REJECTED", REFUSED, "REJECTED"),
        a_final("silent", "ACCEPTED", SILENT, "CREDITED"),
        FinalAccount(account="A1", posted_minor=140, held_minor=0, lines=[credit(1, CREDITED), credit(2, SILENT)]),
        FinalEnd(seconds_to_quiet=1.0, counts=Counts(accounts=1, incoming=3)),
    ]


def credit(sequence: int, payment_id: str) -> Line:
    return Line(sequence, payment_id, "incoming", 70, sequence * 70)


RULES: list[tuple[str, str, Doctored]] = [
    ("doubled", "money is credited twice", lines("A1", 210, *map(credit, (1, 2, 3), (CREDITED, SILENT, CREDITED)))),
    ("wrong balance", "money that was credited is not in the balance", lines("A1", 70, credit(1, CREDITED))),
    ("lost", "money that was credited is not in the books", lines("A1", 70, credit(1, CREDITED))),
    (
        "made up",
        "refused money is in the books",
        lines("A1", 210, *map(credit, (1, 2, 3), (CREDITED, SILENT, REFUSED))),
    ),
    (
        "lost",
        "money that was told as taken is refused",
        changed(FinalIncoming, {"end_to_end_id": "in"}, state="REJECTED"),
    ),
    (
        "lost",
        "money that was told as taken is not known",
        changed(FinalIncoming, {"end_to_end_id": "in"}, state=None, payment_id=None, amount_minor=None),
    ),
    (
        "refused with an effect",
        "refused money is credited",
        both(
            changed(FinalIncoming, {"end_to_end_id": "no"}, state="CREDITED"),
            lines("A1", 210, *map(credit, (1, 2, 3), (CREDITED, SILENT, REFUSED))),
        ),
    ),
    ("contradicted", "money is told as taken and as refused", with_more(a_call("in", "REJECTED"))),
    (
        "contradicted",
        "the other bank's books tell another end",
        changed(FinalIncoming, {"told": "REJECTED"}, told="ACCEPTED"),
    ),
    (
        "left open",
        "nobody ever tells what became of it",
        changed(FinalIncoming, {"end_to_end_id": "silent"}, told="UNKNOWN"),
    ),
    (
        "left open",
        "money is still being worked on",
        changed(FinalIncoming, {"end_to_end_id": "silent"}, state="PENDING"),
    ),
    ("wrong", "another amount came in", changed(FinalIncoming, {"end_to_end_id": "in"}, amount_minor=71)),
    ("made up", "money came in that nobody sent", with_more(a_final("x", None, REFUSED, "CREDITED"))),
    ("doubled", "money is there twice under its id", with_more(a_final("in", "ACCEPTED", REFUSED, "REJECTED"))),
    ("unknown", "money was not read at the end", without(FinalIncoming, end_to_end_id="in")),
    ("unknown", "nothing was ever taken", changed(IncomingCall, {"told": "ACCEPTED"}, told=None)),
]


def test_the_judge_has_nothing_against_a_history_in_which_every_word_is_true() -> None:
    verdict = judge_records(a_whole_history())

    assert verdict.violations == []
    tally = verdict.kinds["incoming"]
    assert (tally.invoked, tally.acknowledged, tally.refused, tally.unknown) == (5, 2, 1, 2)


@pytest.mark.parametrize(("rule", "words", "doctor"), RULES, ids=[f"{rule}: {words}" for rule, words, _ in RULES])
def test_the_judge_objects(rule: str, words: str, doctor: Doctored) -> None:
    verdict = judge_records(doctor(a_whole_history()))

    assert rule in verdict.by_rule, verdict.violations


@pytest.mark.parametrize(("told", "state", "posted"), [("ACCEPTED", "CREDITED", 140), ("REJECTED", "REJECTED", 70)])
def test_an_outcome_that_was_never_told_is_one_of_the_two(told: str, state: str, posted: int) -> None:
    rows = [credit(1, CREDITED), credit(2, SILENT)][: posted // 70]
    silent = both(
        changed(FinalIncoming, {"end_to_end_id": "silent"}, told=told, state=state), lines("A1", posted, *rows)
    )

    assert judge_records(silent(a_whole_history())).violations == []


def test_money_that_is_kept_back_for_a_look_is_taken_and_not_in_the_account() -> None:
    kept_back = both(
        changed(FinalIncoming, {"end_to_end_id": "silent"}, state="HELD_IN_SUSPENSE"),
        lines("A1", 70, credit(1, CREDITED)),
    )

    assert judge_records(kept_back(a_whole_history())).violations == []
