"""When something that was not answered is tried again: instructions and returns alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol, TypeVar


class Tried(Protocol):
    """What is tried until it is answered: a dataclass that counts its tries and knows when the next one is due."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def attempts(self) -> int: ...

    @property
    def next_attempt_at(self) -> datetime | None: ...


T = TypeVar("T", bound=Tried)


@dataclass(frozen=True, slots=True)
class Pauses:
    """Seconds between tries: doubling from `first_s` to `longest_s`. `repeat_answer_after_s`: how long a caller that
    asked has to act on the answer itself before confirm is told once more."""

    first_s: float = 0.5
    longest_s: float = 30.0
    repeat_answer_after_s: float = 5.0

    def after(self, attempts: int) -> timedelta:
        """The pause after so many tries."""
        return timedelta(seconds=min(self.first_s * 2 ** min(attempts, 20), self.longest_s))


def tried_again(one: T, *, now: datetime, pauses: Pauses, busy_s: float = 0.0) -> T:
    """The same with its next try put off: `busy_s` for the try that now begins, and the pause after it."""
    next_attempt_at = now + timedelta(seconds=busy_s) + pauses.after(one.attempts)
    return replace(one, attempts=one.attempts + 1, next_attempt_at=next_attempt_at)
