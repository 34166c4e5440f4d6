"""In-memory ports of the notification service. The store and the demo channel pass the same suite as the real ones."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from payflow.contracts.notification import DemoCode, FindDemoCode, MessageView
from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError
from payflow.services.notification.domain import (
    ARRIVED,
    DELIVERY,
    DEVICES_MAX,
    Accepted,
    Contact,
    DeliveryState,
    Device,
    Message,
    Outcome,
    Outgoing,
    Preference,
    Receipt,
    SendResult,
)
from payflow.services.notification.ports import CodeDelivery, CodeWay

FINAL = DELIVERY.final_states


@dataclass
class _Delivery:
    message: Message
    channel: str
    next_try_at: datetime
    place: int = 0
    state: DeliveryState = DeliveryState.PENDING
    tries: int = 0
    ended_at: datetime | None = None
    sent_at: datetime | None = None
    reason: str | None = None
    vendor_id: str | None = None
    is_doubtful: bool = False

    @property
    def is_open(self) -> bool:
        return self.state in (DeliveryState.WAITING, DeliveryState.PENDING)


@dataclass
class _Tables:
    messages: dict[tuple[str, str], Message] = field(default_factory=dict)
    deliveries: dict[tuple[UUID, str], _Delivery] = field(default_factory=dict)
    preferences: dict[str, Preference] = field(default_factory=dict)
    receipts: dict[tuple[str, str], Receipt] = field(default_factory=dict)

    def ways(self, message_id: UUID) -> list[_Delivery]:
        mine = [delivery for (owner, _), delivery in self.deliveries.items() if owner == message_id]
        return sorted(mine, key=lambda delivery: delivery.place)

    def finish(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            delivery = self.deliveries[outcome.message_id, outcome.channel]
            is_word_about_sent = delivery.state is DeliveryState.SENT and outcome.state in FINAL
            if not delivery.is_open and not is_word_about_sent:
                continue
            delivery.state, delivery.next_try_at = outcome.state, outcome.next_try_at
            delivery.ended_at, delivery.reason = outcome.ended_at, outcome.reason
            delivery.tries = max(delivery.tries, outcome.tries)
            delivery.is_doubtful = outcome.is_doubtful
            delivery.vendor_id = outcome.vendor_id or delivery.vendor_id
            if outcome.state is DeliveryState.SENT:
                delivery.sent_at = delivery.sent_at or outcome.ended_at
            if outcome.state is DeliveryState.FAILED and not delivery.message.has_code:
                self._begin_next(delivery)

    def _begin_next(self, failed: _Delivery) -> None:
        for way in self.ways(failed.message.message_id):
            if way.state is DeliveryState.WAITING and way.place > failed.place:
                assert failed.ended_at is not None
                way.state, way.next_try_at = DeliveryState.PENDING, failed.ended_at
                return


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
            for place, channel in enumerate(message.channels):
                state = DeliveryState.WAITING if place else DeliveryState.PENDING
                delivery = _Delivery(message, channel, message.created_at, place, state)
                if place == 0 and channel in kept_by and not message.has_code:
                    delivery.state, delivery.tries, delivery.ended_at = DeliveryState.DELIVERED, 1, message.created_at
                self._tables.deliveries[message.message_id, channel] = delivery

    async def claim_codes(
        self, abouts: Sequence[str], *, now: datetime, until: datetime
    ) -> dict[str, tuple[CodeWay, ...]]:
        claimed = {}
        for about in abouts:
            ways = self._code_ways(about)
            is_sent = any(way.state in ARRIVED for way in ways)
            if is_sent or any(way.is_open and way.next_try_at > now for way in ways):
                continue
            for way in ways:
                if way.is_open:
                    way.next_try_at = until
                    known = CodeWay(way.channel, way.tries, way.is_doubtful)
                    claimed[about] = (*claimed.get(about, ()), known)
        return claimed

    async def codes(self, abouts: Sequence[str]) -> dict[str, CodeDelivery]:
        found = {}
        for about in abouts:
            for way in sorted(self._code_ways(about), key=lambda way: way.state not in ARRIVED)[:1]:
                found[about] = CodeDelivery(way.message.message_id, way.channel, way.state)
        return found

    async def lock_deliveries(self, keys: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], DeliveryState]:
        return {key: self._tables.deliveries[key].state for key in keys if key in self._tables.deliveries}

    async def add_receipts(self, receipts: Sequence[Receipt], *, now: datetime) -> set[tuple[str, str]]:
        new = {(one.vendor, one.event_id): one for one in receipts if (one.vendor, one.event_id) not in self._receipts}
        self._receipts.update(new)
        return set(new)

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        self._tables.finish(outcomes)

    @property
    def _receipts(self) -> dict[tuple[str, str], Receipt]:
        return self._tables.receipts

    def _code_ways(self, about: str) -> list[_Delivery]:
        message = self._tables.messages.get((about, "otp_code"))
        return self._tables.ways(message.message_id) if message else []


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

    async def claim_due(
        self, *, channel: str | None, in_use: Sequence[str], now: datetime, until: datetime, limit: int
    ) -> list[Outgoing]:
        due = [
            delivery
            for delivery in sorted(self._tables.deliveries.values(), key=lambda delivery: delivery.next_try_at)
            if delivery.state is DeliveryState.PENDING
            and not delivery.message.has_code
            and delivery.next_try_at <= now
            and (delivery.channel == channel or (channel is None and delivery.channel not in in_use))
        ]
        claimed = []
        for delivery in due[:limit]:
            was_doubtful = delivery.is_doubtful
            delivery.next_try_at, delivery.tries, delivery.is_doubtful = until, delivery.tries + 1, True
            message = delivery.message
            assert message.body is not None
            outgoing = Outgoing(
                message_id=message.message_id,
                customer_id=message.customer_id,
                kind=message.kind,
                subject=message.subject,
                short=message.short or message.body,
                body=message.body,
                channel=delivery.channel,
                tries=delivery.tries,
                created_at=message.created_at,
                has_next_way=any(way.state is DeliveryState.WAITING for way in self._tables.ways(message.message_id)),
                is_doubtful=was_doubtful,
            )
            claimed.append(outgoing)
        return claimed

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        self._tables.finish(outcomes)

    async def release_codes(self, message_ids: Sequence[UUID], now: datetime) -> None:
        for message_id in message_ids:
            for way in self._tables.ways(message_id):
                if way.is_open:
                    way.next_try_at = now

    async def list_messages(self, customer_id: str, limit: int) -> list[MessageView]:
        mine = [
            delivery
            for delivery in self._tables.deliveries.values()
            if delivery.message.customer_id == customer_id and delivery.state is not DeliveryState.WAITING
        ]
        mine.sort(key=lambda delivery: delivery.place)
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
        sent_at=delivery.sent_at,
        reason=delivery.reason,
    )


class FakeDemoChannel:
    """The demo channel in memory."""

    name = "demo"
    carries_codes = True
    needs_contact = False
    reaches_customers = True
    keeps_messages = True
    batch_max = 1000

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sent: dict[UUID, tuple[datetime, Outgoing]] = {}

    async def send(self, messages: Sequence[Outgoing], *, within_s: float | None = None) -> list[SendResult]:
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
        self.reaches_customers = True
        self.keeps_messages = False
        self.batch_max = 1000
        self.sent: list[Outgoing] = []
        self.answer: Callable[[Outgoing], SendResult] = lambda _: Accepted()

    async def send(self, messages: Sequence[Outgoing], *, within_s: float | None = None) -> list[SendResult]:
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


class FakeDevices:
    """Customers' devices in memory; passes the same suite as the table."""

    def __init__(self) -> None:
        self.rows: dict[bytes, Device] = {}

    async def register(self, devices: Sequence[Device]) -> dict[bytes, Device]:
        for device in devices:
            known = self.rows.get(device.token_digest, device)
            self.rows[device.token_digest] = replace(
                device, device_id=known.device_id, registered_at=known.registered_at
            )
        registered = {device.token_digest: self.rows[device.token_digest] for device in devices}
        for customer_id in {device.customer_id for device in devices}:
            for surplus in self._of(customer_id)[DEVICES_MAX:]:
                del self.rows[surplus.token_digest]
        return registered

    async def of_customers(self, customer_ids: Sequence[str]) -> dict[str, list[Device]]:
        found = {customer_id: self._of(customer_id) for customer_id in customer_ids}
        return {customer_id: devices for customer_id, devices in found.items() if devices}

    async def remove(self, keys: Sequence[tuple[str, UUID]]) -> set[tuple[str, UUID]]:
        known = {(device.customer_id, device.device_id) for device in self.rows.values()}
        gone = known & set(keys)
        await self.forget([device_id for _, device_id in gone])
        return gone

    async def forget(self, device_ids: Sequence[UUID]) -> None:
        self.rows = {key: device for key, device in self.rows.items() if device.device_id not in device_ids}

    def _of(self, customer_id: str) -> list[Device]:
        mine = [device for device in self.rows.values() if device.customer_id == customer_id]
        return sorted(mine, key=lambda device: (device.seen_at, device.device_id), reverse=True)
