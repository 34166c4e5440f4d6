"""Finding a process that lives and does nothing any more: stopped, or its event loop blocked for good."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from payflow.run.supervisor.health import Probe
from payflow.run.supervisor.vitals import Vitals, is_starved, vitals_of

ASK_EVERY_S: Final = 1.7
HUNG_AFTER_S: Final = 5.0
# Who cannot run is not helped by a new start, which takes more of what there is too little of; but not for ever.
STARVED_AFTER_S: Final = 30.0
_EXCUSED_S: Final = 0.5
QUESTIONS: Final = 3
# The supervisor looks at least once a second. After a longer pause it was itself that did not run: suspended, stopped,
# or out of processor time; what went unanswered meanwhile says nothing about the others.
_OWN_PAUSE_S: Final = 2.0


@dataclass(slots=True)
class _Asked:
    pid: int
    port: int
    ask_at: float
    answered_at: float
    vitals: Vitals | None  # when it was last known to be well
    excused_until: float = 0.0
    questions: list[Probe] = field(default_factory=list)

    def forget_questions(self) -> None:
        for question in self.questions:
            question.close()
        self.questions.clear()


@dataclass(slots=True)
class LiveWatch:
    """Asks each process `GET /live` again and again; hung is who leaves three questions unanswered for five seconds.

    A late answer to any of them counts: a process that is merely slow is left alone. One that the machine keeps from
    running, for want of a processor or by a disk that stands still, is given 30 seconds.
    """

    host: str
    look_at: Callable[[int], Vitals | None] = vitals_of
    _asked: dict[str, _Asked] = field(default_factory=dict)
    _looked_at: float | None = None

    def watch(self, *, name: str, pid: int, port: int, now: float) -> None:
        """Begin to ask a process that has just become healthy."""
        self.forget(name)
        vitals = self.look_at(pid)
        self._asked[name] = _Asked(pid=pid, port=port, ask_at=now + ASK_EVERY_S, answered_at=now, vitals=vitals)

    def forget(self, name: str) -> None:
        """Stop asking, because the process ended or was given up."""
        asked = self._asked.pop(name, None)
        if asked is not None:
            asked.forget_questions()

    def close(self) -> None:
        """Stop asking everybody; also in a forked child, which inherits the connections."""
        for name in list(self._asked):
            self.forget(name)

    def waits_for(self) -> list[tuple[socket.socket, bool]]:
        """The connections to select on, with whether each waits to write."""
        questions = [question for asked in self._asked.values() for question in asked.questions]
        # One that was cut off stays readable for ever and would keep the supervisor turning.
        return [(question.socket, question.waits_to_write) for question in questions if not question.is_over]

    def next_at(self) -> float | None:
        """When the next question is due, or a verdict on those that were asked; None while nobody is watched."""
        return min((_next_step_at(asked) for asked in self._asked.values()), default=None)

    def hung_now(self, *, now: float) -> list[tuple[str, float]]:
        """Advance every question; who hangs, with the instant of its last sign of life. Each is named once."""
        paused = self._looked_at is not None and now - self._looked_at > _OWN_PAUSE_S
        self._looked_at = now
        hung = []
        for name, asked in list(self._asked.items()):
            if paused or _is_answered(asked):
                asked.forget_questions()
                asked.answered_at, asked.ask_at = now, now + ASK_EVERY_S
                asked.vitals = self.look_at(asked.pid)
            elif self._is_hung(asked, now=now):
                hung.append((name, asked.answered_at))
                self.forget(name)
            elif now >= asked.ask_at and len(asked.questions) < QUESTIONS:
                asked.questions.append(Probe(host=self.host, port=asked.port, now=now, path="/live"))
                asked.questions[-1].advance()
                asked.ask_at = now + ASK_EVERY_S
        return hung

    def _is_hung(self, asked: _Asked, *, now: float) -> bool:
        if len(asked.questions) < QUESTIONS or now < _verdict_at(asked):
            return False
        if now - asked.questions[0].asked_at >= STARVED_AFTER_S:
            return True
        if is_starved(asked.vitals, self.look_at(asked.pid), elapsed_s=now - asked.answered_at):
            asked.excused_until = now + _EXCUSED_S
            return False
        return True


def _is_answered(asked: _Asked) -> bool:
    """Whether any question got an answer, whatever it says: who can refuse is alive."""
    for question in asked.questions:
        question.advance()
    return any(question.has_answer for question in asked.questions)


def _verdict_at(asked: _Asked) -> float:
    return max(asked.questions[0].asked_at + HUNG_AFTER_S, asked.excused_until)


def _next_step_at(asked: _Asked) -> float:
    return _verdict_at(asked) if len(asked.questions) == QUESTIONS else asked.ask_at
