"""Inter-bank payments after submission: the other bank's word, and what follows from it. It is never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from payflow.contracts.account import CaptureHold, GetCustomer
from payflow.contracts.confirm import PaymentRefused, PaymentState
from payflow.contracts.partner_bank import BankStatus, SubmitCreditTransfer
from payflow.contracts.problems import bank_refusal
from payflow.kernel.errors import PayflowError, Rejection
from payflow.services.confirm.domain import Payment, end_to_end_id_of
from payflow.services.confirm.ports import Ports
from payflow.services.confirm.usecases.saga import Ending, Saga


async def settle_submitted(*, payments: Sequence[Payment], ports: Ports) -> None:
    """Send leased SUBMITTED payments to their banks (a repeat enquires) and book what the banks say.

    Without a word the payment rests, its funds held, until the bank's late answer or the next enquiry.
    """
    names = await _debtor_names(payments, ports)
    ready = [payment for payment in payments if payment.payment_id in names]
    instructions = [_instruction_of(payment, debtor_name=names[payment.payment_id]) for payment in ready]
    answers = await ports.bank.submit(instructions) if ready else []
    accepted, endings = [], []
    for payment, answer in zip(ready, answers, strict=True):
        if isinstance(answer, Rejection):
            # Refused before anything was sent: no bank has heard of this payment.
            endings.append((payment, PaymentState.REJECTED, answer))
        elif isinstance(answer, PayflowError) or answer.status is BankStatus.UNKNOWN:
            await _rest(payment, ports)
        elif answer.status is BankStatus.ACCEPTED:
            accepted.append(payment)
        else:
            endings.append((payment, PaymentState.REJECTED, _refused_by_bank(answer.reason_code)))
    await _end_unpaid(endings, ports)
    await complete_accepted(payments=accepted, ports=ports)


async def complete_accepted(*, payments: Sequence[Payment], ports: Ports) -> None:
    """The banks have taken the money: book the holds to their nostro accounts and end the payments."""
    if not payments:
        return
    commands = [
        CaptureHold(
            payment_id=payment.payment_id, fencing_token=payment.fencing_token, agent_bic=payment.agent_bic or ""
        )
        for payment in payments
    ]
    completed = []
    for payment, answer in zip(payments, await ports.account.capture_hold(commands), strict=True):
        if isinstance(answer, PayflowError):
            await _rest(payment, ports)
            continue
        payment.has_hold = False
        payment.end(PaymentState.COMPLETED, now=ports.clock.now())
        completed.append(payment)
    await _save(completed, ports)


async def reject_by_bank(*, payment: Payment, reason_code: str | None, ports: Ports) -> None:
    """The bank has refused: release the hold and end the payment."""
    await _end_unpaid([(payment, PaymentState.REJECTED, _refused_by_bank(reason_code))], ports)


def _refused_by_bank(reason_code: str | None) -> PaymentRefused:
    return PaymentRefused(bank_refusal(reason_code))


async def _end_unpaid(endings: Sequence[Ending], ports: Ports) -> None:
    saga = Saga(payments=[payment for payment, _, _ in endings], codes={}, ports=ports)
    await saga.end_unpaid(endings)
    for payment, _, _ in endings:
        if payment.payment_id in saga.problems:
            await _rest(payment, ports)
    await _save([payment for payment, _, _ in endings if payment.payment_id not in saga.problems], ports)


async def _save(payments: Sequence[Payment], ports: Ports) -> None:
    saved = await ports.store.save(payments, now=ports.clock.now()) if payments else set()
    for payment_id in saved:
        ports.endings.tell(payment_id)


async def _rest(payment: Payment, ports: Ports) -> None:
    await ports.store.return_leases([payment], due_at=ports.clock.now() + ports.deadlines.bank_enquiry)


async def _debtor_names(payments: Sequence[Payment], ports: Ports) -> dict[UUID, str]:
    """The debtors' names by payment id; payments without one rest until account can be asked again.

    One that was taken over asks for its customer, not for both sides: whether its creditor can still be reached is
    decided where it is sent, under its fencing token. Refused here, nobody could tell whether it was sent before.
    """
    names = {one.payment_id: one.parties.debtor.name for one in payments if one.parties is not None}
    nameless = [payment for payment in payments if payment.payment_id not in names]
    queries = [GetCustomer(customer_id=payment.customer_id) for payment in nameless]
    answers = await ports.account.get_customers(queries) if queries else []
    for payment, answer in zip(nameless, answers, strict=True):
        if isinstance(answer, PayflowError):
            await _rest(payment, ports)
        else:
            names[payment.payment_id] = answer.name
    return names


def _instruction_of(payment: Payment, *, debtor_name: str) -> SubmitCreditTransfer:
    return SubmitCreditTransfer(
        payment_id=payment.payment_id,
        fencing_token=payment.fencing_token,
        end_to_end_id=end_to_end_id_of(payment.payment_id),
        amount_minor=payment.money.minor_units,
        currency=payment.money.currency,
        debtor_name=debtor_name,
        debtor_account=payment.debtor_account,
        creditor_name=payment.creditor.name if payment.creditor else None,
        creditor_account=payment.creditor_account,
        creditor_agent=payment.agent_bic or "",
        remittance_information=payment.remittance_information,
    )
