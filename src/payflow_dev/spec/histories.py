"""Payments that really happened, held against the model: is each one a behaviour that the model allows?

Thousands of payments have few shapes, so each distinct shape is checked once. TLC searches for a run of the model that
stores exactly the states of the history, in order, and ends with the same entry, hold, refusals, instruction and
fencing token (spec/history.tla).
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from payflow_dev.spec.tlc import SPEC, check

# Histories with more take-overs than the model is run with are held to everything but their number.
TOKEN_MAX: Final = 6

_HOLDS: Final = {None: "none", "HELD": "open", "CAPTURED": "captured", "RELEASED": "released"}
_INSTRUCTIONS: Final = {None: "none", "UNKNOWN": "unknown", "ACCEPTED": "accepted", "REJECTED": "rejected"}


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A row of payment_transition."""

    version: int
    source: str | None
    target: str
    at: datetime


class History(msgspec.Struct, frozen=True, kw_only=True):
    """One payment as confirm, account and partner_bank know it at one instant.

    `effects`: its journal entries. `hold`: HELD, CAPTURED, RELEASED or None. `refused`: the steps refused for
    good, "book" and "hold". `instruction`: UNKNOWN, ACCEPTED, REJECTED or None. `fencing_token` None: not known.
    """

    payment_id: str
    is_on_us: bool
    moves: list[Move]
    is_for_later: bool = False
    effects: int = 0
    hold: str | None = None
    refused: list[str] = []
    instruction: str | None = None
    fencing_token: int | None = None


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """Payments that the model does not allow; at most five of their ids."""

    payment_ids: list[str]
    count: int
    what: str


@dataclass(frozen=True, slots=True)
class Shape:
    """What the model knows of a history: everything but its ids and instants."""

    is_on_us: bool
    is_for_later: bool
    states: tuple[str, ...]
    effects: int
    hold: str
    no_book: bool
    no_hold: bool
    instruction: str
    token: int

    def words(self) -> str:
        """The shape, for people."""
        kind = ("on-us" if self.is_on_us else "inter-bank") + (", for later" if self.is_for_later else "")
        refused = [step for step, is_refused in (("book", self.no_book), ("hold", self.no_hold)) if is_refused]
        facts = (
            f"entries: {self.effects}, hold: {self.hold}, refused: {' and '.join(refused) or 'nothing'}, "
            f"instruction: {self.instruction}, fencing token: {self.token}"
        )
        return f"{kind}: {' > '.join(self.states)} ({facts})"


def check_histories(path: Path) -> list[Violation]:
    """What the model does not allow in a file of histories, one JSON object a line; empty where all is well.

    Raises ToolMissing, CheckFailed, and msgspec.DecodeError for a line that is none.
    """
    decode = msgspec.json.Decoder(History).decode
    with path.open("rb") as lines:
        return judge_histories(decode(line) for line in lines)


def judge_histories(histories: Iterable[History]) -> list[Violation]:
    """As check_histories, for histories at hand."""
    broken: dict[str, list[str]] = defaultdict(list)
    shapes: dict[Shape, list[str]] = defaultdict(list)
    for history in histories:
        gap = gap_of(history)
        if gap is not None:
            broken[gap].append(history.payment_id)
        else:
            shapes[shape_of(history)].append(history.payment_id)
    for is_on_us in (True, False):
        wanted = [shape for shape in shapes if shape.is_on_us is is_on_us]
        for shape in refused_by_model(wanted):
            broken[f"The model has no such behaviour: {shape.words()}"] = shapes[shape]
    return [Violation(payment_ids=ids[:5], count=len(ids), what=what) for what, ids in broken.items()]


def gap_of(history: History) -> str | None:
    """Why the moves are no chain from the first state on, or None."""
    if not history.moves:
        return "There are facts about a payment that confirm does not know."
    before: str | None = None
    for number, move in enumerate(sorted(history.moves, key=lambda move: move.version), start=1):
        if move.version != number:
            return f"Step {number} is missing or there twice."
        if move.source != before:
            return f"A step leaves {move.source}, but the payment was {before}."
        before = move.target
    return None


def shape_of(history: History) -> Shape:
    """The history without its ids and instants."""
    return Shape(
        is_on_us=history.is_on_us,
        is_for_later=history.is_for_later,
        states=tuple(move.target for move in sorted(history.moves, key=lambda move: move.version)),
        effects=history.effects,
        hold=_HOLDS[history.hold],
        no_book="book" in history.refused,
        no_hold="hold" in history.refused,
        instruction=_INSTRUCTIONS[history.instruction],
        token=TOKEN_MAX if history.fencing_token is None else min(history.fencing_token, TOKEN_MAX),
    )


def refused_by_model(shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes that are no behaviour of the model; all of one kind, on-us or inter-bank."""
    if not shapes:
        return []
    with tempfile.TemporaryDirectory(prefix="payflow-histories-") as folder:
        for file in SPEC.glob("*.tla"):
            shutil.copy(file, folder)
        module = Path(folder) / "recorded.tla"
        module.write_text(module_of(shapes))
        # One worker: what was accepted is kept by the worker that accepted it.
        result = check(module=module, config=_config(is_on_us=shapes[0].is_on_us), workers=1)
    accepted = {int(index) for index in re.findall(r'<<"accepted", (\d+)>>', result.output)}
    return [shape for index, shape in enumerate(shapes, start=1) if index not in accepted]


def module_of(shapes: Sequence[Shape]) -> str:
    """A TLA+ module that gives these shapes to spec/history.tla."""
    return "\n".join(
        [
            "---- MODULE recorded ----",
            "EXTENDS history",
            "Recorded == <<",
            ",\n".join(_record(shape) for shape in shapes),
            ">>",
            "====",
            "",
        ]
    )


def _record(shape: Shape) -> str:
    states = ", ".join(f'"{state}"' for state in shape.states)
    return (
        f"  [later |-> {str(shape.is_for_later).upper()}, "
        f'states |-> <<{states}>>, effects |-> {shape.effects}, hold |-> "{shape.hold}", '
        f"noBook |-> {str(shape.no_book).upper()}, noHold |-> {str(shape.no_hold).upper()}, "
        f'inst |-> "{shape.instruction}", tok |-> {shape.token}]'
    )


def _config(*, is_on_us: bool) -> str:
    return f"""
SPECIFICATION HistorySpec
CONSTANTS
    Workers = {{c1, c2}}
    Payments = {{p1}}
    OnUs = {"{p1}" if is_on_us else "{}"}
    Balance = 2
    Gates = {{"approve", "otp", "review", "review, otp"}}
    CanSchedule = TRUE
    CanBeRefused = TRUE
    MaxToken = {TOKEN_MAX}
    AnyNumber = AnyNumber
    Faults = AnyNumber
    Flaw = "none"
    Histories <- Recorded
SYMMETRY Symmetry
CONSTRAINT Unaccepted
CHECK_DEADLOCK FALSE
"""
