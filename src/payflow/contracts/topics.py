"""The catalogue of events: per type its Struct, topic, key, owner, retention and consumers.

An event tells a fact; consumers need no call back for it. No event carries a secret, a one-time code, a token or a full
account number (`mask_account` below). docs/events is generated from this file, and what was published may only grow:
`docs/events/schemas` keeps the published form, and a test refuses a change that would break a reader of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

AUDIT: Final = "audit"
_CUSTOMERS_ARE_TOLD: Final = (AUDIT, "notification", "notification.webhooks")
_RISK: Final = ("risk",)


def mask_account(number: str) -> str:
    """An account number as events, logs and audit rows may show it: the last four characters."""
    return f"…{number[-4:]}" if len(number) > 4 else "…" + number[-2:]


class PaymentChanged(msgspec.Struct, frozen=True, kw_only=True):
    """`payment.<state>`: a payment took one or more steps. `path` lists the states passed, first to last.

    `bulk_id`: of a payment of a file, its order, whose end tells the customer of the payments that ended at once.
    """

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
    bulk_id: UUID | None = None


class ReviewOpened(msgspec.Struct, frozen=True, kw_only=True):
    """`review.opened`: a possible match with a sanctions list waits for a person's decision."""

    review_id: UUID
    payment_id: UUID
    customer_id: str


class ReviewDecidedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """`review.decided`: cleared or blocked, and by which user of the bank. Never the comment: it may name people."""

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
    """`bulk.<state>`: a file of payments was accepted or has ended. `counts`: how many lines have each status.

    `paid_minor`: what the lines that count as SUCCESS have paid, by currency, in minor units.
    """

    bulk_id: UUID
    customer_id: str
    state: str
    total: int
    counts: dict[str, int]
    paid_minor: dict[str, int] = msgspec.field(default_factory=dict)


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


class EventType(msgspec.Struct, frozen=True):
    """One type of event: what happened, in a sentence, and who hears of it besides the topic's consumers."""

    name: str
    summary: str
    also_heard_by: tuple[str, ...] = ()


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """A stream of events of one kind of subject. Order is kept per key, not across keys.

    `key`: the field of the data that is the key, or `subject`; all events of one subject have one key. `owner`: the
    service that may tell of it; `*` is every service, each in its own name. `consumers` hear every event of the topic.
    `schema_version` is part of each event's `dataschema`; it rises when a data Struct is replaced by another.
    """

    name: str
    owner: str
    data: type[msgspec.Struct]
    events: tuple[EventType, ...]
    key: str = "subject"
    consumers: tuple[str, ...] = (AUDIT,)
    retention_days: int = 90
    schema_version: int = 1

    @property
    def types(self) -> tuple[str, ...]:
        """The names of its event types."""
        return tuple(event.name for event in self.events)

    @property
    def dataschema(self) -> str:
        """The CloudEvents attribute that names the form of the data."""
        return f"urn:payflow:event:{self.data.__name__}:{self.schema_version}"

    def key_of(self, *, subject: str, data: Mapping[str, Any]) -> str:
        """The key of an event of this topic; the subject where the data has no such field."""
        return subject if self.key == "subject" else str(data.get(self.key) or subject)


TOPICS: Final = (
    Topic(
        name="payments",
        owner="confirm",
        data=PaymentChanged,
        key="payment_id",
        consumers=_CUSTOMERS_ARE_TOLD,
        events=(
            EventType("payment.under_review", "A person decides on a possible sanctions match; the funds are held."),
            EventType("payment.awaiting_otp", "A one-time password was sent and is waited for."),
            EventType("payment.scheduled", "The payment is approved and waits for its day."),
            EventType("payment.held", "The funds are held for a payment to another bank."),
            EventType(
                "payment.submitted", "The payment is at the other bank, or on its way there; its answer is waited for."
            ),
            EventType("payment.completed", "The money has moved. An end."),
            EventType("payment.rejected", "The payment was refused, here or at the other bank. An end.", _RISK),
            EventType("payment.cancelled", "The customer cancelled it before submission. An end.", _RISK),
            EventType("payment.expired", "Nobody did in time what it waited for. An end.", _RISK),
        ),
    ),
    Topic(
        name="bulk",
        owner="confirm",
        data=BulkChanged,
        key="bulk_id",
        consumers=_CUSTOMERS_ARE_TOLD,
        events=(
            EventType("bulk.accepted", "A file of payments was accepted and is being worked on."),
            EventType("bulk.completed", "Every line of the file has been dealt with."),
            EventType("bulk.cancelled", "The rest of the file was cancelled."),
            EventType("bulk.expired", "The file was not completed in time."),
        ),
    ),
    Topic(
        name="returns",
        owner="confirm",
        data=ReturnChanged,
        key="payment_id",
        consumers=_CUSTOMERS_ARE_TOLD,
        events=(
            EventType("return.requested", "An operator asks to give a payment's money back."),
            EventType("return.approved", "A second person agreed."),
            EventType("return.declined", "A second person refused. An end."),
            EventType("return.under_review", "A person decides on a possible sanctions match.", _RISK),
            EventType("return.completed", "The money is back. An end.", _RISK),
            EventType("return.rejected", "The money could not be given back. An end.", _RISK),
            EventType("return.expired", "Nobody decided in time. An end.", _RISK),
        ),
    ),
    Topic(
        name="reviews.opened",
        owner="ofac",
        data=ReviewOpened,
        key="payment_id",
        events=(EventType("review.opened", "A possible match with a sanctions list waits for a decision."),),
    ),
    Topic(
        name="reviews.decided",
        owner="ofac",
        data=ReviewDecidedEvent,
        key="payment_id",
        consumers=(AUDIT, "notification"),
        events=(EventType("review.decided", "A person cleared or blocked the payment."),),
    ),
    Topic(
        name="customers",
        owner="account",
        data=CustomerChanged,
        key="customer_id",
        events=(
            EventType("customer.created", "A customer was created."),
            EventType("customer.state_changed", "A customer was blocked, or may act again."),
        ),
    ),
    Topic(
        name="accounts",
        owner="account",
        data=AccountChanged,
        events=(
            EventType("account.opened", "An account was opened."),
            EventType("account.state_changed", "An account was blocked (wholly or one way), opened again or closed."),
        ),
    ),
    Topic(
        name="verifications",
        owner="kyc",
        data=VerificationChanged,
        key="customer_id",
        events=(EventType("kyc.changed", "A customer's identification was recorded, raised or withdrawn."),),
    ),
    Topic(
        name="security",
        owner="*",
        data=SecurityEvent,
        consumers=(AUDIT, "notification"),
        events=(
            EventType("security.signed_in", "A user signed in."),
            EventType("security.sign_in_failed", "A sign-in was refused."),
            EventType("security.signed_out", "A user signed out."),
            EventType("security.refresh_reused", "A refresh token was used twice; its whole family was ended."),
            EventType("security.user_created", "A user was created."),
            EventType("security.user_disabled", "A user was disabled and signed out everywhere."),
            EventType("security.user_enabled", "A user was enabled again."),
            EventType("security.keys_rotated", "Access tokens are signed with a new key."),
            EventType("security.otp_failed", "Wrong one-time passwords ended a challenge."),
            EventType("security.webhook_registered", "A webhook was registered."),
            EventType("security.webhook_changed", "A webhook was changed."),
            EventType("security.webhook_secret_rotated", "A webhook got a new signing secret."),
            EventType("security.webhook_disabled", "A webhook was disabled."),
            EventType("security.webhook_deleted", "A webhook was deleted."),
        ),
    ),
    Topic(
        name="incoming",
        owner="partner_bank",
        data=IncomingPayment,
        key="payment_id",
        consumers=_CUSTOMERS_ARE_TOLD,
        events=(
            EventType("incoming.credited", "Money from another bank was credited, at once or after a review."),
            EventType("incoming.held_in_suspense", "Money from another bank waits for a review."),
            EventType("incoming.returned", "Money from another bank was sent back."),
        ),
    ),
)

TOPIC_BY_TYPE: Final[dict[str, Topic]] = {type_: topic for topic in TOPICS for type_ in topic.types}
TOPIC_BY_NAME: Final[dict[str, Topic]] = {topic.name: topic for topic in TOPICS}


def consumers_of(type_: str) -> tuple[str, ...]:
    """Who hears of an event type; raises KeyError for an unknown one."""
    topic = TOPIC_BY_TYPE[type_]
    also = next(event.also_heard_by for event in topic.events if event.name == type_)
    return topic.consumers + also
