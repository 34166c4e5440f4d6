"""What runs in a simulated process of confirm and of account: their use cases, and their duties beside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from payflow.contracts.confirm import CancelPayment, ConfirmPayment, DecideReview, PaymentView, RecordBankAnswer
from payflow.contracts.operation import Answers
from payflow.contracts.returns import DecideReturn, RequestReturn, ReturnView
from payflow.kernel.errors import PayflowError
from payflow.platform.postgres import repeat_then_halve
from payflow.services.confirm.domain import Payment
from payflow.services.confirm.ports import Ports, ReturnPorts
from payflow.services.confirm.usecases import lifecycle, returns
from payflow.services.confirm.usecases.bank import settle_submitted
from payflow.services.confirm.usecases.confirm import confirm_payments
from tests.simulation.nodes import Life


class NobodyWaits:
    """Nobody waits in a process for a payment's end (see ports.Endings)."""

    def tell(self, payment_id: object) -> None:
        return None

    async def wait(self, payment_id: object, *, seconds: float) -> None:
        return None


class ConfirmProcess:
    """Confirm's operations, and the settling that goes on after an answer (see ports.Background)."""

    def __init__(self, *, life: Life, ports: Ports, returns: ReturnPorts) -> None:
        self._life, self._ports, self._returns = life, ports, returns

    def start(self, payments: Sequence[Payment]) -> None:
        if payments:
            self._life.spawn(settle_submitted(payments=list(payments), ports=self._ports), about="settle_submitted")

    async def confirm(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]:
        return await repeat_then_halve(
            lambda batch: confirm_payments(commands=batch, ports=self._ports, background=self), commands
        )

    async def cancel(self, commands: list[CancelPayment]) -> Answers[PaymentView]:
        return await lifecycle.cancel_payments(commands=commands, ports=self._ports)

    async def decide_review(self, commands: list[DecideReview]) -> Answers[PaymentView]:
        answers = await lifecycle.decide_reviews(commands=commands, ports=self._ports, background=self)
        return await returns.decide_return_reviews(commands=commands, answers=answers, ports=self._returns)

    async def request_return(self, commands: list[RequestReturn]) -> Answers[ReturnView]:
        return await returns.request_returns(commands=commands, ports=self._returns)

    async def decide_return(self, commands: list[DecideReturn]) -> Answers[ReturnView]:
        return await returns.decide_returns(commands=commands, ports=self._returns)

    async def record_bank_answer(self, commands: list[RecordBankAnswer]) -> Answers[PaymentView]:
        return await lifecycle.record_bank_answers(commands=commands, ports=self._ports)

    async def do_what_is_due(self) -> None:
        """One look for payments whose next step is due."""
        await lifecycle.do_what_is_due(ports=self._ports, background=self)

    async def do_due_returns(self) -> None:
        """One look for returns whose next step is due."""
        await returns.do_due_returns(ports=self._returns)


async def again_and_again(life: Life, duty: Callable[[], Awaitable[object]], *, pause_s: Callable[[], float]) -> None:
    """Do a duty, pause, and do it again, until the process dies. Only errors of the four families are borne."""
    while True:
        await life.pause(pause_s())
        try:
            await duty()
        except PayflowError as error:
            life.world.note(f"{life.node.name} {duty.__name__}: {error.code}")
