"""The bank's own people: they ask for parts of what was paid, approve or decline, and remember what they were told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from payflow.contracts.confirm import DecideReview, PaymentView
from payflow.contracts.returns import DecideReturn, RequestReturn, ReturnReason, ReturnState, ReturnView
from payflow.kernel.errors import PayflowError, Rejection
from tests.simulation.nodes import Life, Link
from tests.simulation.services import Risk
from tests.simulation.weather import Fate

RETURN_SHARE: Final = 0.01
RETURN_ENDS: Final = frozenset({ReturnState.COMPLETED, ReturnState.REJECTED, ReturnState.DECLINED, ReturnState.EXPIRED})
TRIES_MAX: Final = 12
OPERATORS: Final = ("olga", "omar")


@dataclass(slots=True)
class Wish:
    """A return that an operator asks for, and what was told about it. `is_open`: an answer left open what happened."""

    command: RequestReturn
    told: ReturnView | None = None
    return_id: UUID | None = None
    is_open: bool = False
    is_declined: bool = False


class Officers:
    """Ask for returns of completed payments: several parts at once, together often more than the payment."""

    def __init__(self, *, life: Life, confirm: Link, risk: Risk, decided: dict[UUID, bool]) -> None:
        self._life, self._world, self._confirm, self._risk = life, life.world, confirm, risk
        self._decided = decided
        self._under_way = 0
        self.wishes: list[Wish] = []

    @property
    def is_done(self) -> bool:
        """Whether nobody has a question left."""
        return not self._under_way

    def hear_of(self, view: PaymentView) -> None:
        """A payment was completed; a few go back."""
        random = self._world.chance.random
        if random() >= RETURN_SHARE or view.amount_minor is None:
            return
        share = 0.3 + 0.8 * random()
        for number in range(1 + int(4 * random())):
            minor = max(1, int(view.amount_minor * share))
            command = RequestReturn(
                payment_id=view.payment_id,
                idempotency_key=f"return-{len(self.wishes)}",
                fingerprint=b"%d" % minor,
                reason_code=ReturnReason.DUPLICATION,
                requested_by=OPERATORS[number % 2],
                amount=None if random() < 0.1 else f"{minor // 100}.{minor % 100:02}",
            )
            wish = Wish(command)
            self.wishes.append(wish)
            self._under_way += 1
            self._life.spawn(self._follow(wish), about="return")

    async def _follow(self, wish: Wish) -> None:
        try:
            for _ in range(TRIES_MAX):
                await self._life.pause(6 * self._world.chance.random())
                (answer,), fate = await self._confirm.call("request_return", [wish.command])
                wish.is_open = wish.is_open or fate is Fate.DOUBLED
                if isinstance(answer, ReturnView):
                    self._hear(wish, answer)
                    if answer.state in RETURN_ENDS:
                        return
                    await self._decide(wish, answer)
                elif isinstance(answer, Rejection) or answer.code == "NOT_RETURNABLE":
                    return
                else:
                    wish.is_open = True
        finally:
            self._under_way -= 1

    def _hear(self, wish: Wish, view: ReturnView) -> None:
        """The same return each time, and once its end was told, that end."""
        wish.is_open = True
        if wish.return_id not in (None, view.return_id):
            self._world.break_(f"return {wish.return_id} was told as another one, {view.return_id}", view.payment_id)
        wish.return_id = view.return_id
        if wish.told is not None and wish.told != view:
            self._world.break_(f"return told first as {wish.told.state}, then as {view.state}", view.return_id)
        if view.state in RETURN_ENDS:
            wish.told = view

    async def _decide(self, wish: Wish, view: ReturnView) -> None:
        """A second person decides about it, or a compliance officer, or nobody does."""
        random = self._world.chance.random
        if view.state is ReturnState.UNDER_REVIEW:
            case = self._risk.case_of(view.return_id)
            if case is not None and random() < 0.8:
                is_cleared = self._decided.setdefault(case, random() < 0.6)
                review = DecideReview(payment_id=view.return_id, is_cleared=is_cleared, decided_by="officer")
                await self._confirm.decide_review([review])
            return
        if view.state is not ReturnState.AWAITING_APPROVAL or random() < 0.1:
            return
        first, second = OPERATORS if wish.command.requested_by == OPERATORS[0] else OPERATORS[::-1]
        is_approved = not wish.is_declined and random() < 0.7
        decision = DecideReturn(return_id=view.return_id, is_approved=is_approved, decided_by=second)
        own = DecideReturn(return_id=view.return_id, is_approved=True, decided_by=first)
        wish.is_declined = wish.is_declined or not is_approved
        answers: Sequence[ReturnView | PayflowError] = await self._confirm.decide_return([own, decision])
        if isinstance(answers[0], ReturnView):
            self._world.break_(f"{first} was let decide about their own return", view.return_id)
        if isinstance(answers[1], ReturnView):
            self._hear(wish, answers[1])
