"""What the judge holds against returns and reviews: what the bank's own people were told, against what became of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from payflow_dev.chaos.cases import COMPLETED, ENDED_UNPAID, NOTHING_DONE, Case
from payflow_dev.chaos.history import FinalReturn, OfficeCall

Object = Callable[[str, str], None]
RETURN_UNPAID: Final = frozenset({"REJECTED", "DECLINED", "EXPIRED"})
# What a return may rest in: until a second person, or an officer, decides.
RETURN_WAITS: Final = frozenset({"AWAITING_APPROVAL", "UNDER_REVIEW"})
REVIEWS: Final = frozenset({"clear_review", "block_review"})


class _Told(msgspec.Struct):
    """What an answer to a return says of it."""

    return_id: str | None = None
    state: str | None = None
    requested_by: str | None = None


@dataclass
class _Asked:
    """One return as the officers know it: what was asked and decided under its key, and what it is at the end."""

    asked: list[OfficeCall] = field(default_factory=list)
    decided: list[OfficeCall] = field(default_factory=list)
    finals: list[FinalReturn] = field(default_factory=list)

    @property
    def told(self) -> list[_Told]:
        """What was told of it by those answers that name it."""
        heard = [_told(call) for call in (*self.asked, *self.decided) if call.status in (200, 201, 422)]
        return [one for one in heard if one.return_id is not None]

    @property
    def is_paid_by_words(self) -> bool:
        """Whether somebody was told that the money is back."""
        return any(one.state == COMPLETED for one in self.told)

    @property
    def is_refused_by_words(self) -> bool:
        """Whether somebody was told that it was refused, after it was stored; or declined it, and was told so."""
        return any(_is_refusal_of_stored(call) for call in (*self.asked, *self.decided)) or any(
            call.operation == "decline_return" and call.status == 200 for call in self.decided
        )

    @property
    def is_turned_away(self) -> bool:
        """Whether every single call was told that nothing is stored for it."""
        return all(
            call.status in NOTHING_DONE or (call.status == 422 and not _is_refusal_of_stored(call))
            for call in self.asked
        )


class ReturnsDesk:
    """Hears of returns and reviews, and judges them once all is heard."""

    def __init__(self, object_to: Object) -> None:
        self._object = object_to
        self._returns: dict[str, _Asked] = defaultdict(_Asked)
        self._reviews: dict[tuple[str, str], list[OfficeCall]] = defaultdict(list)
        self._finals: list[FinalReturn] = []
        self.four_eyes_above_minor: int | None = None

    def hear_call(self, call: OfficeCall) -> None:
        """Somebody of the bank's asked for something."""
        if call.operation in REVIEWS:
            self._reviews[call.customer, call.transaction].append(call)
        elif call.operation == "return":
            self._returns[call.key].asked.append(call)
        else:
            self._returns[call.key].decided.append(call)

    def hear_final(self, final: FinalReturn) -> None:
        """A return is there at the end."""
        self._finals.append(final)

    @property
    def completed(self) -> list[FinalReturn]:
        """The returns whose money is back, each once: the model's ledger books these."""
        return [final for final in self._finals if final.state == COMPLETED]

    @property
    def read(self) -> int:
        """How many were read at the end."""
        return len(self._finals)

    def judge(self, cases: dict[tuple[str, str], Case], *, refused_abroad: Collection[str] = ()) -> None:
        """Object to whatever is not as it was told, or must not be. `refused_abroad`: what the other bank refused."""
        by_payment = {case.final.payment_id: case for case in cases.values() if case.final and case.final.payment_id}
        for final in self._finals:
            if final.key is None or final.key not in self._returns:
                self._object("made up", f"return {final.return_id} was never asked for")
            else:
                self._returns[final.key].finals.append(final)
        for key, asked in self._returns.items():
            self._judge_words(key, asked)
        returns_of = self._by_payment()
        for payment_id, finals in returns_of.items():
            self._judge_sums(payment_id, finals, by_payment.get(payment_id))
        for final in self._finals:
            self._judge_four_eyes(final)
        for case in cases.values():
            self._judge_review(case, refused_abroad)
            if case.final is not None and case.final.returned_minor and case.final.payment_id not in returns_of:
                self._object("wrong", f"{case.name} tells of returns that are not there")

    def _by_payment(self) -> dict[str, list[FinalReturn]]:
        grouped: dict[str, list[FinalReturn]] = defaultdict(list)
        for final in self._finals:
            grouped[final.payment_id].append(final)
        return grouped

    def _judge_words(self, key: str, asked: _Asked) -> None:
        if len(asked.finals) > 1:
            self._object("doubled", f"return {key} is there {len(asked.finals)} times")
        final = asked.finals[0] if asked.finals else None
        state = None if final is None else final.state
        ids = {one.return_id for one in asked.told}
        if len(ids) > 1 or (asked.is_paid_by_words and asked.is_refused_by_words):
            self._object("contradicted", f"return {key} was told as {len(ids)} returns, or both made and refused")
        if ids and (final is None or final.return_id not in ids):
            self._object("lost", f"return {key} was told as {', '.join(map(str, ids))} and is not known any more")
        if asked.is_paid_by_words and state != COMPLETED:
            self._object("lost", f"return {key} was told as completed and is {state}")
        if (asked.is_refused_by_words and state not in RETURN_UNPAID) or (asked.is_turned_away and final is not None):
            self._object("refused with an effect", f"return {key} was refused and is {state}")
        if final is not None and state not in {COMPLETED} | RETURN_UNPAID | RETURN_WAITS:
            self._object("left open", f"return {key} is {state}")
        if final is not None and asked.asked and final.amount_minor != asked.asked[0].amount_minor:
            self._object("wrong", f"return {key} was for {asked.asked[0].amount_minor} and is for {final.amount_minor}")

    def _judge_sums(self, payment_id: str, finals: list[FinalReturn], case: Case | None) -> None:
        """A payment's returns go back the way it came, and never come to more than it was."""
        if case is None or case.final is None or case.state != COMPLETED:
            self._object("returned too much", f"{payment_id} was never paid, and {len(finals)} returns of it are there")
            return
        call = case.first
        if any((final.debtor, final.creditor) != (call.creditor, call.debtor) for final in finals):
            self._object("wrong", f"a return of {case.name} does not go back the way that it came")
        taken = sum(final.amount_minor for final in finals if final.state not in RETURN_UNPAID)
        if taken > call.amount_minor:
            self._object("returned too much", f"{case.name} was for {call.amount_minor}, its returns are {taken}")
        made = sum(final.amount_minor for final in finals if final.state == COMPLETED)
        if made != case.final.returned_minor:
            self._object("wrong", f"{case.name} tells of {case.final.returned_minor} returned, its returns are {made}")
        alone = sum(final.amount_minor for final in finals if final.state == COMPLETED and final.decided_by is None)
        if self.four_eyes_above_minor is not None and alone > self.four_eyes_above_minor:
            self._object("four eyes", f"{alone} of {case.name} were returned without a second person")

    def _judge_four_eyes(self, final: FinalReturn) -> None:
        """Whoever decided is somebody else than who asked, and did ask to decide so."""
        if final.decided_by is None or final.key is None:
            return
        asked = self._returns[final.key] if final.key in self._returns else _Asked()
        wanted = "decline_return" if final.state == "DECLINED" else "approve_return"
        deciders = {
            call.officer
            for call in asked.decided
            if call.operation == wanted and (_may_have_done(call) or "IN_PROGRESS" in (call.body or ""))
        }
        if final.decided_by == final.requested_by or final.decided_by not in deciders:
            self._object("four eyes", f"return {final.key} of {final.requested_by} was decided by {final.decided_by}")
        for call in asked.decided:
            if call.officer == final.requested_by and call.status == 200:
                self._object("four eyes", f"{call.officer} was let decide about {final.key}, their own return")

    def _judge_review(self, case: Case, refused_abroad: Collection[str]) -> None:
        """A payment of a listed name is made if an officer has cleared it, and only then."""
        calls = self._reviews.get((case.first.customer, case.first.transaction), [])
        told = Counter(call.operation for call in calls if call.status == 200)
        if told["clear_review"] and told["block_review"]:
            self._object("contradicted", f"{case.name} was both cleared and blocked")
        if told["block_review"] and case.state is not None and case.state not in ENDED_UNPAID:
            self._object("refused with an effect", f"{case.name} was blocked and is {case.state}")
        may_be_cleared = any(_may_have_done(call) for call in calls if call.operation == "clear_review")
        may_be_blocked = any(_may_have_done(call) for call in calls if call.operation == "block_review")
        if case.first.is_listed and case.state == COMPLETED and not may_be_cleared:
            self._object("not cleared", f"{case.name} is to a listed name, and was paid though nobody has cleared it")
        is_blocked = (
            case.final is not None
            and case.final.error == "PAYMENT_REFUSED"
            and case.final.payment_id not in refused_abroad
        )
        if is_blocked and case.first.is_listed and not may_be_blocked:
            self._object("contradicted", f"{case.name} was refused after a review that nobody has decided so")


def legs_of(final: FinalReturn) -> Iterator[tuple[str, int]]:
    """What a completed return moves: account and signed amount."""
    yield final.debtor, -final.amount_minor
    yield final.creditor, final.amount_minor


def _may_have_done(call: OfficeCall) -> bool:
    return call.status in (None, 200) or call.status >= 500


def _told(call: OfficeCall) -> _Told:
    try:
        return msgspec.json.decode((call.body or "{}").encode(), type=_Told)
    except msgspec.DecodeError:
        return _Told()


def _is_refusal_of_stored(call: OfficeCall) -> bool:
    """A return that was stored and then refused is told with its id, each time that it is asked for."""
    return call.status == 422 and _told(call).return_id is not None
