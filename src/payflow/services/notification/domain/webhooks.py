"""Decides which webhook hears of which event, what is sent, when again, and when a webhook is given up. Pure.

What is sent carries amounts and masked accounts, never a name, a full account number or the text of a refusal: the
receiver asks the API for more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from payflow.contracts.notification import (
    ANY_EVENT,
    TEST_EVENT,
    WEBHOOK_EVENT_TYPES,
    WebhookDeliveryState,
    WebhookState,
    WebhookView,
)
from payflow.contracts.problems import PROBLEMS
from payflow.contracts.topics import BulkChanged, IncomingPayment, PaymentChanged, ReturnChanged, mask_account
from payflow.kernel.envelope import Event
from payflow.kernel.money import format_minor

SECRET_BYTES: Final = 32
SECRET_PREFIX: Final = "whsec_"  # noqa: S105
# An old secret signs beside the new one for so long, so that receivers can be changed without missing anything.
OLD_SECRET_KEPT: Final = timedelta(hours=24)
SECRETS_MAX: Final = 5
WEBHOOKS_MAX: Final = 100
DISABLED_AFTER: Final = timedelta(days=5)
GONE_STATUS: Final = 410
_TYPES: Final = frozenset(WEBHOOK_EVENT_TYPES)
_JITTER: Final = 0.2


class DisabledReason(StrEnum):
    """Why a webhook is DISABLED."""

    OPERATOR = "OPERATOR"
    GONE = "GONE"
    FAILING = "FAILING"


@dataclass(frozen=True, slots=True)
class Secret:
    """A signing secret; the newest has no end."""

    text: str = field(repr=False)
    valid_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address and what is sent to it. `failing_since`: the first failure since the last success."""

    webhook_id: UUID
    url: str = field(repr=False)
    event_types: tuple[str, ...]
    description: str
    customer_id: str | None
    state: WebhookState
    disabled_reason: str | None
    secrets: tuple[Secret, ...]
    failing_since: datetime | None
    version: int
    created_by: str
    created_at: datetime
    updated_at: datetime

    @property
    def is_enabled(self) -> bool:
        """Whether anything is sent to it."""
        return self.state is WebhookState.ENABLED

    def wants(self, type_: str, customer_id: str | None) -> bool:
        """Whether it hears of events of this type about this customer."""
        is_about_its_customer = self.customer_id in (None, customer_id)
        return is_about_its_customer and (ANY_EVENT in self.event_types or type_ in self.event_types)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to a webhook; `body` is what every attempt sends."""

    delivery_id: UUID
    webhook_id: UUID
    event_id: UUID
    event_type: str
    subject: str
    body: bytes = field(repr=False)
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """A claimed delivery with all that an attempt needs. `attempts` counts this one and tells a late answer from ours;
    `tries` counts this one too, from the last redelivery on."""

    delivery_id: UUID
    webhook_id: UUID
    event_id: UUID
    body: bytes = field(repr=False)
    attempts: int
    tries: int
    url: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    failing_since: datetime | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What an attempt came to: a status code, or why there is none."""

    status_code: int | None
    error: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver has it."""
        return self.status_code is not None and 200 <= self.status_code < 300

    @property
    def is_gone(self) -> bool:
        """Whether the receiver asks to be left alone."""
        return self.status_code == GONE_STATUS


@dataclass(frozen=True, slots=True)
class Settled:
    """What is written about an attempt."""

    delivery_id: UUID
    attempts: int
    state: WebhookDeliveryState
    next_attempt_at: datetime
    status_code: int | None
    error: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to try again: the schedule that Standard Webhooks proposes, 75 hours and a half altogether.

    `lease`: how long a claimed delivery is left to its process; longer than any attempt.
    """

    pauses: tuple[timedelta, ...] = (
        timedelta(seconds=5),
        timedelta(minutes=5),
        timedelta(minutes=30),
        timedelta(hours=2),
        timedelta(hours=5),
        timedelta(hours=10),
        timedelta(hours=14),
        timedelta(hours=20),
        timedelta(hours=24),
    )
    lease: timedelta = timedelta(seconds=30)

    def settle(self, attempt: Attempt, reply: Reply, *, now: datetime, jitter: float) -> Settled:
        """What a reply means for the delivery. `jitter` from 0 to 1 stretches the pause by up to a fifth, so that what
        failed together does not come back together."""
        state, next_at = WebhookDeliveryState.DELIVERED, now
        if not reply.is_success:
            state = WebhookDeliveryState.FAILED
            if attempt.tries <= len(self.pauses) and not reply.is_gone:
                state = WebhookDeliveryState.PENDING
                next_at = now + self.pauses[attempt.tries - 1] * (1 + _JITTER * jitter)
        return Settled(
            delivery_id=attempt.delivery_id,
            attempts=attempt.attempts,
            state=state,
            next_attempt_at=next_at,
            status_code=reply.status_code,
            error=None if reply.is_success else reply.error or f"HTTP_{reply.status_code}",
            at=now,
        )


def changes_webhook(attempt: Attempt, reply: Reply, *, now: datetime) -> bool:
    """Whether a reply may change the webhook itself; almost none does."""
    if reply.is_success:
        return attempt.failing_since is not None
    since = attempt.failing_since
    return reply.is_gone or since is None or now - since >= DISABLED_AFTER


def after_reply(webhook: Webhook, reply: Reply, *, now: datetime) -> Webhook:
    """The webhook after a reply: whole again, failing, or disabled since it is gone or has failed for five days."""
    if not webhook.is_enabled:
        return webhook
    if reply.is_success:
        return replace(webhook, failing_since=None)
    since = webhook.failing_since or now
    if reply.is_gone:
        return _disabled(replace(webhook, failing_since=since), DisabledReason.GONE, now=now)
    if now - since >= DISABLED_AFTER:
        return _disabled(replace(webhook, failing_since=since), DisabledReason.FAILING, now=now)
    return replace(webhook, failing_since=since)


def _disabled(webhook: Webhook, reason: DisabledReason, *, now: datetime) -> Webhook:
    return replace(
        webhook, state=WebhookState.DISABLED, disabled_reason=reason, version=webhook.version + 1, updated_at=now
    )


def changed(
    webhook: Webhook,
    *,
    url: str | None,
    event_types: Sequence[str] | None,
    description: str | None,
    state: WebhookState | None,
    now: datetime,
) -> Webhook:
    """The webhook as an operator wants it; None leaves a part as it is. The same object where nothing changes."""
    after = replace(
        webhook,
        url=webhook.url if url is None else url,
        event_types=webhook.event_types if event_types is None else tuple(dict.fromkeys(event_types)),
        description=webhook.description if description is None else description,
    )
    if state is not None and state is not webhook.state:
        reason = None if state is WebhookState.ENABLED else DisabledReason.OPERATOR
        after = replace(after, state=state, disabled_reason=reason, failing_since=None)
    return webhook if after == webhook else replace(after, version=webhook.version + 1, updated_at=now)


def rotated(webhook: Webhook, secret: str, *, now: datetime) -> Webhook:
    """The webhook with a new secret. Those before it sign for 24 hours more, or as long as they had; five at most."""
    until = now + OLD_SECRET_KEPT
    old = [replace(one, valid_until=one.valid_until or until) for one in live_secrets(webhook.secrets, now=now)]
    return replace(webhook, secrets=(Secret(secret), *old)[:SECRETS_MAX], version=webhook.version + 1, updated_at=now)


def live_secrets(secrets: Sequence[Secret], *, now: datetime) -> tuple[Secret, ...]:
    """The secrets that sign at `now`, the newest first."""
    return tuple(one for one in secrets if one.valid_until is None or now < one.valid_until)


def flaw_of_types(event_types: Sequence[str]) -> str | None:
    """Why these event types cannot be asked for; None when they can."""
    unknown = [type_ for type_ in event_types if type_ not in _TYPES and type_ != ANY_EVENT]
    if unknown:
        return f"event_types: {unknown[0][:64]!r} is none of {', '.join(WEBHOOK_EVENT_TYPES)}, {ANY_EVENT}."
    return None if event_types else "event_types: name at least one."


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a webhook, as Standard Webhooks has it."""

    type: str
    timestamp: datetime
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """An event as webhooks may hear of it."""

    event: Event
    customer_id: str | None
    body: bytes


_READERS: Final[dict[str, Any]] = {
    "payment": PaymentChanged,
    "return": ReturnChanged,
    "bulk": BulkChanged,
    "incoming": IncomingPayment,
}


def heard(event: Event) -> Heard | None:
    """What webhooks hear of an event, None where nothing. Raises msgspec.ValidationError for data of another shape."""
    if event.type not in _TYPES:
        return None
    data = msgspec.convert(event.data, _READERS[event.type.partition(".")[0]])
    if isinstance(data, BulkChanged):
        told = _bulk(data)
    elif isinstance(data, PaymentChanged):
        told = _payment(event, data)
    else:
        told = _return(event, data) if isinstance(data, ReturnChanged) else _incoming(event, data)
    return Heard(event, data.customer_id, _body(event.type, event.time, told))


def body_of_test(webhook_id: UUID, *, asked_by: str, now: datetime) -> bytes:
    """The body of a `webhook.test`."""
    told = {"webhook_id": str(webhook_id), "asked_by": asked_by, "message": "This is a test."}
    return _body(TEST_EVENT, now, told)


def _body(type_: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(Payload(type=type_, timestamp=at, data=dict(data)))


def _payment(event: Event, payment: PaymentChanged) -> dict[str, Any]:
    problem = PROBLEMS.get(payment.error_code or "")
    return {
        "payment_id": str(payment.payment_id),
        "transaction_id": payment.transaction_id,
        "customer_id": payment.customer_id,
        "state": payment.state,
        # Rises with every event of the payment, so that the newer of two can be told: they may come in any order.
        "version": event.version,
        "amount": _amount(payment.amount_minor, payment.currency),
        "currency": payment.currency,
        "from_account": mask_account(payment.debtor_account),
        "to_account": mask_account(payment.creditor_account),
        "risk_level": payment.risk_level,
        "error": payment.error_code,
        "reason_code": None if problem is None else problem.iso_reason,
        "bulk_id": None if payment.bulk_id is None else str(payment.bulk_id),
    }


def _bulk(bulk: BulkChanged) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(bulk)
    del told["paid_minor"]
    return told | {"paid": {currency: format_minor(minor, currency) for currency, minor in bulk.paid_minor.items()}}


def _return(event: Event, made: ReturnChanged) -> dict[str, Any]:
    """Without who asked for it and who approved it: that is the bank's own affair."""
    return {
        "return_id": str(made.return_id),
        "payment_id": str(made.payment_id),
        "transaction_id": made.transaction_id,
        "customer_id": made.customer_id,
        "state": made.state,
        "version": event.version,
        "amount": _amount(made.amount_minor, made.currency),
        "currency": made.currency,
        "from_account": mask_account(made.debtor_account),
        "to_account": mask_account(made.creditor_account),
        "error": made.error_code,
        "reason_code": made.reason_code,
    }


def _incoming(event: Event, incoming: IncomingPayment) -> dict[str, Any]:
    return {
        "payment_id": str(incoming.payment_id),
        "end_to_end_id": incoming.end_to_end_id,
        "customer_id": incoming.customer_id,
        "state": event.type.partition(".")[2].upper(),
        "version": event.version,
        "amount": _amount(incoming.amount_minor, incoming.currency),
        "currency": incoming.currency,
        "to_account": mask_account(incoming.account),
        "agent_bic": incoming.agent_bic,
    }


def _amount(amount_minor: int | None, currency: str | None) -> str | None:
    return None if amount_minor is None or currency is None else format_minor(amount_minor, currency)


def view_of(webhook: Webhook) -> WebhookView:
    """A webhook as others may see it, without its secrets."""
    return WebhookView(
        webhook_id=webhook.webhook_id,
        url=webhook.url,
        event_types=list(webhook.event_types),
        description=webhook.description,
        customer_id=webhook.customer_id,
        state=webhook.state,
        disabled_reason=webhook.disabled_reason,
        failing_since=webhook.failing_since,
        created_by=webhook.created_by,
        created_at=webhook.created_at,
        updated_at=webhook.updated_at,
    )
