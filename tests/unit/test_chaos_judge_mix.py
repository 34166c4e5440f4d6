"""The judge of fault runs on cancellations, returns, reviews, files and payments for later: each rule doctored once."""

from __future__ import annotations

import pytest

from payflow_dev.chaos.history import (
    Call,
    Counts,
    Fault,
    FileCall,
    FileLine,
    FinalAccount,
    FinalBank,
    FinalEnd,
    FinalFile,
    FinalItem,
    FinalPayment,
    FinalReturn,
    Line,
    OfficeCall,
    Promise,
)
from payflow_dev.chaos.judge import judge_records
from payflow_dev.chaos.kinds import KINDS
from tests.builders_chaos import Doctored, both, changed, lines, with_more, without
from tests.builders_chaos_mix import (
    DUE_NS,
    IDS,
    a_return,
    a_whole_history,
    an_office_call,
    an_unknown,
    an_upload,
    booked_again,
    statement,
    the_file,
    told,
)

RULES: list[tuple[str, str, Doctored]] = [
    (
        "cancelled with an effect",
        "a cancelled payment is paid",
        changed(FinalPayment, {"transaction": "gone"}, state="COMPLETED"),
    ),
    (
        "made up",
        "a payment is cancelled though its cancellation was refused",
        changed(Call, {"operation": "cancel"}, status=409, body='{"error":"NOT_CANCELLABLE"}'),
    ),
    ("wrong balance", "a cancelled payment keeps its hold", changed(FinalAccount, {"account": "A1"}, held_minor=2)),
    (
        "before its time",
        "a payment for later is told as made before its time",
        changed(Call, {"transaction": "later", "status": 200}, answered_ns=DUE_NS - 2_000_000_000),
    ),
    (
        "before its time",
        "a payment for later is booked before its time",
        changed(Call, {"transaction": "later"}, execute_at="2026-03-02T12:00:20+00:00"),
    ),
    (
        "not cleared",
        "a listed payment is paid and nobody has cleared it",
        changed(OfficeCall, {"operation": "clear_review"}, status=409),
    ),
    (
        "refused with an effect",
        "a blocked payment is paid",
        changed(FinalPayment, {"transaction": "blocked"}, state="COMPLETED"),
    ),
    (
        "contradicted",
        "a payment is both cleared and blocked",
        with_more(an_office_call("block_review", "case-1", transaction="listed", status=200)),
    ),
    (
        "contradicted",
        "a payment is refused that nobody has blocked",
        changed(OfficeCall, {"operation": "block_review"}, status=409),
    ),
    ("lost", "a completed return is rejected", changed(FinalReturn, {"key": "r-back"}, state="REJECTED")),
    ("lost", "a return that was told is not there", without(FinalReturn, key="r-back")),
    (
        "lost",
        "a return's money is not back",
        lines("A2", 64, *statement(0, 1, first=1)[:4], Line(5, IDS["more"], "return", -50, 64)),
    ),
    ("doubled", "a return's money moves back twice", booked_again("back", -40)),
    ("doubled", "a return is there twice under its key", with_more(a_return("one", "COMPLETED", 40, key="r-back"))),
    ("made up", "a return is there that nobody asked for", with_more(a_return("one", "COMPLETED", 1, key="other"))),
    (
        "returned too much",
        "the returns come to more than the payment",
        changed(FinalReturn, {"key": "r-no"}, state="APPROVED", amount_minor=20),
    ),
    (
        "returned too much",
        "a return of a payment that was never made",
        changed(FinalReturn, {"key": "r-back"}, payment_id=IDS["gone"]),
    ),
    (
        "wrong",
        "a payment tells of other returns than there are",
        changed(FinalPayment, {"transaction": "home"}, returned_minor=40),
    ),
    (
        "wrong",
        "a payment tells of returns and has none",
        changed(FinalPayment, {"transaction": "listed"}, returned_minor=1),
    ),
    (
        "wrong",
        "a return has another amount than was asked for",
        changed(OfficeCall, {"key": "r-back"}, amount_minor=41),
    ),
    ("wrong", "a return goes to a third account", changed(FinalReturn, {"key": "r-back"}, creditor="A3")),
    (
        "refused with an effect",
        "a declined return is completed",
        changed(FinalReturn, {"key": "r-no"}, state="COMPLETED"),
    ),
    (
        "refused with an effect",
        "a return is there whose every request was refused",
        with_more(a_return("one", "REJECTED", 90, key="r-never")),
    ),
    (
        "refused with an effect",
        "a return that was refused after it was stored is completed",
        changed(OfficeCall, {"key": "r-back", "status": 201}, status=422, body=told("back", "REJECTED")),
    ),
    (
        "contradicted",
        "a return is told under two ids",
        with_more(an_office_call("return", "r-back", body=told("one", "APPROVED"))),
    ),
    (
        "left open",
        "a return is still being made",
        changed(FinalReturn, {"key": "r-no"}, state="APPROVED", amount_minor=10),
    ),
    (
        "four eyes",
        "more than the limit went back without a second person",
        changed(FinalReturn, {"key": "r-more"}, decided_by=None),
    ),
    (
        "four eyes",
        "who asked for a return has decided about it",
        changed(FinalReturn, {"key": "r-more"}, decided_by="olga"),
    ),
    (
        "four eyes",
        "a return was decided by somebody who never did",
        changed(FinalReturn, {"key": "r-more"}, decided_by="otto"),
    ),
    (
        "four eyes",
        "who asked was told that they have decided",
        changed(OfficeCall, {"key": "r-more", "status": 422}, status=200, body=told("more", "COMPLETED")),
    ),
    (
        "lost",
        "a line of a file that was taken is no payment",
        changed(FinalPayment, {"transaction": "two"}, state=None, payment_id=None, amount_minor=None),
    ),
    ("lost", "a file that was taken is not known any more", changed(FinalFile, {}, state=None, items=[])),
    (
        "lost",
        "a file has lost a line",
        changed(FinalFile, {}, items=[FinalItem(1, "one", "SUCCESS", IDS["one"])], total=1, counts={"SUCCESS": 1}),
    ),
    ("made up", "a file is there that nobody sent", with_more(the_file(key="f-2", items=[], total=0, counts={}))),
    (
        "made up",
        "a file has a line that nobody sent",
        changed(FinalFile, {}, items=[*the_file().items, FinalItem(3, "x", "REJECTED", None)]),
    ),
    (
        "doubled",
        "a file has a payment in two lines",
        changed(FinalFile, {}, items=[*the_file().items, FinalItem(3, "one", "SUCCESS", IDS["one"])]),
    ),
    (
        "doubled",
        "a file has a line twice",
        changed(
            FinalFile,
            {},
            items=[FinalItem(1, "one", "SUCCESS", IDS["one"]), FinalItem(1, "two", "REJECTED", IDS["two"])],
        ),
    ),
    ("doubled", "a line of a file is paid twice", booked_again("one", 10)),
    ("made up", "a file that was sent again is paid again under other ids", booked_again("two", 20)),
    (
        "told otherwise",
        "a line is told as paid, and its payment was refused",
        changed(FinalPayment, {"transaction": "one"}, state="REJECTED"),
    ),
    (
        "told otherwise",
        "a line is told as another payment than it is",
        changed(FinalFile, {}, items=[FinalItem(1, "one", "SUCCESS", IDS["no"]), the_file().items[1]]),
    ),
    ("told otherwise", "a file counts its lines wrongly", changed(FinalFile, {}, counts={"SUCCESS": 2})),
    ("left open", "a file is still being worked on", changed(FinalFile, {}, state="PROCESSING")),
    ("unknown", "a file was not read at the end", without(FinalFile)),
    ("unknown", "a promised kind was never acknowledged", changed(FileCall, {}, status=503)),
    ("unknown", "a promised kind was never asked for", changed(Promise, {}, kinds=["payment abroad"])),
]


def test_the_judge_has_nothing_against_a_history_in_which_every_word_is_true() -> None:
    verdict = judge_records(a_whole_history())

    assert verdict.violations == []
    assert (verdict.payments, verdict.completed) == (7, 4)


@pytest.mark.parametrize(("rule", "words", "doctor"), RULES, ids=[f"{rule}: {words}" for rule, words, _ in RULES])
def test_the_judge_objects(rule: str, words: str, doctor: Doctored) -> None:
    verdict = judge_records(doctor(a_whole_history()))

    assert not verdict.is_good
    assert rule in verdict.by_rule, verdict.violations


@pytest.mark.parametrize(
    "tolerated",
    [
        changed(Call, {"operation": "cancel"}, status=None, body=None, answered_ns=None),
        changed(OfficeCall, {"operation": "clear_review"}, status=503),
        changed(OfficeCall, {"key": "r-back", "status": 201}, status=None, answered_ns=None),
        with_more(an_office_call("return", "r-lost", status=503)),
        changed(OfficeCall, {"operation": "decline_return"}, status=503, body=None),
        both(
            with_more(an_upload(key="f-2", lines=[FileLine("x", "A1", "A2", 1)], status=503)),
            with_more(the_file(key="f-2", state=None, items=[], total=0, counts={})),
            with_more(an_unknown("x")),
            changed(FinalEnd, {}, counts=Counts(accounts=2, payments=8, repeats=5, files=2, returns=3)),
        ),
        with_more(an_upload(first_line=2, lines=[FileLine("two", "A1", "A2", 20)], status=409)),
    ],
    ids=[
        "cancelled without a word",
        "cleared without a word",
        "returned without a word",
        "never returned, without a word",
        "declined without a word",
        "a file that was lost with all its lines",
        "the rest of a file, sent too early",
    ],
)
def test_the_judge_takes_silence_and_try_again_for_what_they_are(tolerated: Doctored) -> None:
    history = changed(Promise, {}, kinds=["payment"])(a_whole_history())

    assert judge_records(tolerated(history)).violations == []


def test_a_clock_that_is_wrong_excuses_no_payment_that_was_made_too_early() -> None:
    early = changed(Call, {"transaction": "later", "status": 200}, answered_ns=DUE_NS - 2_000_000_000)
    shift = Fault(
        name="clock-shift", victim="confirm", edge=None, position=None, began_ns=DUE_NS - 3_000_000_000, is_hit=True,
        back_after_s=None, paying_after_s=None, detail="+30 s, seen by the process as +30.0 s",
    )  # fmt: skip

    assert "before its time" in judge_records(both(early, with_more(shift))(a_whole_history())).by_rule


def test_a_listed_payment_that_was_cleared_may_be_refused_by_the_other_bank() -> None:
    refused = both(
        changed(Promise, {}, kinds=["payment"]),
        changed(OfficeCall, {"operation": "block_review"}, operation="clear_review"),
        changed(FinalEnd, {}, counts=Counts(accounts=2, payments=7, repeats=5, files=1, returns=3, bank=1)),
        with_more(
            FinalBank(
                end_to_end_id=IDS["blocked"].replace("-", ""), status="REJECTED", amount_minor=4, times_received=1
            )
        ),
    )

    assert judge_records(refused(a_whole_history())).violations == []


def test_who_was_refused_to_decide_has_not_decided() -> None:
    refused = changed(OfficeCall, {"operation": "approve_return", "officer": "omar"}, status=403, body="{}")

    assert "four eyes" in judge_records(refused(a_whole_history())).by_rule


def test_the_verdict_counts_what_was_asked_by_kind() -> None:
    kinds = judge_records(a_whole_history()).kinds

    counts = {kind: (one.invoked, one.acknowledged, one.refused, one.unknown) for kind, one in kinds.items()}
    assert counts["return"] == (5, 3, 1, 1)
    assert counts["file"] == (2, 1, 0, 1)
    assert counts["payment for later"] == (2, 1, 0, 0)
    assert counts["cancel"] == (1, 1, 0, 0)
    assert set(kinds) <= set(KINDS)
