"""Records of fault runs as tests need them, and ways to doctor a history that is true."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from payflow_dev.chaos.history import Call, FinalAccount, Line, Record

PAID = '{"status":"SUCCESS","reference":"PF1"}'

Doctored = Callable[[list[Record]], list[Record]]


def a_call(key: str, **change: Any) -> Call:
    values: dict[str, Any] = {
        "operation": "pay",
        "customer": "c1",
        "key": key,
        "transaction": key,
        "debtor": "A1",
        "creditor": "A2",
        "amount_minor": 100,
        "invoked_ns": 1,
        "answered_ns": 2,
        "status": 200,
        "body": PAID,
    }
    return Call(**(values | change))


def changed(kind: type, which: dict[str, Any], **change: Any) -> Doctored:
    """Change the records of a kind whose fields are as `which` says."""

    def doctor(records: list[Record]) -> list[Record]:
        return [
            msgspec.structs.replace(record, **change)
            if isinstance(record, kind) and all(getattr(record, name) == value for name, value in which.items())
            else record
            for record in records
        ]

    return doctor


def without(kind: type, **which: Any) -> Doctored:
    """Leave the records of a kind out whose fields are as `which` says."""
    return lambda records: [
        record
        for record in records
        if not (isinstance(record, kind) and all(getattr(record, name) == value for name, value in which.items()))
    ]


def with_more(*more: Record) -> Doctored:
    """Records beside the others."""
    return lambda records: [*records[:-1], *more, records[-1]]


def both(*doctors: Doctored) -> Doctored:
    """One change after the other."""

    def doctor(records: list[Record]) -> list[Record]:
        for each in doctors:
            records = each(records)
        return records

    return doctor


def lines(account: str, posted_minor: int, *rows: Line) -> Doctored:
    """Another statement of an account."""
    return changed(FinalAccount, {"account": account}, posted_minor=posted_minor, lines=list(rows))
