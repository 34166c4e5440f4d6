"""In-memory ports of confirm: its store, and the services around it with scripted answers."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from payflow.contracts.account import StaleCommand
from payflow.contracts.confirm import ListPayments, PaymentState, TransitionView
from payflow.contracts.operation import Answers
from payflow.contracts.otp import InvalidOtp, IssueOtp, OtpExpired, OtpIssued, OtpVerified, VerifyOtp
from payflow.contracts.partner_bank import (
    BankStatus,
    SubmissionStatus,
    SubmitCreditTransfer,
)
from payflow.contracts.risk import Assessed, AssessPayment, RiskLevel
from payflow.contracts.sides import PaymentSides, Side
from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.services.confirm.domain import UNFINISHED, Payment
from tests.builders import NOON, new_id
from tests.fakes_returns import FakeReturnStore

WAITING = (PaymentState.AWAITING_OTP, PaymentState.UNDER_REVIEW)


class FakeConfirmStore:
    """The confirm service's database in memory; the returns in it are kept by their own store."""

    def __init__(self, returns: FakeReturnStore | None = None) -> None:
        self._returns = returns or FakeReturnStore()
        self._payments: dict[UUID, Payment] = {}
        self._steps: dict[UUID, list[TransitionView]] = {}
        self.events: list[tuple[str, UUID, int]] = []

    async def claim(self, payments: Sequence[Payment]) -> set[UUID]:
        claimed = set()
        for payment in payments:
            taken = any(
                known.customer_id == payment.customer_id
                and (known.idempotency_key == payment.idempotency_key or known.transaction_id == payment.transaction_id)
                for known in self._payments.values()
            )
            if not taken:
                claimed.add(payment.payment_id)
                self._write(payment)
            payment.transitions.clear()
        return claimed

    async def find(self, keys: Sequence[tuple[str, str, str]]) -> list[Payment | None]:
        found: list[Payment | None] = []
        for customer, key, transaction in keys:
            own = [payment for payment in self._payments.values() if payment.customer_id == customer]
            by_key = [payment for payment in own if payment.idempotency_key == key]
            by_transaction = [payment for payment in own if payment.transaction_id == transaction]
            found.append(copy.deepcopy((by_key or by_transaction or [None])[0]))
        return found

    async def save(self, payments: Sequence[Payment], *, now: datetime) -> set[UUID]:
        saved = set()
        for payment in payments:
            if self._payments[payment.payment_id].fencing_token == payment.fencing_token:
                saved.add(payment.payment_id)
                self._write(payment)
            payment.transitions.clear()
        return saved

    async def lease(
        self,
        payment_ids: Sequence[UUID],
        *,
        now: datetime,
        until: datetime,
        states: Collection[PaymentState] = UNFINISHED,
    ) -> dict[UUID, Payment]:
        known = [id for id in payment_ids if id in self._payments and self._payments[id].state in states]
        return {id: self._lease(id, until) for id in known if self._is_free(id, now)}

    async def lease_due(self, *, now: datetime, until: datetime, limit: int) -> list[Payment]:
        due = [
            payment.payment_id
            for payment in self._payments.values()
            if payment.due_at is not None and payment.due_at <= now and self._is_free(payment.payment_id, now)
        ]
        return [self._lease(id, until) for id in due[:limit]]

    async def return_leases(self, payments: Sequence[Payment], *, due_at: datetime) -> None:
        for payment in payments:
            known = self._payments[payment.payment_id]
            if known.fencing_token == payment.fencing_token and known.due_at is not None:
                known.leased_until = None
                if known.state is PaymentState.SCHEDULED:
                    known.due_at = max(known.due_at, due_at)
                elif known.state not in WAITING:
                    known.due_at = due_at

    async def withdraw(self, payments: Sequence[Payment]) -> set[UUID]:
        gone = set()
        for payment in payments:
            known = self._payments[payment.payment_id]
            if (known.state, known.version, known.fencing_token) == (PaymentState.RECEIVED, 1, 1):
                gone.add(payment.payment_id)
                del self._payments[payment.payment_id], self._steps[payment.payment_id]
        return gone

    async def open_by_state(self) -> dict[PaymentState, tuple[int, datetime]]:
        found: dict[PaymentState, tuple[int, datetime]] = {}
        for payment in self._payments.values():
            if not payment.is_final:
                count, since = found.get(payment.state, (0, payment.waits_since))
                found[payment.state] = (count + 1, min(since, payment.waits_since))
        return found

    async def by_ids(self, payment_ids: Sequence[UUID]) -> dict[UUID, Payment]:
        return {id: copy.deepcopy(self._payments[id]) for id in payment_ids if id in self._payments}

    async def by_transaction(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Payment]:
        known = {(payment.customer_id, payment.transaction_id): payment for payment in self._payments.values()}
        return {key: copy.deepcopy(known[key]) for key in keys if key in known}

    async def page(self, query: ListPayments) -> list[Payment]:
        matching = [
            payment
            for payment in sorted(self._payments.values(), key=lambda payment: payment.payment_id, reverse=True)
            if query.customer_id in (None, payment.customer_id)
            and (query.cursor is None or payment.payment_id < query.cursor)
            and query.state in (None, payment.state)
        ]
        return copy.deepcopy(matching[: query.limit + 1])

    async def transitions(self, payment_ids: Sequence[UUID]) -> dict[UUID, list[TransitionView]]:
        return {id: list(self._steps[id]) for id in payment_ids if id in self._steps}

    async def sides(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentSides | None]:
        returned = {id: made.payment_id for id, made in (await self._returns.by_ids(payment_ids)).items()}
        booked = {**{id: id for id in payment_ids}, **returned}
        return {id: _sides(id, self._payments[of]) for id, of in booked.items() if of in self._payments}

    def _is_free(self, payment_id: UUID, now: datetime) -> bool:
        payment = self._payments[payment_id]
        return payment.due_at is not None and (payment.leased_until is None or payment.leased_until <= now)

    def _lease(self, payment_id: UUID, until: datetime) -> Payment:
        payment = self._payments[payment_id]
        payment.fencing_token += 1
        payment.leased_until = until
        if payment.state not in (*WAITING, PaymentState.SCHEDULED):
            payment.due_at = until
        return copy.deepcopy(payment)

    def _write(self, payment: Payment) -> None:
        for step in payment.transitions:
            view = TransitionView(
                version=step.version, source=step.source, target=step.target, at=step.at, reason=step.reason
            )
            self._steps.setdefault(payment.payment_id, []).append(view)
        if payment.transitions and payment.state not in (PaymentState.RECEIVED, PaymentState.APPROVED):
            self.events.append((f"payment.{payment.state.lower()}", payment.payment_id, payment.version))
        # Names are not stored with a payment.
        self._payments[payment.payment_id] = replace(copy.deepcopy(payment), transitions=[], parties=None)


def _sides(booked_as: UUID, payment: Payment) -> PaymentSides:
    name = payment.creditor.name if payment.creditor else None
    return PaymentSides(
        payment_id=booked_as,
        debtor=Side(account=payment.debtor_account),
        creditor=Side(account=payment.creditor_account, name=name, agent=payment.agent_bic),
        remittance_information=payment.remittance_information,
        transaction_id=payment.transaction_id,
        customer_id=payment.customer_id,
    )


class FakeRisk:
    """Amounts above 10,000.00 need an OTP; a party called "Listed" is a possible match; can be switched off."""

    def __init__(self) -> None:
        self.is_down = False
        self.is_silent = False
        self.crashes = False
        self.poison: UUID | None = None
        self.assessed: dict[UUID, Assessed] = {}
        # For `reassess`: what has changed since the order.
        self.unidentified: set[str] = set()
        self.newly_listed: set[UUID] = set()
        # For everybody, from now on: the lists have changed.
        self.listed_now = False

    async def assess(self, commands: list[AssessPayment]) -> Answers[Assessed]:
        if self.crashes or any(command.payment_id == self.poison for command in commands):
            raise RuntimeError("the process dies here")
        if self.is_down:
            return [Unavailable("risk is down") for _ in commands]
        if self.is_silent:
            return [UnknownOutcome("No answer came in time.") for _ in commands]
        return [self.assessed.setdefault(command.payment_id, self._assess(command)) for command in commands]

    def _assess(self, command: AssessPayment) -> Assessed:
        is_match = self.listed_now or any("Listed" in name for name in command.party_names)
        needs_otp = command.amount_minor > 1_000_000
        points = (50 if needs_otp else 0) + (100 if is_match else 0)
        return Assessed(
            payment_id=command.payment_id,
            level=RiskLevel.HIGH if points >= 50 else RiskLevel.LOW,
            points=points,
            sanctions_points=100 if is_match else 0,
            needs_otp=needs_otp,
            is_possible_sanctions_match=is_match,
            review_id=new_id() if is_match else None,
            rules_hit=[],
            rules_version=1,
            assessed_at=NOON,
        )

    async def reassess(self, commands: list[AssessPayment]) -> Answers[Assessed]:
        if self.is_down:
            return [Unavailable("risk is down") for _ in commands]
        return [self._reassess(command) for command in commands]

    def _reassess(self, command: AssessPayment) -> Assessed:
        first, again = self.assessed[command.payment_id], self._assess(command)
        needs_otp = again.needs_otp or command.customer_id in self.unidentified
        review_id = (
            first.review_id or again.review_id or (new_id() if command.payment_id in self.newly_listed else None)
        )
        return msgspec.structs.replace(again, needs_otp=needs_otp, review_id=review_id)


class FakeOtp:
    """Every challenge has the code 123456."""

    def __init__(self) -> None:
        self.is_down = False
        self.issued: list[UUID] = []
        self.used: dict[UUID, UUID] = {}

    async def issue(self, commands: list[IssueOtp]) -> Answers[OtpIssued]:
        if self.is_down:
            return [Unavailable("otp is down") for _ in commands]
        self.issued += [command.payment.payment_id for command in commands]
        issued = OtpIssued(challenge_id=new_id(), expires_at=NOON + timedelta(minutes=5), is_new=True)
        return [issued for _ in commands]

    async def verify(self, commands: list[VerifyOtp]) -> Answers[OtpVerified]:
        return [self._verify(command) for command in commands]

    def _verify(self, command: VerifyOtp) -> OtpVerified | InvalidOtp | OtpExpired:
        if command.code != "123456":
            return InvalidOtp("The one-time password is wrong.", tries_left=4)
        if self.used.setdefault(command.payment.payment_id, command.attempt_id) != command.attempt_id:
            return OtpExpired()
        return OtpVerified(challenge_id=new_id(), verified_at=NOON)


class FakeBank:
    """The other bank: answers as it is told, once per payment."""

    def __init__(self) -> None:
        self.status = BankStatus.ACCEPTED
        self.paid: dict[UUID, int] = {}
        self.sent: list[SubmitCreditTransfer] = []
        self.tokens: dict[UUID, int] = {}
        self.gate: asyncio.Event | None = None
        self.refusal: PayflowError | None = None

    async def submit(self, commands: list[SubmitCreditTransfer]) -> Answers[SubmissionStatus]:
        if self.gate is not None:
            await self.gate.wait()
        if self.refusal is not None:
            return [self.refusal for _ in commands]
        return [self._submit(command) for command in commands]

    def _submit(self, command: SubmitCreditTransfer) -> SubmissionStatus | StaleCommand:
        if command.fencing_token < self.tokens.get(command.payment_id, 0):
            return StaleCommand()
        self.tokens[command.payment_id] = command.fencing_token
        self.sent.append(command)
        if self.status is BankStatus.ACCEPTED:
            self.paid[command.payment_id] = command.amount_minor
        return SubmissionStatus(
            payment_id=command.payment_id,
            status=self.status,
            reason_code="AC04" if self.status is BankStatus.REJECTED else None,
            answered_at=NOON,
        )
