"""Makes a message of a notice: language and channels as the customer prefers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from payflow.services.notification.domain import Kind, Message, Notice, Preference, channels_for
from payflow.services.notification.ports import Templates


def render(
    notice: Notice,
    *,
    message_id: UUID,
    preference: Preference,
    channels: Sequence[str],
    templates: Templates,
    now: datetime,
) -> tuple[Message, str]:
    """The message to store and the body to send; a body with a code is not part of the message that is stored."""
    subject, body = templates.render(notice.kind, preference.language, notice.values)
    chosen = channels_for(preferred=preference.channels, in_use=channels)
    has_code = notice.kind is Kind.OTP_CODE
    message = Message(
        message_id=message_id,
        customer_id=notice.customer_id,
        kind=notice.kind,
        about=notice.about,
        language=preference.language,
        subject=subject,
        body=None if has_code else body,
        # A code goes one way only: each further copy is a further place where it can be read.
        channels=chosen[:1] if has_code else chosen,
        created_at=now,
    )
    return message, body
