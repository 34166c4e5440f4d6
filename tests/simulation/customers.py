"""Customers and their gateway: they pay, repeat, type codes, cancel, give up, and remember what they were told."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.confirm import (
    CancelPayment,
    ConfirmPayment,
    Creditor,
    DecideReview,
    PaymentState,
    PaymentView,
)
from payflow.kernel.errors import PayflowError, Rejection, Unavailable, UnknownOutcome
from tests.simulation.nodes import BEGIN, Life, Link
from tests.simulation.services import RIGHT_CODE, Risk
from tests.simulation.weather import Fate

FINAL: Final = frozenset({PaymentState.COMPLETED, PaymentState.REJECTED, PaymentState.CANCELLED, PaymentState.EXPIRED})
PAUSE_S: Final = 2.0
BATCH_MAX: Final = 200
TRIES_MAX: Final = 12


@dataclass(slots=True)
class Request:
    """A customer's wish, and what was told about it. `is_open`: an answer left open what has happened."""

    command: ConfirmPayment
    patience: float
    told: PaymentView | None = None
    told_at: float = 0.0
    payment_id: UUID | None = None
    is_open: bool = False
    tries: int = 0
    calls_under_way: int = 0
    has_typed: bool = False
    was_cancelled: bool = False


@dataclass(slots=True)
class Town:
    """Accounts: rich and poor customers here, some at the other bank, one on a sanctions list."""

    debtors: list[tuple[str, str]] = field(default_factory=list)
    creditors: list[str] = field(default_factory=list)
    listed: str = ""


class Customers:
    """Draws requests from the seed, sends them in batches over several lanes, and follows each up."""

    def __init__(self, *, life: Life, town: Town, payments: int, confirm: Link, risk: Risk) -> None:
        self._life, self._world, self._town, self._confirm, self._risk = life, life.world, town, confirm, risk
        self._unborn = payments
        self._later: list[tuple[float, int, Request, str | None]] = []
        self._count = 0
        self._lanes = 0
        self.requests: list[Request] = []
        # Called with each payment that its customer hears to be completed, once.
        self.on_paid: Callable[[PaymentView], None] = lambda view: None
        # The cases that an officer has decided, by review id, and how.
        self.decided: dict[UUID, bool] = {}

    @property
    def is_done(self) -> bool:
        """Whether nobody has a question left."""
        return not (self._unborn or self._later or self._lanes)

    def open_lanes(self, number: int) -> None:
        """Begin to pay."""
        self._lanes = number
        for lane in range(number):
            self._life.spawn(self._lane(), about=f"lane {lane}")

    async def _lane(self) -> None:
        chance = self._world.chance
        while self._unborn or self._later:
            batch = self._take(int(BATCH_MAX * chance.random() ** 0.5) + 1)
            if batch:
                await self._send(batch)
            # The last repeats come in few batches, too.
            await self._life.pause((PAUSE_S if self._unborn else 4 * PAUSE_S) * chance.random())
        self._lanes -= 1

    def _take(self, number: int) -> list[tuple[Request, ConfirmPayment]]:
        """The next batch: repeats that are due, then new requests; some are sent twice at once."""
        batch: list[tuple[Request, ConfirmPayment]] = []
        now = self._world.loop.time()
        while self._later and self._later[0][0] <= now and len(batch) < number:
            _, _, request, code = heapq.heappop(self._later)
            command = request.command if code is None else msgspec.structs.replace(request.command, otp=code)
            batch.append((request, command))
        while self._unborn and len(batch) < number:
            for request in self._new_requests():
                batch.append((request, request.command))
        for request, _ in batch:
            request.tries += 1
            request.calls_under_way += 1
        return batch

    def _new_requests(self) -> list[Request]:
        """One request; sometimes the same twice, or another one under the same key or the same transaction_id."""
        random = self._world.chance.random
        self._unborn -= 1
        first = self._new_request()
        drawn = random()
        if drawn < 0.04:
            return [first, first]
        if drawn < 0.05:
            command = msgspec.structs.replace(first.command, amount="7.77", fingerprint=b"other")
            return [first, self._remember(command)]
        if drawn < 0.06:
            self._count += 1
            command = msgspec.structs.replace(first.command, idempotency_key=f"twin-{self._count}")
            return [first, self._remember(command)]
        return [first]

    def _new_request(self) -> Request:
        random, town = self._world.chance.random, self._town
        self._count += 1
        number = self._count
        customer, debtor = town.debtors[int(random() * len(town.debtors))]
        creditor: Creditor | None = None
        creditor_account = town.creditors[int(random() * len(town.creditors))]
        if creditor_account == debtor and random() < 0.95:
            creditor_account = town.creditors[1] if debtor != town.creditors[1] else town.creditors[2]
        drawn = random()
        if drawn < 0.08:
            creditor_account = f"X{number}"
            creditor = Creditor(name="Grace Hopper", agent=None)
        elif drawn < 0.09:
            creditor_account = town.listed
        minor = int(random() * 50_000) + 1 if random() < 0.98 else 1_000_000 + int(random() * 500_000)
        command = ConfirmPayment(
            customer_id=customer,
            idempotency_key=f"key-{number}",
            fingerprint=b"%d" % number,
            transaction_id=f"tx-{number}",
            amount=f"{minor // 100}.{minor % 100:02}",
            currency=None,
            debtor_account=debtor,
            creditor_account=creditor_account,
            creditor=creditor,
            traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            execute_at=self._day() if random() < 0.03 else None,
        )
        return self._remember(command)

    def _day(self) -> datetime:
        """An instant that comes during the run, or, now and then, one that is not taken."""
        random = self._world.chance.random
        ahead_s = 2 + 120 * random() if random() < 0.97 else -60.0
        return BEGIN + timedelta(seconds=int(self._world.loop.time() + ahead_s))

    def _remember(self, command: ConfirmPayment) -> Request:
        request = Request(command=command, patience=self._world.chance.random())
        self.requests.append(request)
        return request

    async def _send(self, batch: Sequence[tuple[Request, ConfirmPayment]]) -> None:
        asked_at = self._world.loop.time()
        answers, fate = await self._confirm.call("confirm", [command for _, command in batch])
        for (request, command), answer in zip(batch, answers, strict=True):
            request.calls_under_way -= 1
            if fate is Fate.DOUBLED:
                # The other copy may still arrive, whatever was answered to this one.
                request.is_open = True
            if isinstance(answer, PaymentView):
                self.hear(request, answer, asked_at=asked_at, command=command)
            else:
                self._hear_error(request, answer)

    def hear(
        self, request: Request, view: PaymentView, *, asked_at: float, command: ConfirmPayment | None = None
    ) -> None:
        """A payment was told: the same one each time, and to all who ask after its end was told, that end."""
        is_final = view.state in FINAL
        if request.payment_id is None:
            request.payment_id = view.payment_id
        elif request.payment_id != view.payment_id:
            self._world.break_(f"told first as payment {request.payment_id}, then as this one", view.payment_id)
        if request.told is not None:
            if (is_final or asked_at >= request.told_at) and request.told != view:
                self._world.break_(f"told first as {in_short(request.told)}, then as {in_short(view)}", view.payment_id)
        elif is_final:
            request.told, request.told_at = view, self._world.loop.time()
            if view.state is PaymentState.COMPLETED:
                self.on_paid(view)
        else:
            request.is_open = True
            if command is not None:
                self._follow_up(request, view)

    def _follow_up(self, request: Request, view: PaymentView) -> None:
        """It is not over: type a code, wait for an officer, cancel, ask again, or forget about it."""
        random = self._world.chance.random
        drawn = random()
        if drawn < 0.05 and not request.was_cancelled:
            request.was_cancelled = True
            self._life.spawn(self._cancel(request, after_s=10 * random()), about="cancel")
        if view.state is PaymentState.AWAITING_OTP:
            if request.patience < 0.15:
                return
            code = RIGHT_CODE if request.has_typed or random() < 0.8 else "000000"
            request.has_typed = True
            self._again(request, code=code)
        elif view.state is PaymentState.UNDER_REVIEW:
            case = self._risk.case_of(view.payment_id)
            if case is not None and case not in self.decided and request.patience > 0.2:
                self.decided[case] = random() < 0.7
                self._life.spawn(self._review(request, view.payment_id, case, after_s=20 * random()), about="review")
        elif request.patience > 0.2:
            self._again(request)

    def _hear_error(self, request: Request, error: PayflowError) -> None:
        happened_nothing = isinstance(error, Unavailable | Rejection)
        request.is_open = request.is_open or not happened_nothing
        if isinstance(error, UnknownOutcome | Unavailable) or error.code == "PAYMENT_IN_PROGRESS":
            if request.patience > 0.1:
                self._again(request)
        elif error.code in ("INVALID_OTP", "OTP_EXPIRED"):
            self._again(request, code=RIGHT_CODE)

    def _again(self, request: Request, *, code: str | None = None) -> None:
        if request.tries >= TRIES_MAX:
            return
        self._count += 1
        when = self._world.loop.time() + 8 * self._world.chance.random()
        heapq.heappush(self._later, (when, self._count, request, code))
        if not self._lanes:
            # A review was decided after everybody had gone home.
            self.open_lanes(1)

    async def _cancel(self, request: Request, *, after_s: float) -> None:
        await self._life.pause(after_s)
        command = request.command
        asked_at = self._world.loop.time()
        wish = CancelPayment(customer_id=command.customer_id, transaction_id=command.transaction_id)
        (answer,) = await self._confirm.cancel([wish])
        if isinstance(answer, PaymentView) and answer.payment_id == request.payment_id:
            if answer.state is not PaymentState.CANCELLED:
                self._world.break_(f"cancelled, and told as {answer.state}", answer.payment_id)
            self.hear(request, answer, asked_at=asked_at)

    async def _review(self, request: Request, payment_id: UUID, case: UUID, *, after_s: float) -> None:
        """A compliance officer decides a case once; the decision is repeated until confirm has taken it."""
        await self._life.pause(after_s)
        decision = DecideReview(payment_id=payment_id, is_cleared=self.decided[case], decided_by="officer")
        for _ in range(10):
            (answer,) = await self._confirm.decide_review([decision])
            if isinstance(answer, PaymentView):
                break
            await self._life.pause(3)
        self._again(request)


def in_short(view: PaymentView) -> str:
    """What differs between two views of a payment."""
    return f"{view.state} (version {view.version}, {view.error_code or 'no error'}, {view.updated_at:%H:%M:%S.%f})"


def told_nothing_happened(request: Request) -> bool:
    """Whether every answer to the request has said that nothing was done for it."""
    return request.told is None and not request.is_open and request.tries > 0
