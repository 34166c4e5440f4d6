"""Sends one-time codes at once, in the call that brings them; the code is stored nowhere but by the channel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.notification import MessageAccepted, SendOtpCode
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.services.notification.domain import (
    ARRIVED,
    Kind,
    Notice,
    Outcome,
    Outgoing,
    Preference,
    RetryPolicy,
    Texts,
    values_of_code,
)
from payflow.services.notification.ports import Channel, CodeDelivery, CodeWay, Contacts, Messages, Store, Templates
from payflow.services.notification.usecases.deliveries import send_by_channel
from payflow.services.notification.usecases.rendering import render, ways_of


class Patience(Protocol):
    """How long the caller still waits."""

    def __call__(self, *, ways_left: int) -> float:
        """Seconds that the next way may take while so many are left, itself included; 0 when there is no time left."""
        ...


@dataclass
class _Sending:
    """A code on its way out: the ways that are left to try, and what came of those that were tried."""

    command: SendOtpCode
    message_id: UUID
    texts: Texts
    created_at: datetime
    ways: list[CodeWay]
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def sent_by(self) -> str | None:
        """The channel that took it."""
        return next((outcome.channel for outcome in self.outcomes if outcome.state in ARRIVED), None)

    def outgoing(self, way: CodeWay) -> Outgoing:
        return Outgoing(
            message_id=self.message_id,
            customer_id=self.command.customer_id,
            kind=Kind.OTP_CODE,
            subject=self.texts.subject,
            short=self.texts.short,
            body=self.texts.body,
            channel=way.channel,
            tries=way.tries + 1,
            created_at=self.created_at,
            is_doubtful=way.is_doubtful,
            code=self.command.code,
            transaction_id=self.command.transaction_id,
            expires_at=self.command.expires_at,
        )


async def send_codes(
    *,
    commands: Sequence[SendOtpCode],
    store: Store,
    channels: Sequence[Channel],
    contacts: Contacts,
    templates: Templates,
    policy: RetryPolicy,
    patience: Patience,
    ids: Ids,
    clock: Clock,
) -> Answers[MessageAccepted]:
    """Send each code by one of its customer's ways, the next one where one fails: one answer per command, in order.

    Safe to repeat: one message per challenge; a repeat sends nothing once a channel has taken the code, and tries
    again where none has. Items are Unavailable when no channel in use carries codes, when none took the code in time,
    or while another process is sending it.
    """
    carriers = [channel for channel in channels if channel.carries_codes]
    if not carriers:
        return [Unavailable("No channel that carries one-time passwords is in use.") for _ in commands]
    by_about = {str(command.challenge_id): command for command in commands}
    now = clock.now()
    async with store.transaction() as messages:
        texts = await _add(by_about, messages=messages, carriers=carriers, templates=templates, ids=ids, now=now)
        claimed = await messages.claim_codes(sorted(by_about), now=now, until=now + policy.lease)
        known = await messages.codes(sorted(by_about))
    sendings = {
        about: _Sending(by_about[about], known[about].message_id, texts[about], now, list(ways))
        for about, ways in claimed.items()
    }
    await _try_ways(
        list(sendings.values()), channels=carriers, contacts=contacts, policy=policy, patience=patience, clock=clock
    )
    await store.finish([outcome for sending in sendings.values() for outcome in sending.outcomes])
    # A code is not tried again by itself: it waits for the repeat, which may come at once. Ways that were not needed
    # wait for word that the one which was has failed.
    open_ones = [one.message_id for one in sendings.values() if one.sent_by is None or one.ways]
    await store.release_codes(open_ones, clock.now())
    return [_answer(known, sendings, str(command.challenge_id)) for command in commands]


async def _add(
    by_about: Mapping[str, SendOtpCode],
    *,
    messages: Messages,
    carriers: Sequence[Channel],
    templates: Templates,
    ids: Ids,
    now: datetime,
) -> dict[str, Texts]:
    """Store the messages that are not there yet; the texts of all of them, which are stored nowhere."""
    preferences = await messages.preferences(sorted({command.customer_id for command in by_about.values()}))
    rendered = {
        about: render(
            Notice(Kind.OTP_CODE, about, by_about[about].customer_id, values_of_code(by_about[about])),
            message_id=ids.new(),
            preference=preferences.get(by_about[about].customer_id, Preference()),
            ways=ways_of(carriers),
            templates=templates,
            now=now,
        )
        for about in sorted(by_about)
    }
    await messages.add([message for message, _ in rendered.values()])
    return {about: texts for about, (_, texts) in rendered.items()}


async def _try_ways(
    sendings: Sequence[_Sending],
    *,
    channels: Sequence[Channel],
    contacts: Contacts,
    policy: RetryPolicy,
    patience: Patience,
    clock: Clock,
) -> None:
    """Try each code's next way until it is sent, has no more ways, or nobody waits any more."""
    while True:
        open_ones = [sending for sending in sendings if sending.ways and sending.sent_by is None]
        within_s = patience(ways_left=max((len(one.ways) for one in open_ones), default=0))
        if not open_ones or within_s <= 0:
            return
        outgoing = [sending.outgoing(sending.ways.pop(0)) for sending in open_ones]
        results = await send_by_channel(messages=outgoing, channels=channels, contacts=contacts, within_s=within_s)
        now = clock.now()
        for sending, message, result in zip(open_ones, outgoing, results, strict=True):
            sending.outcomes.append(replace(policy.outcome(message, result, now=now), next_try_at=now))


def _answer(
    known: Mapping[str, CodeDelivery], sendings: Mapping[str, _Sending], about: str
) -> MessageAccepted | PayflowError:
    delivery, sending = known[about], sendings.get(about)
    if delivery.state in ARRIVED:
        return MessageAccepted(message_id=delivery.message_id, channel=delivery.channel)
    if sending is not None and sending.sent_by is not None:
        return MessageAccepted(message_id=delivery.message_id, channel=sending.sent_by)
    return Unavailable("The one-time password was not sent.")
