"""Everybody's payments, for the bank's own people, with their history and what their risk was decided on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get
from litestar.params import FromPath, QueryParameter

from payflow.contracts.confirm import GetPayment, ListPayments, PaymentState, TransitionView
from payflow.contracts.gateway import Role
from payflow.contracts.risk import AssessmentDetail, AssessmentNotFound, GetAssessment, Risk, RiskLevel
from payflow.services.gateway.routes.answers import Payment, payment_body
from payflow.services.gateway.routes.bodies import AnyRequest, first
from payflow.services.gateway.routes.operators.shared import QueryText, as_text, open_to, read_id_cursor
from payflow.services.gateway.routes.payments import Cursor, Limit, PaymentList
from payflow.services.gateway.routes.security import freshness_name
from payflow.services.gateway.routes.services import FromServices

_BACK_OFFICE = open_to(Role.OPERATOR, Role.COMPLIANCE, Role.AUDITOR)


class PaymentStep(msgspec.Struct, kw_only=True):
    """One step of a payment's life; `source` is null for the first."""

    version: int
    source: PaymentState | None
    target: PaymentState
    at: datetime
    reason: str | None


class RiskAssessment(msgspec.Struct, kw_only=True):
    """Points, the rules they came from, and the facts that were known then. `review_id`: the case that was opened."""

    level: RiskLevel
    points: int
    sanctions_points: int
    needs_otp: bool
    is_possible_sanctions_match: bool
    review_id: str | None
    rules_hit: list[str]
    rules_version: int
    payments_last_24h: int
    is_kyc_verified: bool
    sanctions_list_version: str
    assessed_at: datetime


class PaymentDetail(msgspec.Struct, kw_only=True):
    """A payment, its steps in order, and its assessment, null where none was made."""

    payment: Payment
    history: list[PaymentStep]
    risk: RiskAssessment | None


@get("/operator/payments", guards=[_BACK_OFFICE], tags=["Back office"], summary="List all payments")
async def list_all_payments(
    request: AnyRequest,
    services: FromServices,
    customer_id: QueryText = None,
    in_state: Annotated[PaymentState | None, QueryParameter(name="state")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> PaymentList:
    """Payments of all customers, or of one, newest first."""
    query = ListPayments(
        customer_id=customer_id,
        cursor=read_id_cursor(cursor),
        limit=limit,
        state=in_state,
        fresh_as_of=await services.freshness.fresh_as_of(freshness_name(request.scope)),
    )
    page = first(await services.confirm.list_payments([query]))
    return PaymentList(data=[payment_body(payment) for payment in page.payments], next_cursor=as_text(page.next_cursor))


@get(
    "/operator/payments/{payment_id:uuid}",
    guards=[_BACK_OFFICE],
    tags=["Back office"],
    summary="Look at any payment",
    opt={"errors": ("PAYMENT_NOT_FOUND",)},
)
async def get_any_payment(services: FromServices, payment_id: FromPath[UUID]) -> PaymentDetail:
    """One payment by its `payment_id`, with its history and its risk assessment."""
    query = GetPayment(transaction_id=str(payment_id), customer_id=None)
    history = first(await services.confirm.history([query]))
    (assessment,) = await services.client(Risk).get_assessments([GetAssessment(payment_id=payment_id)])
    return PaymentDetail(
        payment=payment_body(history.payment),
        history=[_step(step) for step in history.transitions],
        risk=None if isinstance(assessment, AssessmentNotFound) else _assessment(first([assessment])),
    )


def _step(step: TransitionView) -> PaymentStep:
    return msgspec.convert(step, PaymentStep, from_attributes=True)


def _assessment(detail: AssessmentDetail) -> RiskAssessment:
    assessed = detail.assessment
    return RiskAssessment(
        level=assessed.level,
        points=assessed.points,
        sanctions_points=assessed.sanctions_points,
        needs_otp=assessed.needs_otp,
        is_possible_sanctions_match=assessed.is_possible_sanctions_match,
        review_id=as_text(assessed.review_id),
        rules_hit=assessed.rules_hit,
        rules_version=assessed.rules_version,
        payments_last_24h=detail.payments_last_24h,
        is_kyc_verified=detail.is_kyc_verified,
        sanctions_list_version=detail.sanctions_list_version,
        assessed_at=assessed.assessed_at,
    )


HANDLERS = [list_all_payments, get_any_payment]
