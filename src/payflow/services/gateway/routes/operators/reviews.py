"""Review cases of possible sanctions matches: compliance officers read them and clear or block the payments."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, QueryParameter

from payflow.contracts.confirm import GetPayment, PaymentNotFound
from payflow.contracts.gateway import Role
from payflow.contracts.ofac import DecideReviewCase, GetReview, ListReviews, Ofac, ReviewState, ReviewView
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.routes.answers import Payment, payment_body
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.operators.shared import Reason, as_text, open_to, read_id_cursor
from payflow.services.gateway.routes.payments import Cursor, Limit
from payflow.services.gateway.routes.security import current_user
from payflow.services.gateway.routes.services import FromServices


class Match(msgspec.Struct, kw_only=True):
    """A listed name close to a screened one, `score` 0 to 100. A name that could not be compared has no `list_name`."""

    screened_name: str
    list_name: str
    entry_id: str
    matched_name: str
    score: float
    programs: list[str]


class Review(msgspec.Struct, kw_only=True):
    """A case. Its payment waits UNDER_REVIEW with its funds held until the case is decided."""

    review_id: str
    payment_id: str
    customer_id: str
    state: ReviewState
    matches: list[Match]
    list_version: str
    opened_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    comment: str | None


class ReviewDetail(msgspec.Struct, kw_only=True):
    """A case with its payment; `payment` is null for money that came in from another bank, and for a return:
    `GET /returns/{payment_id}` tells it."""

    review: Review
    payment: Payment | None


class ReviewPage(msgspec.Struct):
    """Cases, newest first. `next_cursor` is null on the last page."""

    data: list[Review]
    next_cursor: str | None


class DecisionBody(Body):
    """`clear` lets the payment go on (it still needs its one-time password if its risk asks for one), `block` refuses
    it. The comment is kept with the case.
    """

    decision: Literal["clear", "block"]
    comment: Reason


_DECISION: Final = StrictReader(DecisionBody, required=("decision", "comment"))


@get("/reviews", guards=[open_to(Role.COMPLIANCE)], tags=["Reviews"], summary="List review cases")
async def list_reviews(
    services: FromServices,
    in_state: Annotated[ReviewState | None, QueryParameter(name="state")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ReviewPage:
    """Review cases, newest first; `state=OPEN` are those that wait for a decision."""
    query = ListReviews(state=in_state, cursor=read_id_cursor(cursor), limit=limit)
    page = first(await services.client(Ofac).list_reviews([query]))
    return ReviewPage(data=[_review(view) for view in page.reviews], next_cursor=as_text(page.next_cursor))


@get(
    "/reviews/{review_id:uuid}",
    guards=[open_to(Role.COMPLIANCE)],
    tags=["Reviews"],
    summary="Look at a review case",
    opt={"errors": ("REVIEW_NOT_FOUND",)},
)
async def get_review(services: FromServices, review_id: FromPath[UUID]) -> ReviewDetail:
    """A case with its payment."""
    view = first(await services.client(Ofac).get_reviews([GetReview(review_id=review_id)]))
    (payment,) = await services.confirm.get([GetPayment(transaction_id=str(view.payment_id), customer_id=None)])
    if isinstance(payment, PaymentNotFound):
        return ReviewDetail(review=_review(view), payment=None)
    return ReviewDetail(review=_review(view), payment=payment_body(first([payment])))


@post(
    "/reviews/{review_id:uuid}/decision",
    status_code=200,
    guards=[open_to(Role.COMPLIANCE)],
    tags=["Reviews"],
    summary="Decide a review case",
    opt={"body": DecisionBody, "errors": ("REVIEW_NOT_FOUND", "REVIEW_OWN_PAYMENT", "REVIEW_ALREADY_DECIDED")},
)
async def decide_review(request: AnyRequest, services: FromServices, review_id: FromPath[UUID]) -> Review:
    """Clear or block, once: the same decision again answers the case, another one is REVIEW_ALREADY_DECIDED. Nobody
    decides about a payment of their own.
    """
    body = await read_json(request, _DECISION)
    officer = current_user(request.scope)
    command = DecideReviewCase(
        review_id=review_id,
        is_cleared=body.decision == "clear",
        decided_by=officer.username,
        comment=body.comment,
        officer_customer_id=officer.customer_id,
    )
    return _review(first(await services.client(Ofac).decide([command])))


def _review(view: ReviewView) -> Review:
    return Review(
        review_id=str(view.review_id),
        payment_id=str(view.payment_id),
        customer_id=view.customer_id,
        state=view.state,
        matches=msgspec.convert(view.matches, list[Match], from_attributes=True),
        list_version=view.list_version,
        opened_at=view.opened_at,
        decided_at=view.decided_at,
        decided_by=view.decided_by,
        comment=view.comment,
    )


HANDLERS = [list_reviews, get_review, decide_review]
