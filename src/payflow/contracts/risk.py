"""The risk service: points, level and the facts they came from, for exactly one amount and payee."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Conflict, Rejection


class RiskLevel(StrEnum):
    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"


class AssessmentNotFound(Rejection):
    """The payment has no assessment."""

    code = "ASSESSMENT_NOT_FOUND"


class AssessmentMismatch(Conflict):
    """The payment was assessed for another amount, currency, customer or account: that assessment proves nothing."""

    code = "ASSESSMENT_MISMATCH"


class NothingToScreen(Rejection):
    """The command carries no party name: an unscreened payment must not look like a clear one."""

    code = "NOTHING_TO_SCREEN"


class AssessPayment(msgspec.Struct, frozen=True, kw_only=True):
    """`party_names` are all names to screen: the debtor's, the creditor's owner's, and the creditor's as given.

    `debtor` and `creditor` identify the accounts (number, or number and BIC) that the assessment is for.
    """

    payment_id: UUID
    customer_id: str
    amount_minor: int
    currency: str
    debtor: str
    creditor: str
    party_names: list[str]
    creditor_country: str | None = None


class Assessed(msgspec.Struct, frozen=True, kw_only=True):
    """`points` is the sum over the rules that hit; `sanctions_points` is the part of it from the sanctions match.

    `needs_otp`: the points apart from the sanctions match reach the HIGH threshold. `review_id` names the case when
    `is_possible_sanctions_match`. A repeat for the same payment gets the stored assessment.
    """

    payment_id: UUID
    level: RiskLevel
    points: int
    sanctions_points: int
    needs_otp: bool
    is_possible_sanctions_match: bool
    review_id: UUID | None
    rules_hit: list[str]
    rules_version: int
    assessed_at: datetime


class GetAssessment(msgspec.Struct, frozen=True, kw_only=True):
    payment_id: UUID


class AssessmentDetail(msgspec.Struct, frozen=True, kw_only=True):
    """The stored assessment with the facts it was decided on (for operators and the audit)."""

    assessment: Assessed
    customer_id: str
    amount_minor: int
    currency: str
    payments_last_24h: int
    is_kyc_verified: bool
    sanctions_list_version: str


_TELLS: Final = (
    "level",
    "points",
    "sanctions_points",
    "rules_hit",
    "rules_version",
    "needs_otp",
    "is_possible_sanctions_match",
    "review_id",
)
_KEEPS: Final = {"is_possible_sanctions_match": frozenset({True})}


class Risk(Protocol):
    """Operations of the risk service."""

    service: ClassVar[str] = "risk"

    @operation(callers={"confirm"}, tells=_TELLS, keeps=_KEEPS)
    async def assess(self, commands: list[AssessPayment]) -> Answers[Assessed]: ...

    @operation(callers={"confirm"}, tells=_TELLS, keeps=_KEEPS)
    async def reassess(self, commands: list[AssessPayment]) -> Answers[Assessed]: ...

    @operation(callers={"gateway", "cli"})
    async def get_assessments(self, queries: list[GetAssessment]) -> Answers[AssessmentDetail]: ...
