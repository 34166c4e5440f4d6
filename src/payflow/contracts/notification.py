"""The notification service: messages to customers and webhooks to programs.

Only one-time codes are sent at once; all else follows events.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.contracts.topics import TOPICS
from payflow.kernel.errors import Conflict, Rejection


class NoDemoChannel(Rejection):
    """The demo channel is not switched on (it never is in production)."""

    code = "NO_DEMO_CHANNEL"


class NoMessage(Rejection):
    """No such message."""

    code = "MESSAGE_NOT_FOUND"


class UnknownPreference(Rejection):
    """There are no messages in that language, or no such channel is in use."""

    code = "UNKNOWN_PREFERENCE"


class SendOtpCode(msgspec.Struct, frozen=True, kw_only=True):
    """Send a one-time code now. One message per challenge: a repeat sends nothing."""

    challenge_id: UUID
    customer_id: str
    transaction_id: str
    code: str
    amount: str
    currency: str
    creditor: str
    expires_at: datetime


class MessageAccepted(msgspec.Struct, frozen=True, kw_only=True):
    message_id: UUID
    channel: str


class FindDemoCode(msgspec.Struct, frozen=True, kw_only=True):
    """The newest code sent for a transaction by the demo channel. `customer_id` None takes any customer's newest."""

    transaction_id: str
    customer_id: str | None = None


class DemoCode(msgspec.Struct, frozen=True, kw_only=True):
    transaction_id: str
    customer_id: str
    code: str
    sent_at: datetime
    expires_at: datetime


class ListMessages(msgspec.Struct, frozen=True, kw_only=True):
    """What was sent to a customer, newest first, without any code."""

    customer_id: str
    limit: int = 50


class MessageView(msgspec.Struct, frozen=True, kw_only=True):
    """A message by one channel. `state`: PENDING, SENT (a vendor has it), DELIVERED, FAILED. `reason`: of the last try
    that failed."""

    message_id: UUID
    kind: str
    channel: str
    state: str
    subject: str
    created_at: datetime
    delivered_at: datetime | None
    sent_at: datetime | None = None
    reason: str | None = None


class MessageList(msgspec.Struct, frozen=True, kw_only=True):
    messages: list[MessageView]


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """How a customer wants to be written to. `channels` in the order in which they are tried: a message goes by the
    next one when one fails. An empty list takes the installation's."""

    customer_id: str
    language: str = "en"
    channels: list[str] = []


class GetPreferences(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str


class Notification(Protocol):
    """Operations of the notification service."""

    service: ClassVar[str] = "notification"

    # Many calls under way, so that one number that is slow to be written to keeps few others waiting.
    @operation(callers={"otp"}, timeout_s=4, calls_in_flight=32)
    async def send_otp_codes(self, commands: list[SendOtpCode]) -> Answers[MessageAccepted]: ...

    @operation(callers={"cli"})
    async def find_demo_codes(self, queries: list[FindDemoCode]) -> Answers[DemoCode]: ...

    @operation(callers={"gateway", "cli"})
    async def list_messages(self, queries: list[ListMessages]) -> Answers[MessageList]: ...

    @operation(callers={"gateway", "cli"})
    async def get_preferences(self, queries: list[GetPreferences]) -> Answers[Preferences]: ...

    @operation(callers={"gateway", "cli"})
    async def set_preferences(self, commands: list[Preferences]) -> Answers[Preferences]: ...


# What a webhook may be told of; ANY_EVENT is all of it, also what is added later. TEST_EVENT is sent when asked for.
ANY_EVENT: Final = "*"
TEST_EVENT: Final = "webhook.test"
WEBHOOK_TOPICS: Final = ("payments", "returns", "bulk", "incoming")
WEBHOOK_EVENT_TYPES: Final = tuple(
    type_ for name in WEBHOOK_TOPICS for topic in TOPICS if topic.name == name for type_ in topic.types
)


class WebhookState(StrEnum):
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class WebhookDeliveryState(StrEnum):
    """PENDING is tried (again); a redelivery makes it PENDING once more."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class WebhookNotFound(Rejection):
    """No such webhook."""

    code = "WEBHOOK_NOT_FOUND"


class WebhookDeliveryNotFound(Rejection):
    """The webhook has no such delivery, or it was forgotten with age."""

    code = "WEBHOOK_DELIVERY_NOT_FOUND"


class InvalidWebhook(Rejection):
    """The address is not one that may be called, or an event type does not exist; `field` says which."""

    code = "INVALID_WEBHOOK"


class TooManyWebhooks(Rejection):
    """The installation has as many webhooks as it may have."""

    code = "TOO_MANY_WEBHOOKS"


class WebhookDisabled(Conflict):
    """Nothing is sent to a webhook that is DISABLED."""

    code = "WEBHOOK_DISABLED"


class RegisterWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """Send events to `url`. `webhook_id` is new; a repeat with it registers nothing more and answers the same.

    `customer_id`: only events about that customer.
    """

    webhook_id: UUID
    url: str
    event_types: list[str]
    registered_by: str
    description: str = ""
    customer_id: str | None = None


class ChangeWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """What is None stays as it is. To ENABLE forgets why it was disabled."""

    webhook_id: UUID
    changed_by: str
    url: str | None = None
    event_types: list[str] | None = None
    description: str | None = None
    state: WebhookState | None = None


class WebhookView(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook. `disabled_reason`: OPERATOR, GONE (it answered 410) or FAILING. `failing_since`: no success since."""

    webhook_id: UUID
    url: str
    event_types: list[str]
    description: str
    customer_id: str | None
    state: WebhookState
    disabled_reason: str | None
    failing_since: datetime | None
    created_by: str
    created_at: datetime
    updated_at: datetime


class WebhookWithSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook and the secret that signs what is sent to it. `previous_valid_until`: until when old ones sign too."""

    webhook: WebhookView
    secret: str
    previous_valid_until: datetime | None = None


class GetWebhook(msgspec.Struct, frozen=True, kw_only=True):
    webhook_id: UUID


class ListWebhooks(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; `cursor` is the last one seen."""

    cursor: UUID | None = None
    limit: int = 50


class WebhookPage(msgspec.Struct, frozen=True, kw_only=True):
    webhooks: list[WebhookView]
    next_cursor: UUID | None


class DeleteWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """Forget a webhook, its secrets and its deliveries."""

    webhook_id: UUID
    deleted_by: str


class WebhookDeleted(msgspec.Struct, frozen=True, kw_only=True):
    webhook_id: UUID


class RotateWebhookSecret(msgspec.Struct, frozen=True, kw_only=True):
    webhook_id: UUID
    rotated_by: str


class ListWebhookDeliveries(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first; `cursor` is the last one seen."""

    webhook_id: UUID
    state: WebhookDeliveryState | None = None
    cursor: UUID | None = None
    limit: int = 50


class WebhookDeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one webhook. `status_code` and `error` tell of the last attempt.

    `subject`: what the event is about, a payment's id. `event_id` is the header webhook-id of every attempt.
    """

    delivery_id: UUID
    event_id: UUID
    event_type: str
    subject: str
    state: WebhookDeliveryState
    attempts: int
    status_code: int | None
    error: str | None
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime


class WebhookDeliveryPage(msgspec.Struct, frozen=True, kw_only=True):
    deliveries: list[WebhookDeliveryView]
    next_cursor: UUID | None


class RedeliverWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """Send an event again, now, with all its tries before it; while an attempt is under way this changes nothing."""

    webhook_id: UUID
    delivery_id: UUID


class SendWebhookTest(msgspec.Struct, frozen=True, kw_only=True):
    """Send an event `webhook.test`. `event_id` is new; a repeat with it sends nothing more."""

    webhook_id: UUID
    event_id: UUID
    asked_by: str


class Webhooks(Protocol):
    """Operations on webhooks, of the notification service too."""

    service: ClassVar[str] = "notification"

    @operation(callers={"gateway"})
    async def register_webhooks(self, commands: list[RegisterWebhook]) -> Answers[WebhookWithSecret]: ...

    @operation(callers={"gateway"})
    async def get_webhooks(self, queries: list[GetWebhook]) -> Answers[WebhookView]: ...

    @operation(callers={"gateway"})
    async def list_webhooks(self, queries: list[ListWebhooks]) -> Answers[WebhookPage]: ...

    @operation(callers={"gateway"})
    async def change_webhooks(self, commands: list[ChangeWebhook]) -> Answers[WebhookView]: ...

    @operation(callers={"gateway"})
    async def delete_webhooks(self, commands: list[DeleteWebhook]) -> Answers[WebhookDeleted]: ...

    # Not repeated by the transport: a second rotation would be one more secret that nobody has seen.
    @operation(callers={"gateway"}, repeatable=False)
    async def rotate_webhook_secrets(self, commands: list[RotateWebhookSecret]) -> Answers[WebhookWithSecret]: ...

    @operation(callers={"gateway"})
    async def list_webhook_deliveries(self, queries: list[ListWebhookDeliveries]) -> Answers[WebhookDeliveryPage]: ...

    @operation(callers={"gateway"})
    async def redeliver_webhooks(self, commands: list[RedeliverWebhook]) -> Answers[WebhookDeliveryView]: ...

    @operation(callers={"gateway"})
    async def send_webhook_tests(self, commands: list[SendWebhookTest]) -> Answers[WebhookDeliveryView]: ...
