"""The judge of fault runs on cancellations, returns, reviews, files and payments for later: each rule doctored once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from payflow_dev.chaos.history import (
    Call,
    Fault,
    FileCall,
    FileLine,
    FinalAccount,
    FinalEnd,
    FinalFile,
    FinalItem,
    FinalPayment,
    FinalReturn,
    Line,
    OfficeCall,
    Opening,
    Promise,
    Record,
    ToldAgain,
)
from payflow_dev.chaos.judge import judge_records
from payflow_dev.chaos.kinds import KINDS
from tests.builders_chaos import PAID, Doctored, a_call, changed, lines, with_more, without

IDS = {
    name: f"01a21fb0-5cdf-7fda-94e3-16d0b679e1{number:02d}"
    for number, name in enumerate(("home", "later", "gone", "listed", "blocked", "one", "two", "back", "more", "no"))
}
DAY = "2026-03-02T12:00:10+00:00"
DUE_NS = 10_000_000_000
REFUSED = '{"error":"PAYMENT_REFUSED"}'
CANCELLED = '{"state":"CANCELLED"}'


def told(name: str, state: str, *, by: str = "olga") -> str:
    return msgspec.json.encode({"return_id": IDS[name], "state": state, "requested_by": by}).decode()


def an_office_call(operation: str, key: str, **change: Any) -> OfficeCall:
    values: dict[str, Any] = {
        "operation": operation,
        "officer": "olga",
        "customer": "c1",
        "transaction": "home",
        "key": key,
        "amount_minor": 40,
        "invoked_ns": 1,
        "answered_ns": 2,
        "status": 201,
        "body": None,
    }
    return OfficeCall(**(values | change))


def a_final(key: str, state: str, amount_minor: int, **change: Any) -> FinalPayment:
    return FinalPayment(
        **{
            "customer": "c1",
            "transaction": key,
            "payment_id": IDS[key],
            "state": state,
            "amount_minor": amount_minor,
            "error": None,
        }
        | change
    )


def an_unknown(key: str) -> FinalPayment:
    return FinalPayment(customer="c1", transaction=key, payment_id=None, state=None, amount_minor=None, error=None)


def a_return(name: str, state: str, amount_minor: int, **change: Any) -> FinalReturn:
    values: dict[str, Any] = {
        "return_id": IDS[name],
        "payment_id": IDS["home"],
        "key": f"r-{name}",
        "state": state,
        "amount_minor": amount_minor,
        "debtor": "A2",
        "creditor": "A1",
        "requested_by": "olga",
        "decided_by": None,
    }
    return FinalReturn(**(values | change))


def an_upload(**change: Any) -> FileCall:
    values: dict[str, Any] = {
        "customer": "c1",
        "key": "f-1",
        "first_line": 1,
        "lines": [FileLine("one", "A1", "A2", 10), FileLine("two", "A1", "A2", 20)],
        "is_cut": False,
        "invoked_ns": 1,
        "answered_ns": 2,
        "status": 202,
        "body": "{}",
    }
    return FileCall(**(values | change))


def the_file(**change: Any) -> FinalFile:
    values: dict[str, Any] = {
        "customer": "c1",
        "key": "f-1",
        "state": "COMPLETED",
        "total": 2,
        "counts": {"SUCCESS": 1, "REJECTED": 1},
        "items": [FinalItem(1, "one", "SUCCESS", IDS["one"]), FinalItem(2, "two", "REJECTED", IDS["two"])],
    }
    return FinalFile(**(values | change))


def a_whole_history() -> list[Record]:
    """A1 pays A2 100, of which 40 and then 50 come back, the latter with a second person, and 30 more are declined;
    1 on a day; 2 that are cancelled; 3 to a listed name that is cleared, 4 to one that is blocked; and by a file, which
    is cut and sent again, 10, and 20 that are refused."""
    return [
        Opening(account="A1", customer="c1", currency="USD", balance_minor=500),
        Opening(account="A2", customer="c2", currency="USD", balance_minor=0),
        Promise(kinds=["payment", "return", "file"], four_eyes_above_minor=60),
        a_call("home"),
        a_call("later", amount_minor=1, status=202, body="{}", execute_at=DAY, due_ns=DUE_NS),
        a_call("later", amount_minor=1, answered_ns=DUE_NS + 1, execute_at=DAY, due_ns=DUE_NS),
        a_call("gone", amount_minor=2, status=200, body='{"status":"OTP_REQUIRED"}'),
        a_call("gone", amount_minor=2, operation="cancel", body=CANCELLED),
        a_call("listed", amount_minor=3, status=202, body="{}", is_listed=True),
        an_office_call("clear_review", "case-1", transaction="listed", status=200),
        a_call("listed", amount_minor=3, is_listed=True),
        a_call("blocked", amount_minor=4, status=202, body="{}", is_listed=True),
        an_office_call("block_review", "case-2", transaction="blocked", status=200),
        a_call("blocked", amount_minor=4, status=422, body=REFUSED, is_listed=True),
        an_office_call("return", "r-back", status=None, answered_ns=None),
        an_office_call("return", "r-back", body=told("back", "COMPLETED")),
        an_office_call("return", "r-more", amount_minor=50, body=told("more", "AWAITING_APPROVAL")),
        an_office_call("approve_return", "r-more", amount_minor=50, status=422, body='{"error":"FOUR_EYES_REQUIRED"}'),
        an_office_call("approve_return", "r-more", officer="omar", status=200, body=told("more", "COMPLETED")),
        an_office_call("return", "r-no", amount_minor=10, body=told("no", "AWAITING_APPROVAL")),
        an_office_call("decline_return", "r-no", officer="omar", status=200, body=told("no", "DECLINED")),
        an_office_call("return", "r-never", amount_minor=90, status=422, body='{"error":"RETURN_EXCEEDS_PAYMENT"}'),
        an_upload(is_cut=True, status=None, body=None, answered_ns=None),
        an_upload(),
        a_call("one", amount_minor=10),
        a_final("home", "COMPLETED", 100, returned_minor=90),
        a_final("later", "COMPLETED", 1),
        a_final("gone", "CANCELLED", 2, error="PAYMENT_CANCELLED"),
        a_final("listed", "COMPLETED", 3),
        a_final("blocked", "REJECTED", 4, error="PAYMENT_REFUSED"),
        a_final("one", "COMPLETED", 10),
        a_final("two", "REJECTED", 20, error="INSUFFICIENT_FUNDS"),
        a_return("back", "COMPLETED", 40),
        a_return("more", "COMPLETED", 50, decided_by="omar"),
        a_return("no", "DECLINED", 10, decided_by="omar"),
        the_file(),
        ToldAgain(customer="c1", key="home", status=200, body=PAID),
        FinalAccount(
            account="A1",
            posted_minor=476,
            held_minor=0,
            lines=[Line(1, None, "opening", 500, 500), *_statement(500, -1)],
        ),
        FinalAccount(account="A2", posted_minor=24, held_minor=0, lines=_statement(0, 1, first=1)),
        FinalEnd(seconds_to_quiet=1.0),
    ]


def _statement(balance_minor: int, sign: int, *, first: int = 2) -> list[Line]:
    """What was booked, seen from one of the two accounts."""
    moves = [("home", 100), ("later", 1), ("listed", 3), ("one", 10), ("back", -40), ("more", -50)]
    found = []
    for number, (name, amount_minor) in enumerate(moves, first):
        balance_minor += sign * amount_minor
        instant = DAY if name == "later" else None
        kind = "transfer" if amount_minor > 0 else "return"
        found.append(Line(number, IDS[name], kind, sign * amount_minor, balance_minor, instant))
    return found


def both(*doctors: Doctored) -> Doctored:
    """One change after the other."""

    def doctor(records: list[Record]) -> list[Record]:
        for each in doctors:
            records = each(records)
        return records

    return doctor


def booked_again(name: str, amount_minor: int) -> Doctored:
    """What A2 gets or gives is booked there once more."""
    rows = _statement(0, 1, first=1)
    balance_minor = rows[-1].balance_minor + amount_minor
    return lines("A2", balance_minor, *rows, Line(len(rows) + 1, IDS[name], "return", amount_minor, balance_minor))


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
        lines("A2", 64, *_statement(0, 1, first=1)[:4], Line(5, IDS["more"], "return", -50, 64)),
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


EARLY = changed(Call, {"transaction": "later", "status": 200}, answered_ns=DUE_NS - 2_000_000_000)


def a_shift(victim: str, shift_s: float, *, began_ns: int = DUE_NS - 3_000_000_000) -> Fault:
    return Fault(
        name="clock-shift", victim=victim, edge=None, position=None, began_ns=began_ns, is_hit=True, back_after_s=None,
        paying_after_s=None, shift_s=shift_s, seconds=4.0,
    )  # fmt: skip


@pytest.mark.parametrize("shift", [a_shift("confirm", 30.0), a_shift("account", -2.0)])
def test_a_payment_that_is_made_early_by_a_clock_that_was_shifted_is_no_fault_of_the_product(shift: Fault) -> None:
    assert judge_records(both(EARLY, with_more(shift))(a_whole_history())).violations == []


@pytest.mark.parametrize(
    "shift",
    [
        a_shift("confirm", -30.0),
        a_shift("account", 30.0),
        a_shift("risk", 30.0),
        a_shift("confirm", 30.0, began_ns=DUE_NS + 60_000_000_000),
    ],
    ids=["behind", "ahead, and only books", "somebody else's", "later"],
)
def test_a_shifted_clock_that_cannot_have_done_it_excuses_nothing(shift: Fault) -> None:
    assert "before its time" in judge_records(both(EARLY, with_more(shift))(a_whole_history())).by_rule


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
