"""Turns events into messages, in the transaction that also moves the consumer on; they are sent later."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.services.notification.domain import Preference, Ways, notices_of
from payflow.services.notification.ports import Messages, Templates
from payflow.services.notification.usecases.rendering import render


async def queue_notices(
    *,
    events: Sequence[Event],
    messages: Messages,
    ways: Ways,
    kept_by: Collection[str],
    templates: Templates,
    ids: Ids,
    now: datetime,
) -> None:
    """Store a message for each event that a customer is told of; an event that comes again changes nothing.

    `kept_by`: the channels whose messages are delivered by being stored (Channel.keeps_messages).
    """
    notices = [notice for event in events for notice in notices_of(event)]
    if not notices:
        return
    preferences = await messages.preferences(sorted({notice.customer_id for notice in notices}))
    await messages.add(
        [
            render(
                notice,
                message_id=ids.new(),
                preference=preferences.get(notice.customer_id, Preference()),
                ways=ways,
                templates=templates,
                now=now,
            )[0]
            for notice in notices
        ],
        kept_by=kept_by,
    )
