"""Reads the notification service's settings and wires it."""

from __future__ import annotations

import random
from datetime import timedelta
from functools import partial
from typing import Annotated

import msgspec
import structlog

from payflow.contracts.account import Account
from payflow.contracts.notification import Notification, Webhooks
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, SettingsError, describe
from payflow.services.notification.api import NotificationApi, WebhookDuty, WebhooksApi
from payflow.services.notification.channels.demo import DemoChannel
from payflow.services.notification.channels.log import LogChannel
from payflow.services.notification.channels.webhook import HttpSender, SystemSecrets
from payflow.services.notification.consumer import (
    TOPICS,
    WEBHOOK_CONSUMER,
    WEBHOOK_TOPICS,
    NotificationConsumer,
    WebhookConsumer,
    while_heard,
)
from payflow.services.notification.contacts import AccountContacts
from payflow.services.notification.domain.addresses import AddressPolicy, read_networks
from payflow.services.notification.domain.webhooks import Schedule
from payflow.services.notification.ports import Channel
from payflow.services.notification.store import PostgresStore, PostgresWebhookStore
from payflow.services.notification.templates import FileTemplates

log = structlog.get_logger(__name__)

_CLEAN_UP_EVERY_S = 3600.0
_LOOK_FOR_WEBHOOKS_EVERY_S = 1.0


class NotificationSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the notification service."""

    column_keys: Annotated[
        str, describe("keys of encrypted columns as JSON; best given as _FILE", check=ColumnCipher.from_json)
    ]
    demo_channel: Annotated[
        bool | None, describe("keep messages in a local outbox that `payflow otp` reads; on unless in production")
    ] = None
    delivery_check_s: Annotated[float, describe("pause between looks for messages to send"), msgspec.Meta(gt=0)] = 0.5
    message_keep_days: Annotated[int, describe("days until old messages are deleted"), msgspec.Meta(ge=1)] = 90
    webhook_allowed_networks: Annotated[
        str,
        describe(
            "networks such as 10.1.0.0/16, split by commas, that webhooks may call although not public",
            check=read_networks,
        ),
    ] = ""
    webhook_keep_days: Annotated[
        int, describe("days until webhooks' old deliveries are deleted"), msgspec.Meta(ge=5)
    ] = 30

    @property
    def is_demo_on(self) -> bool:
        """Whether the demo channel is in use: as set, else everywhere but in production."""
        return self.env != "production" if self.demo_channel is None else self.demo_channel


SETTINGS = NotificationSettings


async def build(runtime: Runtime) -> Service:
    """Wire the notification service."""
    settings = runtime.settings(NotificationSettings)
    if settings.env == "production" and settings.is_demo_on:
        raise SettingsError("PAYFLOW_DEMO_CHANNEL: the demo channel shows one-time passwords; not in production.")
    cipher = runtime.cipher(settings.column_keys)
    templates = FileTemplates.load()
    database = await runtime.database()
    demo = DemoChannel(database=database, cipher=cipher, clock=runtime.clock) if settings.is_demo_on else None
    channels: list[Channel] = [LogChannel()] if demo is None else [demo, LogChannel()]
    if demo is None:
        log.warning("notification.no_channel_for_codes", effect="payments that need a one-time password answer 503")
    api = NotificationApi(
        store=PostgresStore(database=database),
        channels=channels,
        demo=demo,
        contacts=AccountContacts(runtime.client(Account)),
        templates=templates,
        clock=runtime.clock,
        ids=runtime.ids,
    )
    handler = NotificationConsumer(channels=channels, templates=templates, clock=runtime.clock, ids=runtime.ids)
    consumer = runtime.consumer(topics=list(TOPICS), handler=handler, database=database)
    keep = timedelta(days=settings.message_keep_days)
    service = Service(
        implementations=[(Notification, api)],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={
            "consume": consumer.run,
            "deliver": every(settings.delivery_check_s, api.deliver_due),
            "forget_old": every(_CLEAN_UP_EVERY_S, lambda: api.forget_old(keep)),
        },
    )
    _add_webhooks(service, runtime, settings, database, cipher)
    runtime.add_relay(service, database)
    return service


def _add_webhooks(
    service: Service, runtime: Runtime, settings: NotificationSettings, database: Database, cipher: ColumnCipher
) -> None:
    policy = _address_policy(settings)
    store = PostgresWebhookStore(database=database, cipher=cipher, outbox=runtime.outbox(database))
    sender = HttpSender(policy=policy)
    runtime.on_close(sender.close)
    duty = WebhookDuty(
        store=store,
        sender=sender,
        schedule=Schedule(),
        clock=runtime.clock,
        ids=runtime.ids,
        random=random.random,
        look_every_s=settings.delivery_check_s,
    )
    api = WebhooksApi(
        store=store,
        policy=policy,
        secrets=SystemSecrets(),
        clock=runtime.clock,
        ids=runtime.ids,
        when_due=duty.wake,
    )
    handler = WebhookConsumer(store=store, clock=runtime.clock, ids=runtime.ids)
    consumer = runtime.consumer(
        topics=list(WEBHOOK_TOPICS),
        handler=handler,
        database=database,
        name=WEBHOOK_CONSUMER,
        after_commit=lambda _: duty.wake(),
    )
    keep = timedelta(days=settings.webhook_keep_days)
    service.implementations.append((Webhooks, api))
    # A member of a group in Kafka costs little while nobody listens, and stands at the end when somebody begins to.
    only_while_heard = partial(while_heard, consume=consumer.run, store=store, pause_s=_LOOK_FOR_WEBHOOKS_EVERY_S)
    service.background |= {
        "hear_for_webhooks": only_while_heard if runtime.kafka is None else consumer.run,
        "call_webhooks": duty.run,
        "forget_old_webhook_deliveries": every(_CLEAN_UP_EVERY_S, lambda: api.forget_old(keep)),
    }


def _address_policy(settings: NotificationSettings) -> AddressPolicy:
    try:
        allowed = read_networks(settings.webhook_allowed_networks)
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_WEBHOOK_ALLOWED_NETWORKS: {error}.") from None
    return AddressPolicy(is_production=settings.env == "production", allowed=allowed)
