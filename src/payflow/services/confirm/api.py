"""Adapts the contract to the use cases, and keeps the work that goes on after an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import structlog
from prometheus_client import Gauge

from payflow.contracts.confirm import (
    AwaitEnd,
    CancelPayment,
    ConfirmPayment,
    DecideReview,
    GetPayment,
    ListPayments,
    PaymentHistory,
    PaymentPage,
    PaymentView,
    RecordBankAnswer,
    SendCode,
)
from payflow.contracts.operation import Answers
from payflow.contracts.sides import ListSides, SidesList
from payflow.kernel.errors import PayflowError
from payflow.platform.context import current_deadline
from payflow.platform.postgres import repeat_then_halve
from payflow.platform.replica import Reads
from payflow.services.confirm.domain import CARE, MACHINE, Payment
from payflow.services.confirm.ports import Ports, ReturnPorts, ReturnStore, Store
from payflow.services.confirm.usecases import lifecycle, reads, returns
from payflow.services.confirm.usecases.bank import settle_submitted
from payflow.services.confirm.usecases.confirm import confirm_payments

log = structlog.get_logger(__name__)


class LocalEndings:
    """Wakes requests of this process that wait for a payment's end (see ports.Endings)."""

    def __init__(self) -> None:
        self._waiting: dict[UUID, asyncio.Event] = {}

    def tell(self, payment_id: UUID) -> None:
        event = self._waiting.pop(payment_id, None)
        if event is not None:
            event.set()

    async def wait(self, payment_id: UUID, *, seconds: float) -> None:
        event = self._waiting.setdefault(payment_id, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            self._waiting.pop(payment_id, None)


class SettleInBackground:
    """Takes submitted payments through the other bank in tasks of this process (see ports.Background).

    What a killed process leaves behind is taken over when its lease has ended.
    """

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, payments: Sequence[Payment]) -> None:
        if payments:
            task = asyncio.get_running_loop().create_task(self._settle(list(payments)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _settle(self, payments: list[Payment]) -> None:
        current_deadline.set(None)
        try:
            await settle_submitted(payments=payments, ports=self._ports)
        except Exception as error:
            log.warning("settle.failed", payments=len(payments), error=repr(error))

    async def finish(self) -> None:
        """Give what is under way a moment to end, then leave it to the next process."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)


async def _pages(queries: Sequence[ListPayments], stores: tuple[Store, ReturnStore]) -> Answers[PaymentPage]:
    payments, made_returns = stores
    pages = await reads.list_payments(queries=queries, store=payments)
    return await returns.pages_with_returned(pages=pages, store=made_returns)


def _log_answers(commands: Sequence[ConfirmPayment], answers: Answers[PaymentView]) -> None:
    """One line per request, found by the trace id that the client was told: ids and outcome, nothing personal.

    A payment that this request made and that has ended has its line already, where its end was stored.
    """
    tell = log.bind().info
    for command, answer in zip(commands, answers, strict=True):
        trace_id = command.traceparent[3:35]
        if isinstance(answer, PayflowError):
            tell("payment.not_taken", trace_id=trace_id, transaction_id=command.transaction_id, error_code=answer.code)
        elif answer.trace_id != trace_id or answer.state not in MACHINE.final_states:
            tell(
                "payment.answered",
                trace_id=trace_id,
                payment_id=str(answer.payment_id),
                transaction_id=command.transaction_id,
                state=answer.state.value,
                risk_level=answer.risk_level,
                error_code=answer.error_code,
            )


_open_payments: Final = Gauge("payflow_payments_open", "Unfinished payments.", ["state"])
_oldest: Final = Gauge(
    "payflow_oldest_payment_age_seconds",
    "How long the oldest unfinished payment is in this state, a scheduled one since its day; 0: none.",
    ["state"],
)


async def measure_open_payments(*, ports: Ports) -> None:
    """Tell by metrics how many payments are unfinished in each state, and for how long the oldest is."""
    found = await ports.store.open_by_state()
    now = ports.clock.now()
    for state in CARE:
        count, since = found.get(state, (0, now))
        _open_payments.labels(state.value).set(count)
        _oldest.labels(state.value).set(max(0.0, (now - since).total_seconds()))


class ConfirmApi:
    """Implements contracts.confirm.Confirm."""

    def __init__(
        self,
        *,
        ports: Ports,
        background: SettleInBackground,
        returns: ReturnPorts,
        lists: Reads[tuple[Store, ReturnStore]] | None = None,
    ) -> None:
        self._ports = ports
        self._lists = lists or Reads((ports.store, returns.returns))
        self._background = background
        self._returns = returns

    async def confirm(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]:
        answers = await repeat_then_halve(
            lambda batch: confirm_payments(commands=batch, ports=self._ports, background=self._background), commands
        )
        _log_answers(commands, answers)
        return answers

    async def confirm_with_otp(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]:
        return await self.confirm(commands)

    async def send_codes(self, commands: list[SendCode]) -> Answers[PaymentView]:
        return await lifecycle.send_codes(commands=commands, ports=self._ports)

    async def await_end(self, queries: list[AwaitEnd]) -> Answers[PaymentView]:
        return await reads.await_ends(queries=queries, ports=self._ports)

    async def get(self, queries: list[GetPayment]) -> Answers[PaymentView]:
        answers = await reads.get_payments(queries=queries, store=self._ports.store)
        return await returns.with_returned(answers=answers, store=self._returns.returns)

    async def history(self, queries: list[GetPayment]) -> Answers[PaymentHistory]:
        answers = await reads.histories(queries=queries, store=self._ports.store)
        return await returns.histories_with_returned(answers=answers, store=self._returns.returns)

    async def list_payments(self, queries: list[ListPayments]) -> Answers[PaymentPage]:
        return await self._lists.answer(queries, _pages)

    async def list_sides(self, queries: list[ListSides]) -> Answers[SidesList]:
        return await reads.list_sides(queries=queries, store=self._ports.store)

    async def cancel(self, commands: list[CancelPayment]) -> Answers[PaymentView]:
        return await lifecycle.cancel_payments(commands=commands, ports=self._ports)

    async def decide_review(self, commands: list[DecideReview]) -> Answers[PaymentView]:
        answers = await lifecycle.decide_reviews(commands=commands, ports=self._ports, background=self._background)
        return await returns.decide_return_reviews(commands=commands, answers=answers, ports=self._returns)

    async def record_bank_answer(self, commands: list[RecordBankAnswer]) -> Answers[PaymentView]:
        return await lifecycle.record_bank_answers(commands=commands, ports=self._ports)
