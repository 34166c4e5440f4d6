"""Inter-bank payments after submission: the other bank's word, and what follows from it. It is never guessed."""

from __future__ import annotations

from collections.abc import Sequence

from payflow.contracts.account import CaptureHold, ResolveParties
from payflow.contracts.confirm import PaymentRefused, PaymentState
from payflow.contracts.partner_bank import BankStatus, SubmitCreditTransfer
from payflow.kernel.errors import PayflowError, Rejection
from payflow.services.confirm.domain import Payment, end_to_end_id_of
from payflow.services.confirm.ports import Ports
from payflow.services.confirm.usecases.saga import Ending, Saga


async def settle_submitted(*, payments: Sequence[Payment], ports: Ports) -> None:
    """Send leased SUBMITTED payments to their banks (a repeat enquires) and book what the banks say.

    Without a word the payment rests, its funds held, until the bank's late answer or the next enquiry.
    """
    ready = await _with_names(payments, ports)
    answers = await ports.bank.submit([_instruction_of(payment) for payment in ready]) if ready else []
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
    return PaymentRefused(f"The other bank refused the payment ({reason_code or 'no reason given'}).")


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


async def _with_names(payments: Sequence[Payment], ports: Ports) -> list[Payment]:
    """The payments whose debtor's name is known; the others rest until account can be asked again."""
    unresolved = [payment for payment in payments if payment.parties is None]
    queries = [
        ResolveParties(
            customer_id=payment.customer_id,
            debtor_account=payment.debtor_account,
            creditor_account=payment.creditor_account,
            creditor_agent=payment.creditor.agent if payment.creditor else None,
        )
        for payment in unresolved
    ]
    for payment, answer in zip(unresolved, await ports.account.resolve(queries) if queries else [], strict=True):
        if isinstance(answer, PayflowError):
            await _rest(payment, ports)
        else:
            payment.parties = answer
    return [payment for payment in payments if payment.parties is not None]


def _instruction_of(payment: Payment) -> SubmitCreditTransfer:
    if payment.parties is None:
        raise ValueError("the payment's parties are not resolved")
    return SubmitCreditTransfer(
        payment_id=payment.payment_id,
        fencing_token=payment.fencing_token,
        end_to_end_id=end_to_end_id_of(payment.payment_id),
        amount_minor=payment.money.minor_units,
        currency=payment.money.currency,
        debtor_name=payment.parties.debtor.name,
        debtor_account=payment.debtor_account,
        creditor_name=payment.creditor.name if payment.creditor else None,
        creditor_account=payment.creditor_account,
        creditor_agent=payment.agent_bic or "",
        remittance_information=payment.remittance_information,
    )
