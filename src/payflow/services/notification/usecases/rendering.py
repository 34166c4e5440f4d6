"""Makes a message of a notice: language and channels as the customer prefers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from payflow.services.notification.domain import Kind, Message, Notice, Preference, Texts, Ways
from payflow.services.notification.ports import Channel, Templates


def ways_of(channels: Sequence[Channel]) -> Ways:
    """The ways that channels in use are, in their order. Where none reaches customers, the first one keeps a record."""
    names = tuple(channel.name for channel in channels)
    reaching = tuple(channel.name for channel in channels if channel.reaches_customers)
    return Ways(in_use=names, by_default=reaching or names[:1])


def render(
    notice: Notice, *, message_id: UUID, preference: Preference, ways: Ways, templates: Templates, now: datetime
) -> tuple[Message, Texts]:
    """The message to store and its texts to send; those with a code are not part of the message that is stored."""
    texts = templates.render(notice.kind, preference.language, notice.values)
    has_code = notice.kind is Kind.OTP_CODE
    message = Message(
        message_id=message_id,
        customer_id=notice.customer_id,
        kind=notice.kind,
        about=notice.about,
        language=preference.language,
        subject=texts.subject,
        short=None if has_code else texts.short,
        body=None if has_code else texts.body,
        channels=ways.for_customer(preference.channels),
        created_at=now,
    )
    return message, texts
