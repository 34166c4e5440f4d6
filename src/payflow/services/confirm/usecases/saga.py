"""The saga: drives a batch of leased payments from where they are to where they can rest.

Each stage asks one other service about all payments that need it, and every step is idempotent on the payment's id, so
that another process can repeat it after a crash. A transient failure leaves its payment where it is; a refusal ends it.
What cannot be derived again (a verified one-time password, a review decision, the word "submitted") is stored before
it is acted on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

from payflow.contracts.account import (
    AlreadyBooked,
    KeepHold,
    PaymentEnded,
    ResolveParties,
    StaleCommand,
)
from payflow.contracts.confirm import PaymentExpired, PaymentInProgress, PaymentState, PaymentView
from payflow.contracts.otp import VerifyOtp
from payflow.kernel.errors import PayflowError, Rejection, Unavailable, UnknownOutcome
from payflow.services.confirm.domain import (
    Payment,
    apply_assessment,
    ended_error,
    expiry_error,
    otp_attempt_of,
    refusal_on_its_day,
)
from payflow.services.confirm.ports import Ports
from payflow.services.confirm.usecases.commands import (
    assessment_of,
    hold_of,
    otp_payment_of,
    release_of,
    transfer_of,
)

Answer = PaymentView | PayflowError
# A payment, the end that it is to take, and why.
Ending = tuple[Payment, PaymentState, PayflowError]


class Saga:
    """One batch on its way. `problems` holds the payments that could not be taken further, and why."""

    def __init__(self, *, payments: Sequence[Payment], codes: Mapping[UUID, str], ports: Ports) -> None:
        self._payments = list(payments)
        self._codes = codes
        self._ports = ports
        self.problems: dict[UUID, PayflowError] = {}
        self._touched: set[UUID] = set()

    async def drive(self) -> dict[UUID, Answer]:
        """Take every payment as far as it goes without the other bank; answers by payment id.

        Payments that are to go to the other bank are left SUBMITTED and leased to this process: see `submitted`.
        """
        await self._resolve_parties()
        await asyncio.gather(self._assess(), self._use_codes(), self._wake())
        await self._book_approved()
        await self.save([payment for payment in self._payments if payment.transitions])
        await self._let_go()
        return {payment.payment_id: self._answer(payment) for payment in self._payments}

    @property
    def submitted(self) -> list[Payment]:
        """What may go to the other bank now: stored as SUBMITTED by this process, which was not overtaken."""
        return self._in_state(PaymentState.SUBMITTED)

    def _answer(self, payment: Payment) -> Answer:
        return self.problems.get(payment.payment_id) or payment.view()

    def _in_state(self, state: PaymentState) -> list[Payment]:
        return [
            payment for payment in self._payments if payment.state is state and payment.payment_id not in self.problems
        ]

    async def _resolve_parties(self) -> None:
        """Names are not stored with a payment: one that was taken over asks for them again."""
        to_be_screened = self._in_state(PaymentState.RECEIVED) + self._in_state(PaymentState.SCHEDULED)
        unresolved = [payment for payment in to_be_screened if payment.parties is None]
        if not unresolved:
            return
        queries = [
            ResolveParties(
                customer_id=payment.customer_id,
                debtor_account=payment.debtor_account,
                creditor_account=payment.creditor_account,
                creditor_agent=payment.creditor.agent if payment.creditor else None,
            )
            for payment in unresolved
        ]
        refused = []
        for payment, answer in zip(unresolved, await self._ports.account.resolve(queries), strict=True):
            if isinstance(answer, PayflowError):
                refused.append((payment, answer))
            else:
                payment.parties = answer
        await self._refuse_or_report(refused)

    async def _assess(self) -> None:
        received = self._in_state(PaymentState.RECEIVED)
        if not received:
            return
        answers = await self._ports.risk.assess([assessment_of(payment) for payment in received])
        under_review, awaiting_otp, refused = [], [], []
        for payment, answer in zip(received, answers, strict=True):
            if isinstance(answer, PayflowError):
                refused.append((payment, answer))
                continue
            apply_assessment(payment, answer)
            if answer.is_possible_sanctions_match:
                under_review.append(payment)
            elif answer.needs_otp:
                awaiting_otp.append(payment)
            else:
                payment.move(PaymentState.APPROVED, now=self._now())
        await self._refuse_or_report(refused)
        self._await_codes(awaiting_otp)
        await self._hold_for_review(under_review)

    async def _hold_for_review(self, payments: list[Payment]) -> None:
        """A possible sanctions match: the funds are held until a compliance officer has decided.

        Those of a payment for a later day are not: nothing is held before its day.
        """
        deadlines, now = self._ports.deadlines, self._now()
        expires_at = now + deadlines.review
        for payment in payments:
            if payment.is_for_later(now):
                payment.move(PaymentState.UNDER_REVIEW, now=now)
                payment.rest(until=expires_at, expires_at=expires_at)
        payments = [payment for payment in payments if payment.state is not PaymentState.UNDER_REVIEW]
        if not payments:
            return
        holds = [hold_of(payment, expires_at=expires_at + deadlines.hold_grace) for payment in payments]
        self._touch(payments)
        refused = []
        for payment, answer in zip(payments, await self._ports.account.place_hold(holds), strict=True):
            if isinstance(answer, PayflowError):
                refused.append((payment, answer))
                continue
            payment.has_hold = True
            payment.move(PaymentState.UNDER_REVIEW, now=self._now())
            payment.rest(until=expires_at, expires_at=expires_at)
        await self._refuse_or_report(refused)

    def _await_codes(self, payments: list[Payment]) -> None:
        """A high risk: the payment waits for its customer. The code is sent apart, so that nobody waits for that."""
        for payment in payments:
            payment.await_code(now=self._now(), deadlines=self._ports.deadlines)

    async def _use_codes(self) -> None:
        """Customers came back with a code: it is verified, and the word "approved" stored before it is acted on.

        Whoever comes too late is told so, also where the recovery has not ended the payment yet.
        """
        coded = [payment for payment in self._in_state(PaymentState.AWAITING_OTP) if payment.payment_id in self._codes]
        late = [payment for payment in coded if payment.has_expired(now=self._now())]
        await self.end_unpaid([(payment, PaymentState.EXPIRED, expiry_error(payment.state)) for payment in late])
        coded = [payment for payment in coded if payment.state is PaymentState.AWAITING_OTP]
        coded = [payment for payment in coded if payment.payment_id not in self.problems]
        if not coded:
            return
        commands = [self._verification_of(payment) for payment in coded]
        approved = []
        for payment, answer in zip(coded, await self._ports.otp.verify(commands), strict=True):
            if isinstance(answer, PayflowError):
                self.problems[payment.payment_id] = answer
                continue
            payment.approve(now=self._now())
            approved.append(payment)
        await self.save(approved)

    def _verification_of(self, payment: Payment) -> VerifyOtp:
        code = self._codes[payment.payment_id]
        return VerifyOtp(
            payment=otp_payment_of(payment), code=code, attempt_id=otp_attempt_of(payment.payment_id, code)
        )

    async def _wake(self) -> None:
        """Their day has come: sanctions and identification are asked again, for both may have changed since the order.

        The word "approved" is stored before it is acted on. A case that was cleared for the order stays cleared.
        """
        due = [payment for payment in self._in_state(PaymentState.SCHEDULED) if not payment.is_for_later(self._now())]
        if not due:
            return
        answers = await self._ports.risk.reassess([assessment_of(payment) for payment in due])
        under_review, approved, refused, endings = [], [], [], []
        for payment, answer in zip(due, answers, strict=True):
            if isinstance(answer, PayflowError):
                refused.append((payment, answer))
            elif answer.review_id not in (None, payment.review_id):
                payment.review_id = answer.review_id
                # Its code was given with the order: the review's decision is all that is missing.
                payment.needs_otp = False
                under_review.append(payment)
            elif (refusal := refusal_on_its_day(payment, answer)) is not None:
                endings.append((payment, PaymentState.REJECTED, refusal))
            else:
                payment.approve(now=self._now())
                approved.append(payment)
        await self._refuse_or_report(refused)
        await self.end_unpaid(endings)
        await self._hold_for_review(under_review)
        await self.save(approved)

    async def _book_approved(self) -> None:
        for payment in self._in_state(PaymentState.APPROVED):
            if payment.is_for_later(self._now()):
                payment.wait_for_its_day(now=self._now())
        approved = self._in_state(PaymentState.APPROVED)
        await asyncio.gather(
            self._transfer([payment for payment in approved if payment.is_on_us]),
            self._submit([payment for payment in approved if not payment.is_on_us] + self._in_state(PaymentState.HELD)),
        )

    async def _transfer(self, payments: list[Payment]) -> None:
        """On-us: one journal entry; a payment that has a hold takes its money from there."""
        if not payments:
            return
        commands = [transfer_of(payment) for payment in payments]
        self._touch(payments)
        refused = []
        for payment, answer in zip(payments, await self._ports.account.transfer(commands), strict=True):
            if isinstance(answer, PayflowError):
                refused.append((payment, answer))
            else:
                payment.end(PaymentState.COMPLETED, now=self._now())
        await self._refuse_or_report(refused)

    async def _submit(self, payments: list[Payment]) -> None:
        """Inter-bank: hold the funds for as long as it takes, and store the intent before anything goes out."""
        kept = [payment for payment in payments if payment.has_hold]
        keep = [KeepHold(payment_id=payment.payment_id, fencing_token=payment.fencing_token) for payment in kept]
        fresh = [payment for payment in payments if not payment.has_hold]
        self._touch(fresh)
        holds = [hold_of(payment, expires_at=None) for payment in fresh]
        kept_answers, fresh_answers = await asyncio.gather(
            self._ports.account.keep_hold(keep), self._ports.account.place_hold(holds)
        )
        refused = []
        for payment, answer in zip([*kept, *fresh], [*kept_answers, *fresh_answers], strict=True):
            if isinstance(answer, PayflowError):
                refused.append((payment, answer))
                continue
            payment.has_hold = True
            if payment.state is PaymentState.APPROVED:
                payment.move(PaymentState.HELD, now=self._now())
            payment.move(PaymentState.SUBMITTED, now=self._now())
            payment.leased_until = payment.due_at = self._now() + self._ports.deadlines.lease
        await self._refuse_or_report(refused)

    async def _refuse_or_report(self, refused: Sequence[tuple[Payment, PayflowError]]) -> None:
        """End each payment whose error is final; leave the others for a later try."""
        endings = [ending for payment, error in refused if (ending := self._ending_by(payment, error)) is not None]
        await self.end_unpaid(endings)

    def _ending_by(self, payment: Payment, error: PayflowError) -> Ending | None:
        """How the error ends the payment, if it does."""
        if isinstance(error, StaleCommand):
            self.problems[payment.payment_id] = PaymentInProgress(retry_after_s=1)
        elif isinstance(error, AlreadyBooked) and payment.is_on_us:
            payment.end_booked(now=self._now())
        elif error.code == PaymentEnded.code:
            # A cancellation, an expiry or a refusal that reached the ledger and was not stored: what it began is ended.
            return payment, PaymentState.REJECTED, ended_error(error.detail)
        elif isinstance(error, Rejection):
            return payment, PaymentState.REJECTED, error
        elif error.code == "HOLD_NOT_FOUND" and payment.has_hold:
            expired = PaymentExpired("The funds were held too long; the payment has expired.")
            return payment, PaymentState.REJECTED, expired
        else:
            self.problems[payment.payment_id] = error
        return None

    async def end_unpaid(self, endings: Sequence[Ending]) -> None:
        """End without moving money: no end state leaves funds held, or lets a late command of this payment through.

        Where account says that the money has moved already, the payment is completed instead. What was released but not
        ended (`problems`) is for a later try.
        """
        touched = [(payment, target) for payment, target, _ in endings if self._may_have_touched(payment)]
        releases = [release_of(payment, target) for payment, target in touched]
        answers = await self._ports.account.release_hold(releases) if releases else []
        released = {payment.payment_id: answer for (payment, _), answer in zip(touched, answers, strict=True)}
        for payment, target, error in endings:
            answer = released.get(payment.payment_id)
            if isinstance(answer, AlreadyBooked) and payment.is_on_us:
                payment.end_booked(now=self._now())
            elif isinstance(answer, StaleCommand):
                self.problems[payment.payment_id] = PaymentInProgress(retry_after_s=1)
            elif isinstance(answer, PayflowError):
                self.problems[payment.payment_id] = answer
            else:
                payment.has_hold = False
                payment.end(target, now=self._now(), error=error)

    def _touch(self, payments: Sequence[Payment]) -> None:
        self._touched.update(payment.payment_id for payment in payments)

    def _may_have_touched(self, payment: Payment) -> bool:
        """Whether this process, or one before it, may have sent a command about the payment to the ledger."""
        return payment.has_hold or payment.fencing_token > 1 or payment.payment_id in self._touched

    async def save(self, payments: list[Payment]) -> None:
        """Store the steps; who has lost the lease must not answer with them, nor go on."""
        if not payments:
            return
        saved = await self._ports.store.save(payments, now=self._now())
        for payment in payments:
            if payment.payment_id not in saved:
                self.problems[payment.payment_id] = PaymentInProgress(retry_after_s=1)
            elif payment.is_final:
                self._ports.endings.tell(payment.payment_id)

    async def _let_go(self) -> None:
        """Let go of payments that failed for now.

        One that nothing was done for is undone, so that "nothing happened" is true and its key is free. Any other can
        be tried again at once by a retry, and is driven on soon, or ended, by the recovery.
        """
        failed = [payment for payment in self._payments if self._failed_for_now(payment)]
        unused = [payment for payment in failed if self._is_unused(payment)]
        withdrawn = await self._ports.store.withdraw(unused)
        for payment_id in withdrawn:
            problem = self.problems[payment_id]
            # Whatever became of the question that nobody answered: of the payment nothing is left, and its key is free.
            if isinstance(problem, UnknownOutcome):
                self.problems[payment_id] = Unavailable(problem.detail)
        kept = [payment for payment in failed if payment.payment_id not in withdrawn]
        await self._ports.store.return_leases(kept, due_at=self._now() + self._ports.deadlines.lease)
        for payment in kept:
            if payment.state is not PaymentState.AWAITING_OTP:
                problem = self.problems[payment.payment_id]
                self.problems[payment.payment_id] = UnknownOutcome(problem.detail or "It is not known yet.")

    def _failed_for_now(self, payment: Payment) -> bool:
        problem = self.problems.get(payment.payment_id)
        return problem is not None and not isinstance(problem, PaymentInProgress)

    def _is_unused(self, payment: Payment) -> bool:
        return payment.state is PaymentState.RECEIVED and not self._may_have_touched(payment)

    def _now(self) -> datetime:
        return self._ports.clock.now()
