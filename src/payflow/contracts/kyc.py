"""The kyc service: who a customer was shown to be, when, and how well."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Conflict, Rejection


class VerificationState(StrEnum):
    UNVERIFIED = "UNVERIFIED"
    PENDING = "PENDING"
    VERIFIED = "VERIFIED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"


class VerificationLevel(StrEnum):
    NONE = "NONE"
    BASIC = "BASIC"
    FULL = "FULL"


class VerificationNotFound(Rejection):
    """The customer has no verification record."""

    code = "VERIFICATION_NOT_FOUND"


class InvalidVerification(Rejection):
    """The record contradicts itself: VERIFIED without a level, expired when made, or without a reason."""

    code = "INVALID_VERIFICATION"


class VerificationCommandReused(Conflict):
    """The command id was used for another record."""

    code = "COMMAND_ID_REUSED"


class CheckCustomer(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str


class CustomerChecked(msgspec.Struct, frozen=True, kw_only=True):
    """A customer without any record is UNVERIFIED, not an error."""

    is_verified: bool
    state: VerificationState
    level: VerificationLevel
    verified_at: datetime | None
    expires_at: datetime | None


class RecordVerification(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's or a provider's decision. The command id makes a repeat harmless."""

    command_id: UUID
    customer_id: str
    state: VerificationState
    level: VerificationLevel
    reason: str
    recorded_by: str
    expires_at: datetime | None = None


class VerificationChange(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    state: VerificationState
    level: VerificationLevel
    reason: str
    recorded_by: str
    recorded_at: datetime
    expires_at: datetime | None


class VerificationHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The present state first, then every change, newest first."""

    customer_id: str
    current: CustomerChecked
    changes: list[VerificationChange]


class Kyc(Protocol):
    """Operations of the kyc service."""

    service: ClassVar[str] = "kyc"

    @operation(callers={"risk", "partner_bank"}, tells=("is_verified", "state", "level"))
    async def check(self, queries: list[CheckCustomer]) -> Answers[CustomerChecked]: ...

    @operation(callers={"gateway", "cli"})
    async def record(self, commands: list[RecordVerification]) -> Answers[VerificationHistory]: ...

    @operation(callers={"gateway", "cli"})
    async def history(self, queries: list[CheckCustomer]) -> Answers[VerificationHistory]: ...
