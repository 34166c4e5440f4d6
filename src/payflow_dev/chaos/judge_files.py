"""What the judge holds against files: each line is one payment, and is told as what that payment is."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

from payflow_dev.chaos.cases import Case
from payflow_dev.chaos.history import FileCall, FinalFile

Object = Callable[[str, str], None]
# The states of a payment that each word for a line stands for.
_STATES: Final = {
    "SUCCESS": {"COMPLETED"},
    "OTP_REQUIRED": {"AWAITING_OTP"},
    "PENDING": {"UNDER_REVIEW", "SCHEDULED", "HELD", "SUBMITTED"},
    "REJECTED": {"REJECTED"},
    "CANCELLED": {"CANCELLED"},
    "EXPIRED": {"EXPIRED"},
}
_ENDED: Final = "COMPLETED"


class FilesDesk:
    """Hears of files, and judges them once all is heard."""

    def __init__(self, object_to: Object) -> None:
        self._object = object_to
        self._calls: dict[tuple[str, str], list[FileCall]] = defaultdict(list)
        self._finals: dict[tuple[str, str], list[FinalFile]] = defaultdict(list)

    def hear_call(self, call: FileCall) -> None:
        """A file, or its rest, was sent."""
        self._calls[call.customer, call.key].append(call)

    def hear_final(self, final: FinalFile) -> None:
        """A file is there at the end."""
        self._finals[final.customer, final.key].append(final)

    @property
    def read(self) -> int:
        """How many were read at the end."""
        return sum(len(finals) for finals in self._finals.values())

    def judge(self, cases: dict[tuple[str, str], Case]) -> None:
        """Object to whatever is not as it was told, or must not be."""
        for key in self._finals.keys() - self._calls.keys():
            self._object("made up", f"file {key[1]} of {key[0]} was never sent")
        for key, calls in self._calls.items():
            name = f"file {key[1]} of {key[0]}"
            finals = self._finals.get(key, [])
            taken = {call.body for call in calls if call.status in (200, 202)}
            if not finals:
                self._object("unknown", f"{name} was not read at the end")
            for final in finals:
                if final.state is None and taken:
                    self._object("lost", f"{name} was taken and is not known any more")
                elif final.state is not None:
                    self._judge_file(name, final, calls, cases)

    def _judge_file(
        self, name: str, final: FinalFile, calls: list[FileCall], cases: dict[tuple[str, str], Case]
    ) -> None:
        if final.state != _ENDED:
            self._object("left open", f"{name} is {final.state}")
        sent = {line.transaction for call in calls for line in call.lines}
        told = Counter(item.transaction for item in final.items)
        numbers = Counter(item.line for item in final.items)
        for transaction, count in told.items():
            if transaction not in sent:
                self._object("made up", f"{name} has a line {transaction} that was never sent")
            elif count > 1:
                self._object("doubled", f"{name} has {transaction} in {count} lines")
        if any(count > 1 for count in numbers.values()):
            self._object("doubled", f"{name} has a line twice")
        for transaction in sent - told.keys():
            self._object("lost", f"{name} has no line {transaction} any more")
        if final.total != len(final.items) or final.counts != dict(Counter(item.status for item in final.items)):
            self._object("told otherwise", f"{name} tells {final.total} lines as {final.counts}: its lines differ")
        for item in final.items:
            case = cases.get((final.customer, item.transaction or ""))
            payment = None if case is None else case.final
            if payment is None:
                continue
            if payment.payment_id != item.payment_id or payment.state not in _STATES.get(item.status, {None}):
                words = f"line {item.line} as {item.status}, payment {item.payment_id}"
                self._object("told otherwise", f"{name} tells {words}; it is {payment.state} {payment.payment_id}")
