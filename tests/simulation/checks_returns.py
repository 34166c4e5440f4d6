"""What must hold of returns after a run: no more than the payment, once, by two people above the limit, as told."""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID

from payflow.contracts.confirm import PaymentState
from payflow.contracts.returns import ReturnState
from payflow.kernel.four_eyes import FourEyes
from payflow.services.confirm.domain import RETURN_MACHINE, ReturnPayment
from tests.simulation.officers import RETURN_ENDS, Officers, Wish
from tests.simulation.payments import PaymentTables
from tests.simulation.returns import ReturnTables
from tests.simulation.services import Risk
from tests.simulation.weather import World

RETURN_RESTS = frozenset({ReturnState.AWAITING_APPROVAL, ReturnState.UNDER_REVIEW})


class ReturnsJudge:
    """Holds returns against the rules; `decided` are the reviews that were decided, and how."""

    def __init__(
        self,
        *,
        world: World,
        payments: PaymentTables,
        returns: ReturnTables,
        risk: Risk,
        officers: Officers,
        decided: dict[UUID, bool],
        four_eyes: FourEyes,
    ) -> None:
        self._world, self._payments, self._returns, self._risk = world, payments, returns, risk
        self._officers, self._decided, self._four_eyes = officers, decided, four_eyes

    def check_quiet(self) -> None:
        """Some seconds after the last fault: nothing is at work any more."""
        for made in self._returns.unfinished.values():
            if made.state not in RETURN_RESTS:
                self._world.break_(f"return still {made.state} after everything has healed", made.return_id)

    def check_end(self, moved: dict[UUID, dict[str, int]]) -> None:
        """After every deadline. `moved`: what each payment's journal entry moves; those of returns are taken out."""
        for made in self._returns.unfinished.values():
            self._world.break_(f"return {made.state} has not ended although its deadlines have passed", made.return_id)
        for made in self._returns.returns.values():
            self._check_steps(made)
            self._check_moved(made, moved.pop(made.return_id, {}))
        self._check_sums()
        self._check_events()
        for wish in self._officers.wishes:
            self._check_told(wish)

    def _check_moved(self, made: ReturnPayment, moved: dict[str, int]) -> None:
        is_completed = made.state is ReturnState.COMPLETED
        expected: dict[str, int] = {}
        if is_completed:
            expected[made.debtor_account] = expected.get(made.debtor_account, 0) - made.amount_minor
            expected[made.creditor_account] = expected.get(made.creditor_account, 0) + made.amount_minor
        if moved != expected:
            self._world.break_(f"return {made.state}, and its money has moved as {moved}", made.return_id)
        if not is_completed:
            return
        assessed = self._risk.commands.get(made.return_id)
        if assessed is None or (assessed.amount_minor, assessed.creditor) != (made.amount_minor, made.creditor_account):
            self._world.break_("returned, and never assessed, or something else was", made.return_id)
        case = self._risk.case_of(made.return_id)
        if case is not None and not self._decided.get(case, False):
            self._world.break_("returned without having been cleared", made.return_id)

    def _check_sums(self) -> None:
        """All returns of a payment together never come to more than it was, and above the limit two people agree."""
        made_minor: dict[UUID, int] = defaultdict(int)
        alone_minor: dict[UUID, int] = defaultdict(int)
        for made in self._returns.returns.values():
            original = self._payments.payments.get(made.payment_id)
            if original is None or original.state is not PaymentState.COMPLETED:
                self._world.break_("a return of a payment that was not made", made.return_id)
                continue
            if (made.debtor_account, made.creditor_account) != (original.creditor_account, original.debtor_account):
                self._world.break_("a return does not go back the way that it came", made.return_id)
            if made.state is not ReturnState.COMPLETED:
                continue
            made_minor[made.payment_id] += made.amount_minor
            if made.decided_by is None:
                alone_minor[made.payment_id] += made.amount_minor
        for payment_id, minor in made_minor.items():
            original = self._payments.payments[payment_id]
            if minor > (original.amount_minor or 0):
                self._world.break_(f"was {original.amount_minor}, and {minor} were returned", payment_id)
            if self._returns.returned.get(payment_id, 0) != minor or self._returns.taken[payment_id] != minor:
                self._world.break_(f"{minor} were returned, and something else is counted", payment_id)
            if self._four_eyes.asks(alone_minor[payment_id], original.currency or ""):
                self._world.break_(f"{alone_minor[payment_id]} were returned by one person alone", payment_id)

    def _check_steps(self, made: ReturnPayment) -> None:
        source = None
        steps = self._returns.steps[made.return_id]
        for step in steps:
            if step.source != source or (source is not None and not RETURN_MACHINE.allows(source, step.target)):
                self._world.break_(f"return went from {source} to {step.target}", made.return_id)
            source = step.target
        if source is not made.state or made.version != len(steps):
            self._world.break_("a return's steps have a gap", made.return_id)

    def _check_events(self) -> None:
        told: dict[UUID, int] = {}
        for _, return_id, version in self._returns.events:
            if version <= told.get(return_id, 0):
                self._world.break_(f"event {version} of a return came after event {told[return_id]}", return_id)
            told[return_id] = version
        for made in self._returns.returns.values():
            if told.get(made.return_id) != made.version:
                self._world.break_(f"nobody was told of a return's end, {made.state}", made.return_id)

    def _check_told(self, wish: Wish) -> None:
        command = wish.command
        return_id = self._returns.by_key.get((command.requested_by, command.idempotency_key))
        stored = None if return_id is None else self._returns.returns[return_id]
        if wish.return_id is not None and wish.return_id != return_id:
            self._world.break_("a return was told to an officer, and is not there", wish.return_id)
        if stored is None:
            return
        if wish.told is not None and wish.told != stored.view():
            self._world.break_(f"a return was told as {wish.told.state}, and is {stored.state}", stored.return_id)
        elif not wish.is_open:
            self._world.break_("a return was told as refused before it was stored, and is there", stored.return_id)
        if stored.state not in RETURN_ENDS:
            self._world.break_(f"a return is {stored.state} at the end", stored.return_id)
