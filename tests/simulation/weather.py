"""What the seed decides beside the order of things: how likely each fault is, and what happened in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum, auto
from hashlib import sha256
from random import Random
from typing import Any, Final, NamedTuple
from uuid import UUID

from payflow.kernel.errors import PayflowError
from tests.simulation.loop import SimulatedLoop


class Fate(Enum):
    """What becomes of a call."""

    FINE = auto()
    NOT_SENT = auto()
    REQUEST_LOST = auto()
    REPLY_LOST = auto()
    DOUBLED = auto()
    LATE = auto()


@dataclass(slots=True)
class Weather:
    """How likely each fault is; all zero: fair weather."""

    not_sent: float = 0.0
    request_lost: float = 0.0
    reply_lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    store_unavailable: float = 0.0
    commit_lost: float = 0.0
    commit_untold: float = 0.0
    conflict: float = 0.0
    crash: float = 0.0
    stop: float = 0.0
    clock_step: float = 0.0
    bank_silent: float = 0.0

    @classmethod
    def drawn(cls, chance: Random) -> Weather:
        """Some faults are absent, some rare, some frequent: each run has its own mixture."""
        most = {"slow": 0.2, "crash": 1.0, "stop": 1.0, "clock_step": 1.0, "bank_silent": 0.6}
        severity = chance.choice((0.25, 0.5, 1.0))
        return cls(**{one.name: _rate(chance, severity * most.get(one.name, 0.08)) for one in fields(cls)})

    def clear(self) -> None:
        """No fault from now on."""
        for one in fields(self):
            setattr(self, one.name, 0.0)


def _rate(chance: Random, most: float) -> float:
    return 0.0 if chance.random() < 0.35 else most * chance.random() ** 2


_FATES: Final = tuple((fate, fate.name.lower()) for fate in Fate if fate is not Fate.FINE)


class Seen(NamedTuple):
    """A payment as it was when something happened to it."""

    payment_id: UUID
    fencing_token: int
    state: str


class Trace:
    """What happened, in order. The items of each call are kept as they are, only looked at when one is asked for."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str, Sequence[Any] | None, Sequence[Any] | None]] = []

    def about(self, payment_id: UUID, transaction_id: str | None = None) -> list[str]:
        """The lines about one payment, and those about no payment at all."""
        shown = []
        for at, text, items, answers in self.lines:
            mine = [
                _in_short(item) if answers is None else _in_short(answers[index])
                for index, item in enumerate(items or ())
                if getattr(item, "payment_id", None) == payment_id
                or (transaction_id is not None and getattr(item, "transaction_id", None) == transaction_id)
            ]
            if mine or items is None:
                shown.append(f"{at:10.3f} {text} {', '.join(mine)}".rstrip())
        return shown

    def digest(self) -> str:
        """A hash over everything that happened: two runs with the same one were the same run."""
        found = sha256()
        for text in self._texts():
            found.update(text.encode())
        return found.hexdigest()

    def _texts(self) -> Iterator[str]:
        for at, text, items, answers in self.lines:
            yield f"{at!r} {text} {items!r} {answers!r}\n"


def _in_short(item: Any) -> str:
    if isinstance(item, PayflowError):
        return item.code
    shown = [(name, getattr(item, name, None)) for name in ("fencing_token", "state", "status", "otp", "execute_at")]
    return ", ".join(f"{name} {value}" for name, value in shown if value is not None) or type(item).__name__


class Broken(NamedTuple):
    """A rule that did not hold, and the payment with which it was seen."""

    text: str
    payment_id: UUID | None

    def __str__(self) -> str:
        return self.text if self.payment_id is None else f"payment {self.payment_id}: {self.text}"


@dataclass(slots=True)
class World:
    """What all processes of a run share: time, chance, weather and the record of what happened."""

    loop: SimulatedLoop
    chance: Random
    weather: Weather
    trace: Trace = field(default_factory=Trace)
    broken: list[Broken] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def note(self, text: str, items: Sequence[Any] | None = None, answers: Sequence[Any] | None = None) -> None:
        """Record a step, with the payments or commands that it was about, or None, and what they were answered."""
        self.trace.lines.append((self.loop.now_s, text, items, answers))

    def break_(self, text: str, payment_id: UUID | None = None) -> None:
        """A rule is broken."""
        self.broken.append(Broken(text, payment_id))

    def latency_s(self) -> float:
        """How long a hop takes."""
        random = self.chance.random
        seconds = 0.0005 + 0.004 * random()
        if not self.happens("slow"):
            return seconds
        return seconds + 3 * random()

    def fate(self) -> Fate:
        """What becomes of the next call."""
        drawn = self.chance.random()
        for fate, name in _FATES:
            rate = getattr(self.weather, name)
            if drawn < rate:
                self.faults[name] += 1
                return fate
            drawn -= rate
        return Fate.FINE

    def happens(self, fault: str) -> bool:
        """Whether this fault happens now."""
        rate = getattr(self.weather, fault)
        if rate > 0 and self.chance.random() < rate:
            self.faults[fault] += 1
            return True
        return False
