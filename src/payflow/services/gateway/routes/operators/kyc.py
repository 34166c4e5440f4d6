"""Verifications (KYC): where a customer stands and how they came there, and new decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import msgspec
from litestar import get, post

from payflow.contracts.account import GetCustomer
from payflow.contracts.gateway import Role
from payflow.contracts.kyc import (
    CheckCustomer,
    Kyc,
    RecordVerification,
    VerificationHistory,
    VerificationLevel,
    VerificationState,
)
from payflow.platform.http.strict_json import StrictReader
from payflow.platform.ids import UuidV7
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.operators.shared import PathText, Reason, open_to
from payflow.services.gateway.routes.payment_confirm import idempotency_key
from payflow.services.gateway.routes.security import current_user
from payflow.services.gateway.routes.services import FromServices

_KEY_HEADER: Final = "idempotency-key"
# Makes the same command id of the same user's same key, so that a repeat records nothing new.
_NAMESPACE: Final = uuid5(NAMESPACE_URL, "payflow:kyc")
_ids: Final = UuidV7()


class VerificationBody(Body):
    """A decision about a customer's identity. VERIFIED needs the level BASIC or FULL; only VERIFIED expires."""

    state: VerificationState
    level: VerificationLevel
    reason: Reason
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class VerificationChange(msgspec.Struct, kw_only=True):
    """One decision: `version` counts a customer's decisions."""

    version: int
    state: VerificationState
    level: VerificationLevel
    reason: str
    recorded_by: str
    recorded_at: datetime
    expires_at: datetime | None


class Verification(msgspec.Struct, kw_only=True):
    """Where a customer stands, and every decision, newest first. Payments of who `is_verified` need fewer checks."""

    customer_id: str
    is_verified: bool
    state: VerificationState
    level: VerificationLevel
    verified_at: datetime | None
    expires_at: datetime | None
    changes: list[VerificationChange]


_BODY: Final = StrictReader(VerificationBody, required=("state", "level", "reason"))


@get(
    "/kyc/{customer_id:str}",
    guards=[open_to(Role.COMPLIANCE, Role.OPERATOR)],
    tags=["KYC"],
    summary="Look at a customer's verification",
    opt={"errors": ("VERIFICATION_NOT_FOUND",)},
)
async def get_verification(services: FromServices, customer_id: PathText) -> Verification:
    """The present state and every change of it."""
    return _verification(first(await services.client(Kyc).history([CheckCustomer(customer_id=customer_id)])))


@post(
    "/kyc/{customer_id:str}",
    status_code=200,
    guards=[open_to(Role.COMPLIANCE, Role.OPERATOR)],
    tags=["KYC"],
    summary="Record a verification",
    opt={
        "body": VerificationBody,
        "idempotency_key": "optional",
        "errors": ("INVALID_IDEMPOTENCY_KEY", "CUSTOMER_NOT_FOUND", "COMMAND_ID_REUSED", "INVALID_VERIFICATION"),
    },
)
async def record_verification(request: AnyRequest, services: FromServices, customer_id: PathText) -> Verification:
    """Takes effect with the customer's next payment. With an Idempotency-Key a repeat records nothing new, and the
    same key with other contents is COMMAND_ID_REUSED; without one every call is a decision of its own.
    """
    body = await read_json(request, _BODY)
    recorded_by = current_user(request.scope).username
    command_id = _command_id(request, recorded_by)
    first(await services.account.get_customers([GetCustomer(customer_id=customer_id)]))
    command = RecordVerification(
        command_id=command_id,
        customer_id=customer_id,
        state=body.state,
        level=body.level,
        reason=body.reason,
        recorded_by=recorded_by,
        expires_at=body.expires_at,
    )
    return _verification(first(await services.client(Kyc).record([command])))


def _command_id(request: AnyRequest, username: str) -> UUID:
    if _KEY_HEADER not in request.headers:
        return _ids.new()
    return uuid5(_NAMESPACE, f"{username}\n{idempotency_key(dict(request.scope))}")


def _verification(history: VerificationHistory) -> Verification:
    current = history.current
    return Verification(
        customer_id=history.customer_id,
        is_verified=current.is_verified,
        state=current.state,
        level=current.level,
        verified_at=current.verified_at,
        expires_at=current.expires_at,
        changes=msgspec.convert(history.changes, list[VerificationChange], from_attributes=True),
    )


HANDLERS = [get_verification, record_verification]
