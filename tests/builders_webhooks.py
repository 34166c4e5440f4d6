"""Webhooks of the notification service over in-memory ports or over PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg

from payflow.contracts.notification import (
    ListWebhookDeliveries,
    RegisterWebhook,
    WebhookDeliveryPage,
    WebhookDeliveryView,
    Webhooks,
    WebhookView,
    WebhookWithSecret,
)
from payflow.contracts.topics import IncomingPayment, PaymentChanged
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox, event_of
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.notification.api import WebhookDuty, WebhooksApi
from payflow.services.notification.domain.addresses import AddressPolicy
from payflow.services.notification.domain.webhooks import Schedule
from payflow.services.notification.store import PostgresWebhookStore
from payflow.services.notification.usecases.webhook_deliveries import queue_events
from tests.builders import NOON, FixedClock, new_id
from tests.builders_notification import RisingIds
from tests.conftest import ConnectAs
from tests.fakes_webhooks import FakeSender, FakeWebhookStore, NumberedSecrets

ANYWHERE = "https://example.org/hooks"


class WebhookWorld:
    """Webhooks, and receivers that answer as they are told."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.clock = FixedClock()
        self.ids = RisingIds()
        self.sender = FakeSender()
        self.implementation = WebhooksApi(
            store=store,
            policy=AddressPolicy(is_production=True),
            secrets=NumberedSecrets(),
            clock=self.clock,
            ids=self.ids,
        )
        self.api: Webhooks = in_process(Webhooks, self.implementation, caller="gateway")
        self.duty = self.another_duty()

    def another_duty(self) -> WebhookDuty:
        """What another process does."""
        return WebhookDuty(
            store=self.store,
            sender=self.sender,
            schedule=Schedule(),
            clock=self.clock,
            ids=self.ids,
            random=lambda: 0.0,
            look_every_s=0.01,
        )

    async def register(self, url: str = ANYWHERE, event_types: tuple[str, ...] = ("*",), **more: Any) -> UUID:
        """A registered webhook's id."""
        return (await self.registered(url, event_types, **more)).webhook.webhook_id

    async def registered(
        self, url: str = ANYWHERE, event_types: tuple[str, ...] = ("*",), **more: Any
    ) -> WebhookWithSecret:
        """A registered webhook with its secret."""
        command = RegisterWebhook(
            webhook_id=self.ids.new(), url=url, event_types=list(event_types), registered_by="op", **more
        )
        (answer,) = await self.api.register_webhooks([command])
        assert isinstance(answer, WebhookWithSecret), answer
        return answer

    async def hear(self, *events: Event) -> None:
        async with self.store.transaction() as changes:
            await queue_events(events=events, changes=changes, ids=self.ids, now=self.clock.now())

    async def send_due(self) -> int:
        """Have everything sent that is due; how many calls that took."""
        before = len(self.sender.sent)
        while await self.duty.step():
            await self.duty.finish()
        return len(self.sender.sent) - before

    async def deliveries(self, webhook_id: UUID, **query: Any) -> list[WebhookDeliveryView]:
        (answer,) = await self.api.list_webhook_deliveries([ListWebhookDeliveries(webhook_id=webhook_id, **query)])
        assert isinstance(answer, WebhookDeliveryPage), answer
        return answer.deliveries

    async def told(self) -> list[tuple[str, str]]:
        """The changes that were told of: what, and by whom."""
        return [(event.type, event.data["actor"]) for event in await self.events()]

    async def events(self) -> list[Event]:
        return list(self.store.events)


class PostgresWebhookWorld(WebhookWorld):
    """The same over the real store."""

    def __init__(self, store: PostgresWebhookStore, database: Database) -> None:
        super().__init__(store)
        self.database = database

    async def events(self) -> list[Event]:
        from payflow.platform.eventlog.origin import read_events

        rows = await self.database.fetch("SELECT events FROM event_log.batch ORDER BY id")
        return [event for row in rows for event in read_events(row["events"])]


def webhooks_in_memory() -> WebhookWorld:
    return WebhookWorld(FakeWebhookStore())


async def webhooks_over_postgres(connect_as: ConnectAs, owner_url: str, cipher: ColumnCipher) -> PostgresWebhookWorld:
    """The real store, with nothing of other tests in it."""
    owner = await asyncpg.connect(owner_url)
    await owner.execute("TRUNCATE notification.webhook, notification.webhook_delivery, event_log.batch")
    await owner.close()
    database = await connect_as("notification")
    store = PostgresWebhookStore(database=database, cipher=cipher, outbox=Outbox(database))
    return PostgresWebhookWorld(store, database)


def a_payment_event(
    type_: str = "payment.completed", *, customer_id: str = "cust_001", payment_id: UUID | None = None, **data: Any
) -> Event:
    """An event about a payment."""
    payment_id = payment_id or new_id()
    values: dict[str, Any] = {
        "payment_id": payment_id,
        "transaction_id": "txn_001",
        "customer_id": customer_id,
        "state": type_.partition(".")[2].upper(),
        "path": ["RECEIVED"],
        "amount_minor": 123_456,
        "currency": "EUR",
        "debtor_account": "ACC1234001",
        "creditor_account": "…1001",
        "reason": "matches entry 4711 of a list",
    }
    return event_of(
        id=new_id(),
        source="confirm",
        type=type_,
        subject=str(payment_id),
        version=3,
        time=NOON,
        data=PaymentChanged(**{**values, **data}),
        traceparent="",
    )


def an_incoming_event(customer_id: str | None = "cust_001") -> Event:
    """An event about money from another bank."""
    payment_id = new_id()
    data = IncomingPayment(
        payment_id=payment_id,
        end_to_end_id="E2E-1",
        customer_id=customer_id,
        account="ACC1234001",
        amount_minor=500,
        currency="EUR",
        agent_bic="NORDDEFFXXX",
    )
    return event_of(
        id=new_id(),
        source="partner_bank",
        type="incoming.credited",
        subject=str(payment_id),
        version=1,
        time=NOON,
        data=data,
        traceparent="",
    )


def result(answer: Any) -> Any:
    """An answer that is no error."""
    assert not isinstance(answer, PayflowError), answer
    return answer


def view(answer: Any) -> WebhookView:
    """An answer that is a webhook."""
    assert isinstance(answer, WebhookView), answer
    return answer


async def until_at_least(look: Callable[[], Awaitable[int]], least: int) -> None:
    """Wait until a count has come to this."""
    for _ in range(500):
        if await look() >= least:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"not {least} within 10 s")
