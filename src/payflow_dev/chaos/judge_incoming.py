"""What the judge holds against incoming money: credited once when it is accepted, and nothing when it is refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final

from payflow_dev.chaos.history import FinalIncoming, IncomingCall

Object = Callable[[str, str], None]
ACCEPTED: Final = "ACCEPTED"
REJECTED: Final = "REJECTED"
CREDITED: Final = "CREDITED"
# What the other bank's money is with us once it is told as taken: credited, or kept back because somebody is listed.
TAKEN: Final = frozenset({CREDITED, "HELD_IN_SUSPENSE"})
_ENDED: Final = TAKEN | {REJECTED}


class IncomingDesk:
    """Hears of incoming money, and judges it once all is heard."""

    def __init__(self, object_to: Object) -> None:
        self._object = object_to
        self._calls: dict[str, list[IncomingCall]] = defaultdict(list)
        self._finals: dict[str, list[FinalIncoming]] = defaultdict(list)

    def hear_call(self, call: IncomingCall) -> None:
        """The other bank was told to pay."""
        self._calls[call.end_to_end_id].append(call)

    def hear_final(self, final: FinalIncoming) -> None:
        """Incoming money is there at the end."""
        self._finals[final.end_to_end_id].append(final)

    @property
    def read(self) -> int:
        """How many were read at the end."""
        return sum(len(finals) for finals in self._finals.values())

    def judge(self) -> None:
        """Object to whatever is not as it was told, or must not be."""
        for id in self._finals.keys() - self._calls.keys():
            self._object("made up", f"incoming {id} was never sent")
        for id, calls in self._calls.items():
            finals = self._finals.get(id, [])
            if not finals:
                self._object("unknown", f"incoming {id} was not read at the end")
            if len(finals) > 1:
                self._object("doubled", f"incoming {id} is there {len(finals)} times")
            for final in finals:
                self._judge_one(calls, final)

    def _judge_one(self, calls: list[IncomingCall], final: FinalIncoming) -> None:
        name = f"incoming {final.end_to_end_id}"
        told = {call.told for call in calls} - {None}
        if final.told in (ACCEPTED, REJECTED):
            told.add(final.told)
        if len(told) > 1:
            self._object("contradicted", f"{name} was told as both accepted and refused")
        if ACCEPTED in told and final.state not in TAKEN:
            self._object("lost", f"{name} was told as accepted and is {final.state}")
        if REJECTED in told and final.state in TAKEN:
            self._object("refused with an effect", f"{name} was refused and is {final.state}")
        if not told or (final.state is not None and final.state not in _ENDED):
            self._object("left open", f"{name} is {final.state}, and the other bank knows {final.told}")
        if final.state is not None and final.amount_minor != calls[0].amount_minor:
            self._object("wrong", f"{name} was for {calls[0].amount_minor} and is for {final.amount_minor}")

    def legs(self) -> Iterator[tuple[str, str | None, int]]:
        """What the model's ledger books: account, payment and amount of all that is credited, each once."""
        for id, finals in self._finals.items():
            if id in self._calls and finals[0].state == CREDITED:
                call = self._calls[id][0]
                yield call.creditor, finals[0].payment_id, call.amount_minor
