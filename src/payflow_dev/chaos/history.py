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

    `operation`: pay (also every repeat of it under its key), pay_with_code, cancel. `is_listed`: its creditor was given
    a name of the sanctions lists. A payment for later has `execute_at`, and that instant on this run's clock, `due_ns`.
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
    is_listed: bool = False
    execute_at: str | None = None
    due_ns: int | None = None


class OfficeCall(msgspec.Struct, frozen=True, kw_only=True, tag="office_call"):
    """What one of the bank's own people asked about a customer's payment, and the answer; None as in Call.

    `operation`: return, approve_return, decline_return, clear_review, block_review. `key`: of a return its idempotency
    key, which is also its note; of a review its id.
    """

    operation: str
    officer: str
    customer: str
    transaction: str
    key: str
    amount_minor: int
    invoked_ns: int
    answered_ns: int | None
    status: int | None
    body: str | None


class FileLine(msgspec.Struct, frozen=True, array_like=True):
    """A line of a file: the payment that it orders."""

    transaction: str
    debtor: str
    creditor: str
    amount_minor: int
    is_listed: bool = False
    execute_at: str | None = None
    due_ns: int | None = None


class FileCall(msgspec.Struct, frozen=True, kw_only=True, tag="file_call"):
    """An upload of a file, or of its rest from `first_line` on (1 is the whole), and the answer; None as in Call.

    `is_cut`: the customer hung up in the middle of it.
    """

    customer: str
    key: str
    first_line: int
    lines: list[FileLine]
    is_cut: bool
    invoked_ns: int
    answered_ns: int | None
    status: int | None
    body: str | None


class IncomingCall(msgspec.Struct, frozen=True, kw_only=True, tag="incoming_call"):
    """The other bank was told to pay into an account, and what it says became of that.

    `told`: ACCEPTED or REJECTED, which is our own word; None: it has none, or has not answered.
    """

    end_to_end_id: str
    creditor: str
    amount_minor: int
    invoked_ns: int
    answered_ns: int | None
    told: str | None


class Promise(msgspec.Struct, frozen=True, kw_only=True, tag="promise"):
    """What the run is to do, written before it begins: kinds of requests, faults and what they are to strike.

    `four_eyes_above_minor`: one person returns so much alone. `edges`: where faults are to strike, by the names of the
    summary's coverage. `faults`, `kills` and `payments` (acknowledged ones) are the least.
    """

    kinds: list[str]
    four_eyes_above_minor: int | None = None
    edges: list[str] = []
    faults: int = 0
    kills: int = 0
    payments: int = 0


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

    @property
    def place(self) -> str:
        """Where it strikes: an edge, or a whole process or server, or everybody."""
        return self.edge or self.victim or "everybody"

    @property
    def is_kill(self) -> bool:
        """Whether it is to kill a process."""
        return self.name.startswith("kill")


class FinalPayment(msgspec.Struct, frozen=True, kw_only=True, tag="final_payment"):
    """A payment as the system tells it at the end; `state` None: it knows of none."""

    customer: str
    transaction: str
    payment_id: str | None
    state: str | None
    amount_minor: int | None
    error: str | None
    returned_minor: int = 0


class FinalReturn(msgspec.Struct, frozen=True, kw_only=True, tag="final_return"):
    """A return at the end. `payment_id` is the original's; `key` is the note that it was asked for with."""

    return_id: str
    payment_id: str
    key: str | None
    state: str
    amount_minor: int
    debtor: str
    creditor: str
    requested_by: str
    decided_by: str | None


class FinalItem(msgspec.Struct, frozen=True, array_like=True):
    """What became of a file's line, as the file tells it."""

    line: int
    transaction: str | None
    status: str
    payment_id: str | None


class FinalFile(msgspec.Struct, frozen=True, kw_only=True, tag="final_file"):
    """A file at the end, with the results of its lines. `state` None: it was never known under any id."""

    customer: str
    key: str
    state: str | None
    total: int
    counts: dict[str, int]
    items: list[FinalItem]


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
    booked_at: str | None = None


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


class FinalIncoming(msgspec.Struct, frozen=True, kw_only=True, tag="final_incoming"):
    """Money from the other bank at the end, by its books (`told`) and by ours (`payment_id`, `state`, amount).

    `told`: ACCEPTED, REJECTED or UNKNOWN; None: its books do not have it. `state` None: we know of none.
    """

    end_to_end_id: str
    told: str | None
    payment_id: str | None
    state: str | None
    amount_minor: int | None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many records of each kind a whole history has, by those who know it beside the history."""

    accounts: int = 0
    faults: int = 0
    payments: int = 0
    repeats: int = 0
    files: int = 0
    returns: int = 0
    bank: int = 0
    incoming: int = 0


class FinalEnd(msgspec.Struct, frozen=True, kw_only=True, tag="final_end"):
    """The final read is complete. Without it, and without what it must have found, nothing is known."""

    seconds_to_quiet: float
    counts: Counts | None = None
    # The keys of what somebody still waits for.
    unsettled: list[str] = []


Record: TypeAlias = (
    Opening
    | Promise
    | Call
    | OfficeCall
    | FileCall
    | IncomingCall
    | Fault
    | FinalPayment
    | FinalReturn
    | FinalFile
    | ToldAgain
    | FinalAccount
    | FinalBank
    | FinalIncoming
    | FinalEnd
)
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
