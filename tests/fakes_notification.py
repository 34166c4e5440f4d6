"""In-memory ports of the notification service. The store and the demo channel pass the same suite as the real ones."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from payflow.contracts.notification import DemoCode, FindDemoCode, MessageView
from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError
from payflow.services.notification.domain import (
    Accepted,
    Contact,
    DeliveryState,
    Message,
    Outcome,
    Outgoing,
    Preference,
    SendResult,
)
from payflow.services.notification.ports import CodeDelivery


@dataclass
class _Delivery:
    message: Message
    channel: str
    next_try_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    tries: int = 0
    ended_at: datetime | None = None
    reason: str | None = None


@dataclass
class _Tables:
    messages: dict[tuple[str, str], Message] = field(default_factory=dict)
    deliveries: dict[tuple[UUID, str], _Delivery] = field(default_factory=dict)
    preferences: dict[str, Preference] = field(default_factory=dict)


class FakeMessages:
    """One transaction over the in-memory tables."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    async def preferences(self, customer_ids: Sequence[str]) -> dict[str, Preference]:
        return {key: value for key, value in self._tables.preferences.items() if key in customer_ids}

    async def add(self, messages: Sequence[Message], *, kept_by: Collection[str] = ()) -> None:
        for message in messages:
            key = (message.about, str(message.kind))
            if key in self._tables.messages:
                continue
            self._tables.messages[key] = message
            for channel in message.channels:
                delivery = _Delivery(message, channel, message.created_at)
                if channel in kept_by and not message.has_code:
                    delivery.state, delivery.tries, delivery.ended_at = DeliveryState.DELIVERED, 1, message.created_at
                self._tables.deliveries[message.message_id, channel] = delivery

    async def claim_codes(self, abouts: Sequence[str], *, now: datetime, until: datetime) -> dict[str, int]:
        claimed = {}
        for delivery in self._codes(abouts):
            if delivery.state is DeliveryState.PENDING and delivery.next_try_at <= now:
                delivery.next_try_at, delivery.tries = until, delivery.tries + 1
                claimed[delivery.message.about] = delivery.tries
        return claimed

    async def codes(self, abouts: Sequence[str]) -> dict[str, CodeDelivery]:
        return {
            delivery.message.about: CodeDelivery(delivery.message.message_id, delivery.channel, delivery.state)
            for delivery in self._codes(abouts)
        }

    def _codes(self, abouts: Sequence[str]) -> list[_Delivery]:
        deliveries = self._tables.deliveries.values()
        return [delivery for delivery in deliveries if delivery.message.has_code and delivery.message.about in abouts]


class FakeNotificationStore:
    """The notification service's database in memory: one transaction at a time, all or nothing."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeMessages]:
        async with self._lock:
            working = copy.deepcopy(self._tables)
            yield FakeMessages(working)
            self._tables = working

    async def claim_due(self, *, now: datetime, until: datetime, limit: int) -> list[Outgoing]:
        due = [
            delivery
            for delivery in sorted(self._tables.deliveries.values(), key=lambda delivery: delivery.next_try_at)
            if delivery.state is DeliveryState.PENDING and not delivery.message.has_code and delivery.next_try_at <= now
        ]
        claimed = []
        for delivery in due[:limit]:
            delivery.next_try_at, delivery.tries = until, delivery.tries + 1
            message = delivery.message
            assert message.body is not None
            outgoing = Outgoing(
                message_id=message.message_id,
                customer_id=message.customer_id,
                kind=message.kind,
                subject=message.subject,
                body=message.body,
                channel=delivery.channel,
                tries=delivery.tries,
            )
            claimed.append(outgoing)
        return claimed

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            delivery = self._tables.deliveries[outcome.message_id, outcome.channel]
            if delivery.state is DeliveryState.PENDING:
                delivery.state, delivery.next_try_at = outcome.state, outcome.next_try_at
                delivery.ended_at, delivery.reason = outcome.ended_at, outcome.reason

    async def list_messages(self, customer_id: str, limit: int) -> list[MessageView]:
        mine = [
            delivery for delivery in self._tables.deliveries.values() if delivery.message.customer_id == customer_id
        ]
        mine.sort(key=lambda delivery: delivery.channel)
        mine.sort(key=lambda delivery: delivery.message.message_id, reverse=True)
        return [_view(delivery) for delivery in mine[:limit]]

    async def set_preferences(self, preferences: Mapping[str, Preference], now: datetime) -> None:
        self._tables.preferences.update(preferences)

    async def delete_before(self, instant: datetime) -> int:
        old = [key for key, message in self._tables.messages.items() if message.created_at < instant]
        gone = {self._tables.messages.pop(key).message_id for key in old}
        for key in [key for key in self._tables.deliveries if key[0] in gone]:
            del self._tables.deliveries[key]
        return len(old)


def _view(delivery: _Delivery) -> MessageView:
    return MessageView(
        message_id=delivery.message.message_id,
        kind=delivery.message.kind,
        channel=delivery.channel,
        state=delivery.state,
        subject=delivery.message.subject,
        created_at=delivery.message.created_at,
        delivered_at=delivery.ended_at if delivery.state is DeliveryState.DELIVERED else None,
    )


class FakeDemoChannel:
    """The demo channel in memory."""

    name = "demo"
    carries_codes = True
    needs_contact = False
    keeps_messages = True

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sent: dict[UUID, tuple[datetime, Outgoing]] = {}

    async def send(self, messages: Sequence[Outgoing]) -> list[SendResult]:
        for message in messages:
            self._sent.setdefault(message.message_id, (self._clock.now(), message))
        return [Accepted() for _ in messages]

    async def newest_codes(self, queries: Sequence[FindDemoCode]) -> list[DemoCode | None]:
        return [self._newest(query) for query in queries]

    def _newest(self, query: FindDemoCode) -> DemoCode | None:
        codes = [
            DemoCode(
                transaction_id=query.transaction_id,
                customer_id=message.customer_id,
                code=message.code,
                sent_at=sent_at,
                expires_at=message.expires_at,
            )
            for sent_at, message in self._sent.values()
            if message.code is not None
            and message.expires_at is not None
            and message.transaction_id == query.transaction_id
            and query.customer_id in (None, message.customer_id)
        ]
        return max(codes, key=lambda code: code.sent_at) if codes else None


class FakeChannel:
    """A channel such as SMS will be: keeps what it was given, and answers as it is told."""

    def __init__(self, name: str = "sms", *, carries_codes: bool = True, needs_contact: bool = False) -> None:
        self.name = name
        self.carries_codes = carries_codes
        self.needs_contact = needs_contact
        self.keeps_messages = False
        self.sent: list[Outgoing] = []
        self.answer: Callable[[Outgoing], SendResult] = lambda _: Accepted()

    async def send(self, messages: Sequence[Outgoing]) -> list[SendResult]:
        self.sent.extend(messages)
        await asyncio.sleep(0)
        return [self.answer(message) for message in messages]


class FakeContacts:
    """Contact data by customer; asked for nobody unless a channel needs it."""

    def __init__(self, known: Mapping[str, Contact | PayflowError] | None = None) -> None:
        self._known = known or {}
        self.asked: list[str] = []

    async def contacts(self, customer_ids: Sequence[str]) -> dict[str, Contact | PayflowError]:
        self.asked.extend(customer_ids)
        return {customer_id: self._known[customer_id] for customer_id in customer_ids}
