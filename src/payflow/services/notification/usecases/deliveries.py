"""Sends what is due, off every other transaction: claim, send, write what it came to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError, Rejection
from payflow.services.notification.domain import (
    NO_TIME_LEFT,
    NOT_IN_USE,
    Contact,
    Outcome,
    Outgoing,
    PermanentFailure,
    RetryPolicy,
    SendResult,
    TemporaryFailure,
)
from payflow.services.notification.ports import Channel, Contacts, Store


async def deliver_due(
    *,
    store: Store,
    channel: str | None,
    channels: Sequence[Channel],
    contacts: Contacts,
    policy: RetryPolicy,
    clock: Clock,
    limit: int,
) -> list[Outcome]:
    """Send up to `limit` messages that are due by one channel, or by any that is not in use; what each try came to.

    No transaction is open while a channel is at work. A process that dies in between leaves its claim to run out, and
    the message is sent again: at least once, never not at all.
    """
    now = clock.now()
    messages = await store.claim_due(
        channel=channel, in_use=[one.name for one in channels], now=now, until=now + policy.lease, limit=limit
    )
    results = await send_by_channel(messages=messages, channels=channels, contacts=contacts)
    # The pause before the next try begins when this one ends.
    now = clock.now()
    outcomes = [policy.outcome(message, result, now=now) for message, result in zip(messages, results, strict=True)]
    await store.finish(outcomes)
    return outcomes


async def send_by_channel(
    *, messages: Sequence[Outgoing], channels: Sequence[Channel], contacts: Contacts, within_s: float | None = None
) -> list[SendResult]:
    """Hand each message to its channel, a batch for each, all channels at the same time; one result per message."""
    results: list[SendResult] = [TemporaryFailure(NOT_IN_USE) for _ in messages]

    async def send(channel: Channel) -> None:
        places = [place for place, message in enumerate(messages) if message.channel == channel.name]
        if places:
            sent = await _send(channel, [messages[place] for place in places], contacts, within_s)
            for place, result in zip(places, sent, strict=True):
                results[place] = result

    await asyncio.gather(*(send(channel) for channel in channels))
    return results


async def _send(
    channel: Channel, messages: Sequence[Outgoing], contacts: Contacts, within_s: float | None
) -> list[SendResult]:
    known: dict[str, Contact | PayflowError] = {}
    loop = asyncio.get_running_loop()
    gives_up_at = None if within_s is None else loop.time() + within_s
    try:
        if channel.needs_contact:
            async with asyncio.timeout_at(gives_up_at):
                known = await contacts.contacts(sorted({message.customer_id for message in messages}))
        results: dict[int, SendResult] = {}
        ready: dict[int, Outgoing] = {}
        for place, message in enumerate(messages):
            contact = known.get(message.customer_id)
            if isinstance(contact, PayflowError):
                kind = PermanentFailure if isinstance(contact, Rejection) else TemporaryFailure
                results[place] = kind(contact.code)
            else:
                ready[place] = replace(message, contact=contact)
        left_s = None if gives_up_at is None else max(0.0, gives_up_at - loop.time())
        sent = await channel.send(list(ready.values()), within_s=left_s) if ready else []
        results.update(zip(ready, sent, strict=True))
        return [results[place] for place in range(len(messages))]
    except TimeoutError:
        # Where the customer can be reached was not told in time; a way that need not know may still be.
        return [TemporaryFailure(NO_TIME_LEFT) for _ in messages]
    except Exception as error:
        # One channel's failure must not keep the other channels' messages, and what it says may quote a message.
        return [TemporaryFailure(type(error).__name__, is_unanswered=True) for _ in messages]


async def forget_old(*, store: Store, now: datetime, keep: timedelta) -> int:
    """Delete messages older than `keep`; returns how many."""
    return await store.delete_before(now - keep)
