"""What happened in a run, as its customers and its director saw it: one JSON line per record, in monotonic nanoseconds.

The judge reads nothing else. It never asks the system whether it is right.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import msgspec


class Opening(msgspec.Struct, frozen=True, kw_only=True, tag="opening"):
    """An account and what it had before the first call."""

    account: str
    customer: str
    currency: str
    balance_minor: int


class Call(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """A request and its answer. `answered_ns` and `status` are None where no answer came: nobody knows its outcome.

    `operation`: pay (also every repeat of it under its key), pay_with_code, cancel, get.
    """

    operation: str
    customer: str
    key: str
    transaction: str
    debtor: str
    creditor: str
    amount_minor: int
    invoked_ns: int
    answered_ns: int | None
    status: int | None
    body: str | None


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag="fault"):
    """A promised fault: where it was to strike, whether it did, and how long victim and payments took to be back."""

    name: str
    victim: str | None
    edge: str | None
    position: str | None
    began_ns: int
    is_hit: bool
    back_after_s: float | None
    paying_after_s: float | None
    detail: str = ""


class FinalPayment(msgspec.Struct, frozen=True, kw_only=True, tag="final_payment"):
    """A payment as the system tells it at the end; `state` None: it knows of none."""

    customer: str
    transaction: str
    payment_id: str | None
    state: str | None
    amount_minor: int | None
    error: str | None


class ToldAgain(msgspec.Struct, frozen=True, kw_only=True, tag="told_again"):
    """What a repeat of a request was told at the end, after all had ended."""

    customer: str
    key: str
    status: int
    body: str


class Line(msgspec.Struct, frozen=True):
    """A statement line: `amount_minor` is signed."""

    sequence: int
    payment_id: str | None
    kind: str
    amount_minor: int
    balance_minor: int


class FinalAccount(msgspec.Struct, frozen=True, kw_only=True, tag="final_account"):
    """An account at the end with its whole statement, oldest line first."""

    account: str
    posted_minor: int
    held_minor: int
    lines: list[Line]


class FinalBank(msgspec.Struct, frozen=True, kw_only=True, tag="final_bank"):
    """A payment in the other bank's own books: how often it arrived, and what the bank said."""

    end_to_end_id: str
    status: str
    amount_minor: int
    times_received: int


class FinalEnd(msgspec.Struct, frozen=True, kw_only=True, tag="final_end"):
    """The final read is complete. Without it nothing is known."""

    seconds_to_quiet: float


Record: TypeAlias = Opening | Call | Fault | FinalPayment | ToldAgain | FinalAccount | FinalBank | FinalEnd
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


class History:
    """Writes records to a file, each at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb", buffering=1 << 16)

    def write(self, record: Any) -> None:
        """Append one record."""
        self._file.write(_encode(record) + b"\n")

    def close(self) -> None:
        """Write what is buffered."""
        self._file.close()


def read_history(path: Path) -> Iterator[Record]:
    """Every record, in order. Raises msgspec.DecodeError for a line that is none."""
    with path.open("rb") as lines:
        for line in lines:
            yield _decode(line)


def now_ns() -> int:
    """The present instant on this run's clock."""
    return time.monotonic_ns()
