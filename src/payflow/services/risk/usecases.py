"""What the risk service does: assess payments, show assessments, take refused payments out of the count."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.kyc import CheckCustomer, CustomerChecked
from payflow.contracts.ofac import Screened, ScreeningOutcome, ScreenPayment
from payflow.contracts.operation import Answers
from payflow.contracts.risk import (
    Assessed,
    AssessmentDetail,
    AssessmentMismatch,
    AssessmentNotFound,
    AssessPayment,
    GetAssessment,
    NothingToScreen,
)
from payflow.contracts.topics import PaymentChanged, ReturnChanged
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.services.risk.domain import Assessment, ExpectedCounts, RuleSet, Screening
from payflow.services.risk.ports import Corrections, CustomerChecks, SanctionsScreening, Store
from payflow.services.risk.rules.evaluate import assess_again, assess_in_order

# A payment that ended one of these ways did not happen, and does not count towards the customer's velocity.
REFUSED: Final = frozenset({"payment.rejected", "payment.cancelled", "payment.expired"})
# A return is assessed like a payment, but the bank has ordered it: it says nothing of how often its customer pays.
RETURNS: Final = frozenset({"return.under_review", "return.completed", "return.rejected", "return.expired"})


async def assess(
    *,
    commands: Sequence[AssessPayment],
    store: Store,
    sanctions: SanctionsScreening,
    customers: CustomerChecks,
    rules: RuleSet,
    counts: ExpectedCounts,
    now: datetime,
) -> Answers[Assessed]:
    """Points, level and what follows, for exactly the amount and accounts of each command.

    Safe to repeat: a payment is assessed once, and a repeat gets the stored assessment, also while ofac or kyc do not
    answer. Items may be Unavailable (ofac or kyc did not decide: nothing is stored, and nothing is allowed),
    NothingToScreen, or AssessmentMismatch (the payment was assessed for other contents).
    Raises Unavailable when the store cannot be reached.
    """
    by_payment: dict[UUID, AssessPayment] = {}
    for command in commands:
        by_payment.setdefault(command.payment_id, command)
    screenings, errors = await _screen(list(by_payment.values()), sanctions=sanctions, customers=customers)
    batch = _Batch(screenings=screenings, store=store, rules=rules, now=now)
    known = {} if errors else await batch.decide_at_once(list(by_payment.values()), counts=counts)
    if not known:
        known = await store.find(list(by_payment))
        fresh = [command for id, command in by_payment.items() if id not in known and id in screenings]
        known |= await batch.decide(fresh)

    def answer(command: AssessPayment) -> Assessed | PayflowError:
        assessment = known.get(command.payment_id)
        if assessment is None:
            return errors[command.payment_id]
        return assessment.as_answer() if assessment.is_for(command) else AssessmentMismatch()

    return [answer(command) for command in commands]


async def reassess(
    *,
    commands: Sequence[AssessPayment],
    store: Store,
    sanctions: SanctionsScreening,
    customers: CustomerChecks,
    rules: RuleSet,
    now: datetime,
) -> Answers[Assessed]:
    """What the rules make of a payment that was assessed before, with sanctions and identification asked anew.

    For payments that were ordered long before they are made. Nothing is stored and nothing counted a second time: the
    stored assessment stays the one that the order was accepted with. Items may be AssessmentNotFound,
    AssessmentMismatch, NothingToScreen and Unavailable, as in `assess`.
    """
    known = await store.find([command.payment_id for command in commands])
    screenings, errors = await _screen(commands, sanctions=sanctions, customers=customers)

    def answer(command: AssessPayment) -> Assessed | PayflowError:
        assessment = known.get(command.payment_id)
        if assessment is None:
            return AssessmentNotFound()
        if not assessment.is_for(command):
            return AssessmentMismatch()
        if command.payment_id in errors:
            return errors[command.payment_id]
        return assess_again(assessment, screenings[command.payment_id], rules=rules, now=now).as_answer()

    return [answer(command) for command in commands]


async def _screen(
    commands: Sequence[AssessPayment], *, sanctions: SanctionsScreening, customers: CustomerChecks
) -> tuple[dict[UUID, Screening], dict[UUID, PayflowError]]:
    """Ask ofac and kyc side by side, outside any database transaction: what they decided, and what they did not."""
    screenings: dict[UUID, Screening] = {}
    errors: dict[UUID, PayflowError] = {
        command.payment_id: NothingToScreen() for command in commands if not _has_names(command)
    }
    asked = [command for command in commands if command.payment_id not in errors]
    if not asked:
        return screenings, errors
    customer_ids = sorted({command.customer_id for command in asked})
    screened, checked = await asyncio.gather(
        sanctions.screen([_screening_of(command) for command in asked]),
        customers.check([CheckCustomer(customer_id=customer_id) for customer_id in customer_ids]),
    )
    standing = dict(zip(customer_ids, checked, strict=True))
    for command, answer in zip(asked, screened, strict=True):
        combined = _combine(answer, standing[command.customer_id])
        if isinstance(combined, Screening):
            screenings[command.payment_id] = combined
        else:
            errors[command.payment_id] = combined
    return screenings, errors


def _has_names(command: AssessPayment) -> bool:
    return any(name.strip() for name in command.party_names)


def _screening_of(command: AssessPayment) -> ScreenPayment:
    return ScreenPayment(
        payment_id=command.payment_id,
        customer_id=command.customer_id,
        names=command.party_names,
        country=command.creditor_country,
    )


def _combine(screened: Screened | PayflowError, checked: CustomerChecked | PayflowError) -> Screening | PayflowError:
    if isinstance(screened, PayflowError):
        return _undecided("Sanctions screening", screened)
    if isinstance(checked, PayflowError):
        return _undecided("The customer check", checked)
    return Screening(
        is_possible_sanctions_match=screened.outcome is not ScreeningOutcome.CLEAR,
        review_id=screened.review_id,
        list_version=screened.list_version,
        is_kyc_verified=checked.is_verified,
    )


def _undecided(what: str, error: PayflowError) -> Unavailable:
    """Whatever kept a check from deciding, nothing has happened to the payment, and asking again is right."""
    return error if isinstance(error, Unavailable) else Unavailable(f"{what} gave no decision ({error.code}).")


@dataclass(frozen=True, slots=True)
class _Batch:
    """What a batch is decided with, once its payments have been screened."""

    screenings: Mapping[UUID, Screening]
    store: Store
    rules: RuleSet
    now: datetime

    async def decide_at_once(
        self, commands: Sequence[AssessPayment], *, counts: ExpectedCounts
    ) -> dict[UUID, Assessment]:
        """Assess with the counts that this process expects, in one call of the store, which refuses wrong ones.

        Empty when that was not possible: a payment was assessed before, or others keep paying meanwhile.
        """
        customer_ids = {command.customer_id for command in commands}
        for _ in range(2):
            expected = counts.of(customer_ids)
            assessments = self._assess(commands, earlier=expected)
            try:
                differing = await self.store.save_if_counted(
                    assessments, expected=expected, since=self._since, at_most=self.rules.velocity_payments_max
                )
            except Unavailable:
                break
            counts.learn(differing)
            if not differing:
                counts.add(command.customer_id for command in commands)
                return {assessment.payment_id: assessment for assessment in assessments}
        return {}

    async def decide(self, commands: Sequence[AssessPayment]) -> dict[UUID, Assessment]:
        """Assess with the customers locked: always possible, at the cost of a transaction."""
        if not commands:
            return {}
        async with self.store.transaction() as transaction:
            earlier = await transaction.count_recent(
                customer_ids=sorted({command.customer_id for command in commands}),
                since=self._since,
                at_most=self.rules.velocity_payments_max,
            )
            assessments = self._assess(commands, earlier=earlier)
            await transaction.save(assessments)
        return {assessment.payment_id: assessment for assessment in assessments}

    @property
    def _since(self) -> datetime:
        return self.now - self.rules.velocity_window

    def _assess(self, commands: Sequence[AssessPayment], *, earlier: Mapping[str, int]) -> list[Assessment]:
        return assess_in_order(
            commands=commands,
            screenings=[self.screenings[command.payment_id] for command in commands],
            earlier=earlier,
            rules=self.rules,
            now=self.now,
        )


async def get_assessments(*, queries: Sequence[GetAssessment], store: Store) -> Answers[AssessmentDetail]:
    """Stored assessments with their facts. Items may be AssessmentNotFound."""
    known = await store.find([query.payment_id for query in queries])
    return [
        known[query.payment_id].as_detail() if query.payment_id in known else AssessmentNotFound() for query in queries
    ]


async def take_out_refused(*, events: Sequence[Event], corrections: Corrections) -> None:
    """Take payments that were refused, cancelled or expired, and returns, out of their customers' count.

    A repeat changes nothing.
    """
    refused = [msgspec.convert(event.data, PaymentChanged).payment_id for event in events if event.type in REFUSED]
    returns = [msgspec.convert(event.data, ReturnChanged).return_id for event in events if event.type in RETURNS]
    if refused or returns:
        await corrections.stop_counting(refused + returns)
