"""The otp service: one-time passwords bound to one payment's amount and parties (PSD2 RTS dynamic linking)."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Rejection


class InvalidOtp(Rejection):
    """The code is wrong; `tries_left` tells how many are left."""

    code = "INVALID_OTP"


class OtpExpired(Rejection):
    """The code is too old, void, or out of tries; ask for the payment again without `otp` to get a new one."""

    code = "OTP_EXPIRED"


class TooManyOtps(Rejection):
    """Too many codes were asked for; `retry_after_s` tells when the next may be."""

    code = "TOO_MANY_OTPS"


class OtpPayment(msgspec.Struct, frozen=True, kw_only=True):
    """What a code is bound to: change any of it and the code is void."""

    payment_id: UUID
    customer_id: str
    amount_minor: int
    currency: str
    debtor: str
    creditor: str


class IssueOtp(msgspec.Struct, frozen=True, kw_only=True):
    """Issue a code and hand it to notification, or show the open challenge if there is one."""

    payment: OtpPayment
    transaction_id: str


class OtpIssued(msgspec.Struct, frozen=True, kw_only=True):
    challenge_id: UUID
    expires_at: datetime
    is_new: bool


class VerifyOtp(msgspec.Struct, frozen=True, kw_only=True):
    """Check a code. One success per challenge; a repeat of the same success for the same payment is a success again
    only for the same `attempt_id`."""

    payment: OtpPayment
    code: str
    attempt_id: UUID


class OtpVerified(msgspec.Struct, frozen=True, kw_only=True):
    challenge_id: UUID
    verified_at: datetime


class Otp(Protocol):
    """Operations of the otp service."""

    service: ClassVar[str] = "otp"

    # The code is sent within the call: a slow one must keep few others waiting.
    @operation(callers={"confirm"}, calls_in_flight=32, tells=("challenge_id", "is_new"))
    async def issue(self, commands: list[IssueOtp]) -> Answers[OtpIssued]: ...

    @operation(callers={"confirm"}, tells=("challenge_id",))
    async def verify(self, commands: list[VerifyOtp]) -> Answers[OtpVerified]: ...
