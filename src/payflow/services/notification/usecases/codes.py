"""Sends one-time codes at once, in the call that brings them; the code is stored nowhere but by the channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from payflow.contracts.notification import MessageAccepted, SendOtpCode
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Ids
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.services.notification.domain import (
    DeliveryState,
    Kind,
    Notice,
    Outgoing,
    Preference,
    RetryPolicy,
    values_of_code,
)
from payflow.services.notification.ports import Channel, CodeDelivery, Contacts, Store, Templates
from payflow.services.notification.usecases.deliveries import send_by_channel
from payflow.services.notification.usecases.rendering import render


async def send_codes(
    *,
    commands: Sequence[SendOtpCode],
    store: Store,
    channels: Sequence[Channel],
    contacts: Contacts,
    templates: Templates,
    policy: RetryPolicy,
    ids: Ids,
    now: datetime,
) -> Answers[MessageAccepted]:
    """Send each code by one channel: one answer per command, in order.

    Safe to repeat: one message per challenge; a repeat sends nothing once a channel has taken the code, and tries
    again where none has. Items are Unavailable when no channel in use carries codes, when the channel did not take the
    code, or while another process is sending it.
    """
    carriers = [channel for channel in channels if channel.carries_codes]
    if not carriers:
        return [Unavailable("No channel that carries one-time passwords is in use.") for _ in commands]
    by_about = {str(command.challenge_id): command for command in commands}
    abouts = sorted(by_about)
    bodies: dict[str, tuple[str, str]] = {}
    async with store.transaction() as messages:
        preferences = await messages.preferences(sorted({command.customer_id for command in commands}))
        new = []
        for about in abouts:
            command = by_about[about]
            notice = Notice(Kind.OTP_CODE, about, command.customer_id, values_of_code(command))
            message, body = render(
                notice,
                message_id=ids.new(),
                preference=preferences.get(command.customer_id, Preference()),
                channels=[carrier.name for carrier in carriers],
                templates=templates,
                now=now,
            )
            new.append(message)
            bodies[about] = (message.subject, body)
        await messages.add(new)
        claimed = await messages.claim_codes(abouts, now=now, until=now + policy.lease)
        known = await messages.codes(abouts)
    outgoing = [_outgoing(by_about[about], known[about], bodies[about], tries) for about, tries in claimed.items()]
    results = await send_by_channel(messages=outgoing, channels=carriers, contacts=contacts)
    # A code is not tried again by itself: it waits for the repeat, which may come at once.
    outcomes = [policy.outcome(message, result, now=now) for message, result in zip(outgoing, results, strict=True)]
    await store.finish([replace(outcome, next_try_at=now) for outcome in outcomes])
    sent = {outcome.message_id for outcome in outcomes if outcome.state is DeliveryState.DELIVERED}
    return [_answer(known, str(command.challenge_id), sent) for command in commands]


def _outgoing(command: SendOtpCode, delivery: CodeDelivery, text: tuple[str, str], tries: int) -> Outgoing:
    subject, body = text
    return Outgoing(
        message_id=delivery.message_id,
        customer_id=command.customer_id,
        kind=Kind.OTP_CODE,
        subject=subject,
        body=body,
        channel=delivery.channel,
        tries=tries,
        code=command.code,
        transaction_id=command.transaction_id,
        expires_at=command.expires_at,
    )


def _answer(known: Mapping[str, CodeDelivery], about: str, sent: set[UUID]) -> MessageAccepted | PayflowError:
    delivery = known[about]
    if delivery.state is DeliveryState.DELIVERED or delivery.message_id in sent:
        return MessageAccepted(message_id=delivery.message_id, channel=delivery.channel)
    return Unavailable("The one-time password was not sent.")
