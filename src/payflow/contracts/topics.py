"""Every event of the system: its Struct, its topic and key. An event tells a fact; consumers need no call back for it.

No event carries a secret, a one-time code, a token or a full account number (`mask_account` below).
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec


def mask_account(number: str) -> str:
    """An account number as events, logs and audit rows may show it: the last four characters."""
    return f"…{number[-4:]}" if len(number) > 4 else "…" + number[-2:]


class PaymentChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`payment.<state>`: a payment took one or more steps. `path` lists the states passed, first to last."""

    payment_id: UUID
    transaction_id: str
    customer_id: str
    state: str
    path: list[str]
    amount_minor: int | None
    currency: str | None
    debtor_account: str
    creditor_account: str
    risk_level: str | None = None
    reason: str | None = None
    error_code: str | None = None
    at: datetime | None = None


class ReviewOpened(msgspec.Struct, frozen=True, kw_only=True):
    review_id: UUID
    payment_id: UUID
    customer_id: str


class ReviewDecidedEvent(msgspec.Struct, frozen=True, kw_only=True):
    review_id: UUID
    payment_id: UUID
    customer_id: str
    is_cleared: bool
    decided_by: str


class CustomerChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`customer.created`, `customer.state_changed`."""

    customer_id: str
    state: str
    reason: str | None = None
    changed_by: str | None = None


class AccountChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`account.opened`, `account.state_changed`."""

    account: str
    customer_id: str
    state: str
    currency: str
    reason: str | None = None
    changed_by: str | None = None


class VerificationChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`kyc.changed`."""

    customer_id: str
    state: str
    level: str
    recorded_by: str


class SecurityEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`security.*`: signed in, sign-in failed, token family revoked, user created, keys rotated, otp failed.

    `customer_id`: the customer whom it concerns, where there is one; notification writes to that customer.
    """

    actor: str
    detail: str | None = None
    customer_id: str | None = None


class IncomingPayment(msgspec.Struct, frozen=True, kw_only=True):
    """`incoming.credited`, `incoming.held_in_suspense`, `incoming.returned`: money from another bank."""

    payment_id: UUID
    end_to_end_id: str
    customer_id: str | None
    account: str
    amount_minor: int
    currency: str
    agent_bic: str


class BulkChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`bulk.<state>`: a file of payments was accepted or has ended. `counts`: how many lines have each status."""

    bulk_id: UUID
    customer_id: str
    state: str
    total: int
    counts: dict[str, int]


class ReturnChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`return.*`: a completed payment's money goes back, by a payment of its own (`return_id`) linked to it.

    `customer_id` gets the money back, `debtor_customer_id` pays it back. `requested_by` and `decided_by` are the user
    names of the bank's own people.
    """

    return_id: UUID
    payment_id: UUID
    transaction_id: str
    customer_id: str
    debtor_customer_id: str
    state: str
    amount_minor: int
    currency: str
    debtor_account: str
    creditor_account: str
    reason_code: str
    requested_by: str
    decided_by: str | None = None
    error_code: str | None = None
    at: datetime | None = None


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of events of one kind of subject. Order is kept per subject (the key), not across subjects."""

    name: str
    owner: str
    data: type
    types: tuple[str, ...]
    retention_days: int = 90


TOPICS: Final = (
    Topic(
        name="payments",
        owner="confirm",
        data=PaymentChanged,
        types=tuple(
            f"payment.{state}"
            for state in (
                "under_review",
                "awaiting_otp",
                "scheduled",
                "held",
                "submitted",
                "completed",
                "rejected",
                "cancelled",
                "expired",
            )
        ),
    ),
    Topic(
        name="bulk",
        owner="confirm",
        data=BulkChanged,
        types=("bulk.accepted", "bulk.completed", "bulk.cancelled", "bulk.expired"),
    ),
    Topic(
        name="returns",
        owner="confirm",
        data=ReturnChanged,
        types=tuple(
            f"return.{step}"
            for step in ("requested", "approved", "declined", "under_review", "completed", "rejected", "expired")
        ),
    ),
    Topic(name="reviews.opened", owner="ofac", data=ReviewOpened, types=("review.opened",)),
    Topic(name="reviews.decided", owner="ofac", data=ReviewDecidedEvent, types=("review.decided",)),
    Topic(
        name="customers",
        owner="account",
        data=CustomerChanged,
        types=("customer.created", "customer.state_changed"),
    ),
    Topic(name="accounts", owner="account", data=AccountChanged, types=("account.opened", "account.state_changed")),
    Topic(name="verifications", owner="kyc", data=VerificationChanged, types=("kyc.changed",)),
    Topic(
        name="security",
        owner="*",
        data=SecurityEvent,
        types=(
            "security.signed_in",
            "security.sign_in_failed",
            "security.signed_out",
            "security.refresh_reused",
            "security.user_created",
            "security.user_disabled",
            "security.user_enabled",
            "security.keys_rotated",
            "security.otp_failed",
            "security.webhook_registered",
            "security.webhook_changed",
            "security.webhook_secret_rotated",
            "security.webhook_disabled",
            "security.webhook_deleted",
        ),
    ),
    Topic(
        name="incoming",
        owner="partner_bank",
        data=IncomingPayment,
        types=("incoming.credited", "incoming.held_in_suspense", "incoming.returned"),
    ),
)

TOPIC_BY_TYPE: Final[dict[str, Topic]] = {type_: topic for topic in TOPICS for type_ in topic.types}
