"""The notification service: messages to customers. Only one-time codes are sent at once; all else follows events."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Rejection


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
    message_id: UUID
    kind: str
    channel: str
    state: str
    subject: str
    created_at: datetime
    delivered_at: datetime | None


class MessageList(msgspec.Struct, frozen=True, kw_only=True):
    messages: list[MessageView]


class Preferences(msgspec.Struct, frozen=True, kw_only=True):
    """How a customer wants to be written to. `channels` in order; an empty list takes the installation's first one."""

    customer_id: str
    language: str = "en"
    channels: list[str] = []


class Notification(Protocol):
    """Operations of the notification service."""

    service: ClassVar[str] = "notification"

    @operation(callers={"otp"})
    async def send_otp_codes(self, commands: list[SendOtpCode]) -> Answers[MessageAccepted]: ...

    @operation(callers={"cli"})
    async def find_demo_codes(self, queries: list[FindDemoCode]) -> Answers[DemoCode]: ...

    @operation(callers={"gateway", "cli"})
    async def list_messages(self, queries: list[ListMessages]) -> Answers[MessageList]: ...

    @operation(callers={"gateway", "cli"})
    async def set_preferences(self, commands: list[Preferences]) -> Answers[Preferences]: ...
