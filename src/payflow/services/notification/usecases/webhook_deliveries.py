"""Turns events into deliveries, and deliveries into attempts: queue, claim, settle."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from payflow.contracts.notification import WebhookState
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.services.notification.domain import webhooks as domain
from payflow.services.notification.domain.webhooks import Attempt, Delivery, Reply, Schedule, Settled
from payflow.services.notification.ports import WebhookChanges, WebhookStore
from payflow.services.notification.usecases.webhooks import SOURCE, event_of


async def queue_events(*, events: Sequence[Event], changes: WebhookChanges, ids: Ids, now: datetime) -> int:
    """Store a delivery for each event and webhook that wants it, in the transaction that also moves the consumer on;
    an event that comes again changes nothing. Returns how many deliveries were asked for."""
    webhooks = await changes.listening()
    if not webhooks:
        return 0
    deliveries = [
        Delivery(
            delivery_id=ids.new(),
            webhook_id=webhook.webhook_id,
            event_id=heard.event.id,
            event_type=heard.event.type,
            subject=heard.event.subject,
            body=heard.body,
            created_at=now,
        )
        for heard in map(domain.heard, events)
        if heard is not None
        for webhook in webhooks
        if webhook.wants(heard.event.type, heard.customer_id)
    ]
    await changes.add_deliveries(deliveries)
    return len(deliveries)


async def claim(
    *, store: WebhookStore, schedule: Schedule, busy: Sequence[UUID], limit: int, now: datetime
) -> list[Attempt]:
    """Take deliveries that are due, for the time of the schedule's lease. A process that dies leaves its claims to run
    out, and they are sent again: at least once, never not at all."""
    return await store.claim_webhooks(now=now, until=now + schedule.lease, busy=busy, limit=limit)


async def settle(
    *,
    replies: Sequence[tuple[Attempt, Reply]],
    store: WebhookStore,
    schedule: Schedule,
    jitters: Sequence[float],
    ids: Ids,
    now: datetime,
) -> list[Settled]:
    """Write what attempts came to, and what that means for their webhooks: whole, failing, or disabled.

    `jitters`: a random number from 0 to 1 for each. An attempt whose lease ran out and that was taken again is no
    longer ours: what became of it is left out of the answer.
    """
    if not replies:
        return []
    settled = [
        schedule.settle(attempt, reply, now=now, jitter=jitter)
        for (attempt, reply), jitter in zip(replies, jitters, strict=True)
    ]
    telling = [(attempt, reply) for attempt, reply in replies if domain.changes_webhook(attempt, reply, now=now)]
    async with store.transaction() as changes:
        # Webhooks before deliveries: the order in which a deletion takes its locks, too.
        webhooks = await changes.lock(sorted({attempt.webhook_id for attempt, _ in telling})) if telling else {}
        written = await changes.settle(settled)
        for attempt, reply in telling:
            before = webhooks.get(attempt.webhook_id)
            if before is None or attempt.delivery_id not in written:
                continue
            after = webhooks[attempt.webhook_id] = domain.after_reply(before, reply, now=now)
            if after is before or after == before:
                continue
            await changes.save([after])
            if after.state is WebhookState.DISABLED:
                await changes.append_events([event_of(after, "disabled", SOURCE, ids, now)])
    return [one for one in settled if one.delivery_id in written]


async def forget_old(*, store: WebhookStore, now: datetime, keep: timedelta) -> int:
    """Delete deliveries older than `keep`; returns how many."""
    return await store.delete_webhook_deliveries_before(now - keep)
