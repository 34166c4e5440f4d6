"""A history of cancellations, returns, reviews, files and payments for later in which every word is true."""

from __future__ import annotations

from typing import Any

import msgspec

from payflow_dev.chaos.history import (
    Counts,
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
from tests.builders_chaos import PAID, Doctored, a_call, lines

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
        *(ToldAgain(customer="c1", key=key, status=200, body=PAID) for key in ("home", "later", "listed", "one")),
        ToldAgain(customer="c1", key="blocked", status=422, body=REFUSED),
        FinalAccount(
            account="A1",
            posted_minor=476,
            held_minor=0,
            lines=[Line(1, None, "opening", 500, 500), *statement(500, -1)],
        ),
        FinalAccount(account="A2", posted_minor=24, held_minor=0, lines=statement(0, 1, first=1)),
        FinalEnd(seconds_to_quiet=1.0, counts=Counts(accounts=2, payments=7, repeats=5, files=1, returns=3)),
    ]


def statement(balance_minor: int, sign: int, *, first: int = 2) -> list[Line]:
    """What was booked, seen from one of the two accounts."""
    moves = [("home", 100), ("later", 1), ("listed", 3), ("one", 10), ("back", -40), ("more", -50)]
    found = []
    for number, (name, amount_minor) in enumerate(moves, first):
        balance_minor += sign * amount_minor
        instant = DAY if name == "later" else None
        kind = "transfer" if amount_minor > 0 else "return"
        found.append(Line(number, IDS[name], kind, sign * amount_minor, balance_minor, instant))
    return found


def booked_again(name: str, amount_minor: int) -> Doctored:
    """What A2 gets or gives is booked there once more."""
    rows = statement(0, 1, first=1)
    balance_minor = rows[-1].balance_minor + amount_minor
    return lines("A2", balance_minor, *rows, Line(len(rows) + 1, IDS[name], "return", amount_minor, balance_minor))
