"""Mistakes to be planted one at a time, at the ports of confirm and account: the simulation has to find each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from payflow.contracts.account import HoldKept, PaymentEnded
from payflow.contracts.confirm import PaymentState
from payflow.contracts.partner_bank import BankStatus, SubmissionStatus
from payflow.contracts.risk import Assessed, RiskLevel
from payflow.kernel.errors import PayflowError, UnknownOutcome
from payflow.kernel.four_eyes import FourEyes
from payflow.services.account.api import AccountApi
from payflow.services.account.domain import Balance, Changes
from payflow.services.confirm.domain import Payment, ReturnPayment
from payflow.services.confirm.ports import Ports
from payflow.services.confirm.usecases.bank import _instruction_of
from tests.simulation.doors import Door
from tests.simulation.ledger import LedgerTables, MemoryLedger
from tests.simulation.nodes import BEGIN, Life
from tests.simulation.payments import MemoryPayments, PaymentTables, copy_of
from tests.simulation.returns import MemoryReturns, ReturnTables
from tests.simulation.run import Parts


class IgnoresTheToken(MemoryPayments):
    """A process that was overtaken still stores its steps."""

    def may_write(self, payment: Payment) -> bool:
        return payment.payment_id in self._tables.payments


class KeepsTheToken(MemoryPayments):
    """A take-over does not raise the fencing token."""

    def take(self, payment: Payment, until: datetime) -> Payment:
        before = payment.fencing_token
        super().take(payment, until)
        payment.fencing_token = before
        return copy_of(payment)


class AnswersBeforeWriting(MemoryPayments):
    """Steps are told as stored while they are still on their way to the database."""

    async def save(self, payments: Sequence[Payment], *, now: datetime) -> set[UUID]:
        copies = [replace(payment, transitions=list(payment.transitions)) for payment in payments]
        self._door.life.spawn(super().save(copies, now=now), about="save")
        for payment in payments:
            payment.transitions.clear()
        return {payment.payment_id for payment in payments}


class ForgetsApprovals(MemoryPayments):
    """The word "approved" is acted on before it is stored."""

    async def save(self, payments: Sequence[Payment], *, now: datetime) -> set[UUID]:
        others = [payment for payment in payments if payment.state is not PaymentState.APPROVED]
        saved = await super().save(others, now=now)
        return saved | {payment.payment_id for payment in payments if payment.state is PaymentState.APPROVED}


class HasNoUniqueKeys(PaymentTables):
    """Nothing keeps two payments with the same key apart."""

    def insert(self, payment: Payment) -> bool:
        self.by_key[payment.customer_id, payment.idempotency_key] = payment.payment_id
        self.by_transaction[payment.customer_id, payment.transaction_id] = payment.payment_id
        self.write(payment)
        return True


class LosesEvents(PaymentTables):
    """An end is stored, and its event is not."""

    def write(self, payment: Payment) -> None:
        before = len(self.events)
        super().write(payment)
        if payment.is_final and payment.payment_id.int % 100 == 0:
            del self.events[before:]


class ForgetsOtherReturns(ReturnTables):
    """A return is held against its payment alone, and not against the other returns of it."""

    def take(self, made: ReturnPayment, *, original_minor: int, taken_minor: int) -> bool:
        self.originals.setdefault(made.payment_id, original_minor)
        self.count(made, made.amount_minor)
        return True

    def count(self, made: ReturnPayment, amount_minor: int) -> None:
        self.taken[made.payment_id] = self.taken.get(made.payment_id, 0) + amount_minor


class IgnoresTheReturnsToken(MemoryReturns):
    """A process that was overtaken still stores a return's steps."""

    def may_write(self, made: ReturnPayment) -> bool:
        return made.return_id in self._tables.returns


class ForgetsEndedPayments(LedgerTables):
    """A release leaves no refusal: a late command still moves money."""

    def write(self, changes: Changes) -> None:
        kept = [refusal for refusal in changes.refusals if refusal.code != PaymentEnded.code]
        super().write(replace(changes, refusals=kept))


class DoesNotLock(LedgerTables):
    """Two batches decide on the same balances at once."""

    async def lock(self, account_ids: Sequence[UUID], *, owner: object, door: Door) -> list[UUID]:
        return []


class TrustsKnownBalances(MemoryLedger):
    """A batch that was decided on remembered balances is written whatever has happened to them meanwhile."""

    async def book_whole(self, changes: Changes, *, balances: Sequence[Balance], payment_ids: Sequence[UUID]) -> bool:
        rows = self._shared.rows.balances
        current = [replace(balance, version=rows[balance.account_id].version) for balance in balances]
        return await super().book_whole(changes, balances=current, payment_ids=payment_ids)


class StoresTheKeyAfterTheEffect(MemoryLedger):
    """Money moves first, and that it was for this payment is written in a second statement."""

    async def book_whole(self, changes: Changes, *, balances: Sequence[Balance], payment_ids: Sequence[UUID]) -> bool:
        entries, without = changes.entries, replace(changes, entries=[])
        is_written = await super().book_whole(without, balances=balances, payment_ids=payment_ids)
        if is_written:
            await self._door.enter()
            if self._door.is_lost():
                raise UnknownOutcome("the connection was lost between the two")
            for entry in entries:
                if entry.payment_id is not None:
                    self._shared.rows.entries[entry.payment_id] = entry
        return is_written


class IgnoresTokens(AccountApi):
    """Account obeys a process that was overtaken: to it, all commands are as new as can be."""


def _token_ignored(operation: str) -> Callable[..., Any]:
    async def call(self: AccountApi, commands: list[Any]) -> list[Any]:
        newest = [msgspec.structs.replace(command, fencing_token=1_000_000) for command in commands]
        return await getattr(AccountApi, operation)(self, newest)

    return call


for _operation in ("transfer", "place_hold", "keep_hold", "capture_hold", "release_hold"):
    setattr(IgnoresTokens, _operation, _token_ignored(_operation))


class LetsSubmittedHoldsExpire(AccountApi):
    """The hold of a submitted payment keeps an expiry."""

    async def place_hold(self, commands: list[Any]) -> list[Any]:
        soon = self._clock.now() + timedelta(seconds=20)
        return await super().place_hold(
            [msgspec.structs.replace(command, expires_at=command.expires_at or soon) for command in commands]
        )

    async def keep_hold(self, commands: list[Any]) -> list[Any]:
        return [HoldKept(hold_id=command.payment_id) for command in commands]


class Around:
    """A port with something wrong in the way to it; everything else goes through."""

    def __init__(self, port: Any, life: Life) -> None:
        self._port, self._life = port, life

    def __getattr__(self, operation: str) -> Any:
        return getattr(self._port, operation)


class SilenceIsNo(Around):
    """The other bank's silence is taken for a no."""

    async def submit(self, commands: list[Any]) -> list[Any]:
        answers = await self._port.submit(commands)
        return [
            _refused(command.payment_id) if _is_silence(answer) else answer
            for command, answer in zip(commands, answers, strict=True)
        ]


class SendsUnderNewIds(Around):
    """A repeat to the other bank has a new end-to-end id, and partner_bank does not know it for a repeat."""

    async def submit(self, commands: list[Any]) -> list[Any]:
        ids = [f"{command.payment_id.hex}-{command.fencing_token}" for command in commands]
        renamed = [msgspec.structs.replace(one, end_to_end_id=id) for one, id in zip(commands, ids, strict=True)]
        return await self._port.submit(renamed)


class FailsOpen(Around):
    """Where risk does not answer, the payment is taken for harmless."""

    async def assess(self, commands: list[Any]) -> list[Any]:
        answers = await self._port.assess(commands)
        return [
            _harmless(command.payment_id) if isinstance(answer, PayflowError) else answer
            for command, answer in zip(commands, answers, strict=True)
        ]


class SubmitsBeforeTheIntent(Around):
    """A payment goes to the other bank before SUBMITTED is stored."""

    def __init__(self, store: Any, life: Life, bank: Any) -> None:
        super().__init__(store, life)
        self._bank = bank

    async def save(self, payments: Sequence[Payment], *, now: datetime) -> set[UUID]:
        going = [one for one in payments if one.state is PaymentState.SUBMITTED and one.parties is not None]
        await self._bank.submit([_instruction_of(payment) for payment in going])
        return await self._port.save(payments, now=now)


def _is_silence(answer: SubmissionStatus | PayflowError) -> bool:
    return isinstance(answer, UnknownOutcome) or getattr(answer, "status", None) is BankStatus.UNKNOWN


def _refused(payment_id: UUID) -> SubmissionStatus:
    return SubmissionStatus(payment_id=payment_id, status=BankStatus.REJECTED, reason_code="NARR", answered_at=BEGIN)


def _harmless(payment_id: UUID) -> Assessed:
    return Assessed(
        payment_id=payment_id,
        level=RiskLevel.LOW,
        points=0,
        sanctions_points=0,
        needs_otp=False,
        is_possible_sanctions_match=False,
        review_id=None,
        rules_hit=[],
        rules_version=1,
        assessed_at=BEGIN,
    )


def _bank(kind: type[Around]) -> Callable[[Ports, Life], Ports]:
    return lambda ports, life: replace(ports, bank=kind(ports.bank, life))


def _risk(kind: type[Around]) -> Callable[[Ports, Life], Ports]:
    return lambda ports, life: replace(ports, risk=kind(ports.risk, life))


def _early(ports: Ports, life: Life) -> Ports:
    return replace(ports, store=SubmitsBeforeTheIntent(ports.store, life, ports.bank))


PLANTED: Final = {
    "an overtaken process still stores its steps": Parts(payments=IgnoresTheToken),
    "a take-over keeps the fencing token": Parts(payments=KeepsTheToken),
    "customers are answered before the end is stored": Parts(payments=AnswersBeforeWriting),
    "an approval is acted on and not stored": Parts(payments=ForgetsApprovals),
    "two payments may have the same key": Parts(payment_tables=HasNoUniqueKeys),
    "an end is stored without its event": Parts(payment_tables=LosesEvents),
    "returns are not held against one another": Parts(return_tables=ForgetsOtherReturns),
    "an overtaken process still stores a return's steps": Parts(returns=IgnoresTheReturnsToken),
    "one person alone returns any amount": Parts(four_eyes=FourEyes.parse("1000000")),
    "a release leaves no refusal": Parts(ledger_tables=ForgetsEndedPayments),
    "balances are not locked": Parts(ledger_tables=DoesNotLock),
    "remembered balances are not checked": Parts(ledger=TrustsKnownBalances),
    "money moves before it is stored for which payment": Parts(ledger=StoresTheKeyAfterTheEffect),
    "account obeys an overtaken process": Parts(account=IgnoresTokens),
    "the hold of a submitted payment expires": Parts(account=LetsSubmittedHoldsExpire),
    "the other bank's silence is taken for a no": Parts(ports=_bank(SilenceIsNo)),
    "a repeat to the other bank has a new id": Parts(ports=_bank(SendsUnderNewIds)),
    "risk's silence is taken for a yes": Parts(ports=_risk(FailsOpen)),
    "a payment goes out before SUBMITTED is stored": Parts(ports=_early),
}
