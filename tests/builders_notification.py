"""The notification service over in-memory ports or over PostgreSQL, with customers of a test's own."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any
from uuid import UUID

from payflow.contracts.notification import (
    ListMessages,
    MessageList,
    MessageView,
    Notification,
    SendOtpCode,
)
from payflow.contracts.topics import PaymentChanged
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import event_of
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.notification.api import NotificationApi
from payflow.services.notification.channels.demo import DemoChannel
from payflow.services.notification.channels.log import LogChannel
from payflow.services.notification.store import PostgresStore
from payflow.services.notification.templates import FileTemplates
from payflow.services.notification.usecases.notices import queue_notices
from payflow.services.notification.usecases.rendering import ways_of
from tests.builders import NOON, FixedClock, new_id
from tests.fakes_notification import FakeContacts, FakeDemoChannel, FakeNotificationStore


@cache
def shipped_templates() -> FileTemplates:
    """The texts that come with the service, read and compiled once."""
    return FileTemplates.load()


class RisingIds:
    """Identifiers that rise also within one millisecond, so that "newest first" can be told."""

    def __init__(self) -> None:
        self._last = new_id().int

    def new(self) -> UUID:
        self._last += 1
        return UUID(int=self._last)


class World:
    """The notification service with customers of a test's own."""

    def __init__(self, store: Any, demo: Any, clock: FixedClock) -> None:
        self.store = store
        self.demo = demo
        self.clock = clock
        self.ids = RisingIds()
        self.contacts = FakeContacts()
        self.templates = shipped_templates()
        self.customer_id = f"cust_{new_id().hex}"
        self.use(demo, LogChannel())

    def use(self, *channels: Any, contacts: Any = None) -> None:
        """Go on with these channels, the preferred one first."""
        self.ways = ways_of(channels)
        self.kept_by = [channel.name for channel in channels if channel.keeps_messages]
        self.api = NotificationApi(
            store=self.store,
            channels=channels,
            demo=self.demo if self.demo in channels else None,
            contacts=contacts or self.contacts,
            templates=self.templates,
            clock=self.clock,
            ids=self.ids,
        )
        self.otp: Notification = in_process(Notification, self.api, caller="otp")
        self.cli: Notification = in_process(Notification, self.api, caller="cli")

    async def hear(self, *events: Event) -> None:
        async with self.store.transaction() as messages:
            await queue_notices(
                events=events,
                messages=messages,
                ways=self.ways,
                kept_by=self.kept_by,
                templates=self.templates,
                ids=self.ids,
                now=self.clock.now(),
            )

    async def messages(self, customer_id: str = "") -> list[MessageView]:
        (answer,) = await self.cli.list_messages([ListMessages(customer_id=customer_id or self.customer_id)])
        assert isinstance(answer, MessageList)
        return answer.messages

    def a_code(self, code: str = "012345", **changes: Any) -> SendOtpCode:
        values: dict[str, Any] = {
            "challenge_id": new_id(),
            "customer_id": self.customer_id,
            "transaction_id": f"txn_{new_id().hex}",
            "code": code,
            "amount": "15000.00",
            "currency": "USD",
            "creditor": "…1001",
            "expires_at": self.clock.now() + timedelta(minutes=5),
        }
        return SendOtpCode(**{**values, **changes})

    def another_customer(self) -> str:
        return f"cust_{new_id().hex}"

    def an_event(
        self, type_: str = "payment.completed", *, payment_id: UUID | None = None, customer_id: str = ""
    ) -> Event:
        payment_id = payment_id or new_id()
        data = PaymentChanged(
            payment_id=payment_id,
            transaction_id="txn_001",
            customer_id=customer_id or self.customer_id,
            state="COMPLETED",
            path=["RECEIVED", "COMPLETED"],
            amount_minor=100_000,
            currency="USD",
            debtor_account="…C001",
            creditor_account="…C002",
        )
        return event_of(
            id=new_id(),
            source="confirm",
            type=type_,
            subject=str(payment_id),
            version=1,
            time=NOON,
            data=data,
            traceparent="",
        )


def in_memory() -> World:
    """The service over its fakes."""
    clock = FixedClock()
    return World(FakeNotificationStore(), FakeDemoChannel(clock), clock)


async def over_postgres(database: Database, cipher: ColumnCipher) -> World:
    """The service over its real store and demo channel."""
    # Messages of other tests in the same database are not due in this one's time.
    await database.execute("UPDATE delivery SET next_try_at = 'infinity' WHERE state = 'PENDING'")
    clock = FixedClock()
    demo = DemoChannel(database=database, cipher=cipher, clock=clock)
    return World(PostgresStore(database=database), demo, clock)
