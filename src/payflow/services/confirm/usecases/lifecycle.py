"""What happens to payments beside their customers' requests: cancelled, reviewed, answered late, expired, recovered."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from typing import Final

from payflow.contracts.confirm import (
    CancelPayment,
    DecideReview,
    NotCancellable,
    PaymentInProgress,
    PaymentNotFound,
    PaymentRefused,
    PaymentState,
    PaymentView,
    RecordBankAnswer,
    SendCode,
)
from payflow.contracts.operation import Answers
from payflow.contracts.otp import IssueOtp
from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.services.confirm.domain import (
    CANCELLABLE,
    WAITS_FOR_A_PERSON,
    Payment,
    cancelled_error,
    expiry_error,
)
from payflow.services.confirm.ports import Background, Ports
from payflow.services.confirm.usecases.bank import complete_accepted, reject_by_bank
from payflow.services.confirm.usecases.commands import otp_payment_of
from payflow.services.confirm.usecases.saga import Ending, Saga

_NOT_SENT: Final = (
    "The payment waits for a one-time password, which could not be sent. Send the same request again with the same "
    "Idempotency-Key."
)


async def cancel_payments(*, commands: Sequence[CancelPayment], ports: Ports) -> Answers[PaymentView]:
    """Cancel on the customer's behalf, before submission. Cancelling a cancelled payment again is no error.

    Items may be PaymentNotFound, NotCancellable, PaymentInProgress, Unavailable, UnknownOutcome.
    """
    keys = [(command.customer_id, command.transaction_id) for command in commands]
    known = await ports.store.by_transaction(keys)
    return [await _alone(_cancel(known.get(key), ports)) for key in keys]


async def _alone(work: Awaitable[PaymentView | PayflowError]) -> PaymentView | PayflowError:
    """One payment's answer. What its work raises is told to nobody else; whether something was done is not known."""
    try:
        return await work
    except Unavailable as error:
        return UnknownOutcome(error.detail)
    except PayflowError as error:
        return error


async def _cancel(payment: Payment | None, ports: Ports) -> PaymentView | PayflowError:
    if payment is None:
        return PaymentNotFound()
    if payment.state is PaymentState.CANCELLED:
        return payment.view()
    if payment.state not in CANCELLABLE:
        return NotCancellable(f"A payment in state {payment.state} cannot be cancelled.")
    leased = await _take(payment, ports, states=CANCELLABLE)
    if leased is None:
        return PaymentInProgress(retry_after_s=1)
    (answer,) = await _end_unpaid([(leased, PaymentState.CANCELLED, cancelled_error())], ports)
    if isinstance(answer, PaymentView) and answer.state is not PaymentState.CANCELLED:
        return NotCancellable("The money has moved already.")
    return answer


async def send_codes(*, commands: Sequence[SendCode], ports: Ports) -> Answers[PaymentView]:
    """Have the codes of payments that wait for one sent, or show the open challenges; others are told as they stand.

    Items may be PaymentNotFound, TooManyOtps, UnknownOutcome: the payment waits on, and a repeat tries again.
    """
    known = await ports.store.by_ids([command.payment_id for command in commands])
    waiting = [payment for payment in known.values() if payment.state is PaymentState.AWAITING_OTP]
    issues = [IssueOtp(payment=otp_payment_of(one), transaction_id=one.transaction_id) for one in waiting]
    issued = (
        dict(zip((one.payment_id for one in waiting), await ports.otp.issue(issues), strict=True)) if issues else {}
    )

    def answer(command: SendCode) -> PaymentView | PayflowError:
        payment = known.get(command.payment_id)
        failure = issued.get(command.payment_id)
        if payment is None:
            return PaymentNotFound()
        if isinstance(failure, Unavailable | UnknownOutcome):
            # Not "nothing happened": the payment is stored, and only its code is missing.
            return UnknownOutcome(_NOT_SENT)
        return failure if isinstance(failure, PayflowError) else payment.view()

    return [answer(command) for command in commands]


async def decide_reviews(
    *, commands: Sequence[DecideReview], ports: Ports, background: Background
) -> Answers[PaymentView]:
    """Carry out compliance officers' decisions. A payment that is no longer under review is told as it stands.

    Items may be PaymentNotFound, PaymentInProgress, Unavailable, UnknownOutcome: the caller repeats the command.
    """
    known = await ports.store.by_ids([command.payment_id for command in commands])
    answers: Answers[PaymentView] = []
    for command in commands:
        payment = known.get(command.payment_id)
        if payment is None:
            answers.append(PaymentNotFound())
        elif payment.state is not PaymentState.UNDER_REVIEW:
            answers.append(payment.view() if payment.version > 1 else PaymentInProgress(retry_after_s=1))
        else:
            work = _decide(payment, is_cleared=command.is_cleared, ports=ports, background=background)
            answers.append(await _alone(work))
    return answers


async def _decide(
    payment: Payment, *, is_cleared: bool, ports: Ports, background: Background
) -> PaymentView | PayflowError:
    leased = await _take(payment, ports, states={PaymentState.UNDER_REVIEW})
    if leased is None:
        return PaymentInProgress(retry_after_s=1)
    if leased.has_expired(now=ports.clock.now()):
        (answer,) = await _end_unpaid([(leased, PaymentState.EXPIRED, expiry_error(leased.state))], ports)
        return answer
    if not is_cleared:
        refused = PaymentRefused("The payment was refused after review.")
        (answer,) = await _end_unpaid([(leased, PaymentState.REJECTED, refused)], ports)
        return answer
    saga = Saga(payments=[leased], codes={}, ports=ports)
    if leased.needs_otp:
        leased.await_code(now=ports.clock.now(), deadlines=ports.deadlines)
        await saga.save([leased])
        # A kindness only: the customer gets a code when the same request comes again, too.
        await send_codes(commands=[SendCode(payment_id=leased.payment_id)], ports=ports)
        return saga.problems.get(leased.payment_id) or leased.view()
    # Stored before it is acted on: the review's deadline must not expire a payment whose money has moved.
    leased.approve(now=ports.clock.now())
    await saga.save([leased])
    answers = await saga.drive()
    background.start(saga.submitted)
    return answers[leased.payment_id]


async def record_bank_answers(*, commands: Sequence[RecordBankAnswer], ports: Ports) -> Answers[PaymentView]:
    """Carry out the other banks' late answers. A payment that has ended is told as it stands.

    Items may be PaymentNotFound, PaymentInProgress, UnknownOutcome: the caller repeats the command.
    """
    known = await ports.store.by_ids([command.payment_id for command in commands])
    answers: Answers[PaymentView] = []
    for command in commands:
        payment = known.get(command.payment_id)
        if payment is None:
            answers.append(PaymentNotFound())
        elif payment.state is not PaymentState.SUBMITTED:
            answers.append(payment.view() if payment.is_final else PaymentInProgress(retry_after_s=1))
        else:
            answers.append(await _alone(_record(payment, command, ports)))
    return answers


async def _record(payment: Payment, command: RecordBankAnswer, ports: Ports) -> PaymentView | PayflowError:
    leased = await _take(payment, ports, states={PaymentState.SUBMITTED})
    if leased is None:
        return PaymentInProgress(retry_after_s=1)
    if command.is_accepted:
        await complete_accepted(payments=[leased], ports=ports)
    else:
        await reject_by_bank(payment=leased, reason_code=command.reason_code, ports=ports)
    return leased.view() if leased.is_final else PaymentInProgress(retry_after_s=1)


async def do_what_is_due(*, ports: Ports, background: Background, limit: int = 200) -> int:
    """Take over payments whose automatic next step is due, and do it; returns how many were taken.

    A payment that waited for a person, or was at work for too long, is ended; an unfinished one is driven on; a
    submitted one is enquired about. One that raises does not keep the others back; the error is raised at the end.
    """
    now = ports.clock.now()
    payments = await ports.store.lease_due(now=now, until=now + ports.deadlines.lease, limit=limit)
    try:
        await _do(payments, ports=ports, background=background)
    except Exception as error:
        for payment in await _take_again(payments, ports):
            with suppress(Exception):
                await _do([payment], ports=ports, background=background)
        raise error from None
    return len(payments)


async def _take_again(payments: Sequence[Payment], ports: Ports) -> list[Payment]:
    """The payments as they are stored, still leased to this process."""
    known = await ports.store.by_ids([payment.payment_id for payment in payments])
    tokens = {payment.payment_id: payment.fencing_token for payment in payments}
    return [one for one in known.values() if not one.is_final and one.fencing_token == tokens[one.payment_id]]


async def _do(payments: Sequence[Payment], *, ports: Ports, background: Background) -> None:
    now = ports.clock.now()
    at_the_bank = [payment for payment in payments if payment.state is PaymentState.SUBMITTED]
    unfinished, endings = [], []
    for payment in payments:
        if payment.state in WAITS_FOR_A_PERSON:
            endings.append((payment, PaymentState.EXPIRED, expiry_error(payment.state)))
        elif payment.is_overdue(now=now, deadlines=ports.deadlines):
            endings.append((payment, PaymentState.REJECTED, expiry_error(payment.state)))
        elif payment.has_missed_its_day(now=now, deadlines=ports.deadlines):
            endings.append((payment, PaymentState.EXPIRED, expiry_error(payment.state)))
        elif payment.state is not PaymentState.SUBMITTED:
            unfinished.append(payment)
    if endings:
        await _end_unpaid(endings, ports)
    if unfinished:
        saga = Saga(payments=unfinished, codes={}, ports=ports)
        await saga.drive()
        background.start(saga.submitted)
    background.start(at_the_bank)


async def _take(payment: Payment, ports: Ports, *, states: Collection[PaymentState]) -> Payment | None:
    """The payment, leased to this process, if it still is in one of these states; else nothing is done about it."""
    now = ports.clock.now()
    leased = await ports.store.lease([payment.payment_id], now=now, until=now + ports.deadlines.lease, states=states)
    return leased.get(payment.payment_id)


async def _end_unpaid(endings: Sequence[Ending], ports: Ports) -> list[PaymentView | PayflowError]:
    """End leased payments without moving money; what each is now, or why it could not be ended yet."""
    payments = [payment for payment, _, _ in endings]
    saga = Saga(payments=payments, codes={}, ports=ports)
    await saga.end_unpaid(endings)
    stuck = [payment for payment in payments if payment.payment_id in saga.problems]
    await saga.save([payment for payment in payments if payment.payment_id not in saga.problems])
    await ports.store.return_leases(stuck, due_at=ports.clock.now() + ports.deadlines.lease)
    return [saga.problems.get(payment.payment_id) or payment.view() for payment in payments]
