"""Taking customers' requests: a new payment is stored and driven on, a repeat is answered from the store."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from payflow.contracts.account import AccountNotYours, ResolveParties
from payflow.contracts.confirm import ConfirmPayment, PaymentInProgress, PaymentState, PaymentView
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError, Rejection, Unavailable, UnknownOutcome
from payflow.services.confirm.domain import Payment, answer_to_repeat, receive
from payflow.services.confirm.ports import Background, Ports
from payflow.services.confirm.usecases.saga import Answer, Saga

# A repeat of such a payment is told how it stands; nothing is to be done for it.
_RESTING = frozenset({PaymentState.UNDER_REVIEW, PaymentState.SCHEDULED, PaymentState.SUBMITTED})


def _rests(payment: Payment, command: ConfirmPayment) -> bool:
    is_waiting_for_code = payment.state is PaymentState.AWAITING_OTP and command.otp is None
    return payment.is_final or payment.state in _RESTING or is_waiting_for_code


async def confirm_payments(
    *, commands: Sequence[ConfirmPayment], ports: Ports, background: Background
) -> Answers[PaymentView]:
    """Take each request to an answer: an end state, a rest state, or an error.

    Items may be AccountNotYours and Unavailable (nothing is stored, the key is free), UnknownOutcome (a repeat tells),
    InvalidOtp, OtpExpired, KeyReused, TransactionExists, PaymentInProgress. A refused payment is a PaymentView in state
    REJECTED with its `error_code`: the key's final answer. Codes are sent apart, by `send_codes`.
    """
    answers: list[Answer | None] = [None] * len(commands)
    parties = await ports.account.resolve([_resolution_of(command) for command in commands])
    payments: dict[int, Payment] = {}
    for index, (command, resolved) in enumerate(zip(commands, parties, strict=True)):
        if isinstance(resolved, PayflowError) and _ends_unstored(resolved):
            answers[index] = resolved
        else:
            payments[index] = receive(
                command,
                payment_id=ports.ids.new(),
                parties=resolved,
                now=ports.clock.now(),
                deadlines=ports.deadlines,
            )
    claimed = await ports.store.claim(list(payments.values())) if payments else set[UUID]()
    fresh = {index: payment for index, payment in payments.items() if payment.payment_id in claimed}
    repeats = [index for index in payments if index not in fresh]
    try:
        taken_over = await _answer_repeats(commands=commands, repeats=repeats, answers=answers, ports=ports)
    except PayflowError as error:
        # The database cannot tell about the repeats; what was claimed beside them goes on.
        taken_over = {}
        for index in repeats:
            answers[index] = error
    reached = await _drive(fresh=fresh, taken_over=taken_over, commands=commands, ports=ports, background=background)
    for index, answer in reached.items():
        answers[index] = answer
    return [answer if answer is not None else PaymentInProgress(retry_after_s=1) for answer in answers]


async def _drive(
    *,
    fresh: dict[int, Payment],
    taken_over: dict[int, Payment],
    commands: Sequence[ConfirmPayment],
    ports: Ports,
    background: Background,
) -> dict[int, Answer]:
    """Take the stored payments as far as they go; answers by the index of their command. Raises UnknownOutcome."""
    driven = {**fresh, **taken_over}
    codes = {
        payment.payment_id: code for index, payment in taken_over.items() if (code := commands[index].otp) is not None
    }
    unfinished = [payment for payment in driven.values() if not payment.is_final]
    saga = Saga(payments=unfinished, codes=codes, ports=ports)
    try:
        reached = await saga.drive() if unfinished else {}
    except Unavailable as error:
        # They are stored, and will be driven on by the recovery: "nothing has happened" would not be true.
        raise UnknownOutcome(error.detail) from error
    background.start(saga.submitted)
    return {index: reached.get(payment.payment_id) or payment.view() for index, payment in driven.items()}


def _ends_unstored(error: PayflowError) -> bool:
    """Whether the request ends here, unstored: not the customer's account (403), or nobody could tell (503)."""
    return isinstance(error, AccountNotYours) or not isinstance(error, Rejection)


async def _answer_repeats(
    *, commands: Sequence[ConfirmPayment], repeats: Sequence[int], answers: list[Answer | None], ports: Ports
) -> dict[int, Payment]:
    """Answer requests whose key or transaction_id is known; returns the payments to be driven on, leased to us."""
    if not repeats:
        return {}
    keys = [
        (commands[index].customer_id, commands[index].idempotency_key, commands[index].transaction_id)
        for index in repeats
    ]
    resumable: dict[int, UUID] = {}
    for index, payment in zip(repeats, await ports.store.find(keys), strict=True):
        if payment is None:
            continue
        error = answer_to_repeat(payment, commands[index], now=ports.clock.now())
        if error is not None:
            answers[index] = error
        elif _rests(payment, commands[index]):
            answers[index] = payment.view()
        else:
            resumable[index] = payment.payment_id
    now = ports.clock.now()
    leased = await ports.store.lease(sorted(set(resumable.values())), now=now, until=now + ports.deadlines.lease)
    # Of several requests for one payment in a batch the first goes on with it; the others are told that it is at work.
    return {index: leased.pop(id) for index, id in resumable.items() if id in leased}


def _resolution_of(command: ConfirmPayment) -> ResolveParties:
    return ResolveParties(
        customer_id=command.customer_id,
        debtor_account=command.debtor_account,
        creditor_account=command.creditor_account,
        creditor_agent=command.creditor.agent if command.creditor else None,
    )
