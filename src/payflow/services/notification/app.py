"""Reads the notification service's settings and wires it."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Annotated

import msgspec
import structlog

from payflow.contracts.account import Account
from payflow.contracts.callbacks import Callbacks
from payflow.contracts.devices import Devices
from payflow.contracts.notification import Notification, Webhooks
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import SettingsError, describe
from payflow.services.notification.api import NotificationApi, WebhookDuty, WebhooksApi
from payflow.services.notification.channel_api import CallbacksApi, DevicesApi
from payflow.services.notification.channels.demo import DemoChannel
from payflow.services.notification.channels.log import LogChannel
from payflow.services.notification.channels.settings import (
    PUSH,
    ChannelSettings,
    check_channels,
    in_order,
    make_channels,
)
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
from payflow.services.notification.store import PostgresDevices, PostgresStore, PostgresWebhookStore
from payflow.services.notification.templates import FileTemplates, check_folder, read_zone

log = structlog.get_logger(__name__)

_CLEAN_UP_EVERY_S = 3600.0
_LOOK_FOR_WEBHOOKS_EVERY_S = 1.0
_LOOK_FOR_UNUSED_EVERY_S = 10.0


def _check_texts(folder: str) -> None:
    """Raises ValueError for texts that could not be sent."""
    if folder:
        check_folder(folder)


class NotificationSettings(ChannelSettings, frozen=True, kw_only=True):
    """Settings of the notification service."""

    column_keys: Annotated[
        str, describe("keys of encrypted columns as JSON; best given as _FILE", check=ColumnCipher.from_json)
    ]
    demo_channel: Annotated[
        bool | None,
        describe(
            "keep messages in a local outbox that `payflow otp` reads; on unless in production or beside other channels"
        ),
    ] = None
    delivery_check_s: Annotated[float, describe("pause between looks for messages to send"), msgspec.Meta(gt=0)] = 0.5
    message_templates_dir: Annotated[
        str,
        describe(
            "folder with own texts of messages, as <language>/<kind>.txt; empty: the service's", check=_check_texts
        ),
    ] = ""
    message_time_zone: Annotated[
        str, describe("IANA time zone that messages tell instants in, such as Europe/Berlin", check=read_zone)
    ] = "UTC"
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
        """Whether the demo channel is in use: as set, else outside production where there is no other channel."""
        if self.demo_channel is not None:
            return self.demo_channel
        return self.env != "production" and not self.channels_set

    def check(self) -> None:
        super().check()
        if self.env == "production" and self.is_demo_on:
            raise SettingsError("PAYFLOW_DEMO_CHANNEL: the demo channel shows one-time passwords; not in production.")
        check_channels(self)


SETTINGS = NotificationSettings


async def build(runtime: Runtime) -> Service:
    """Wire the notification service."""
    settings = runtime.settings(NotificationSettings)
    cipher = runtime.cipher(settings.column_keys)
    templates = FileTemplates.load(settings.message_templates_dir, time_zone=settings.message_time_zone)
    database = await runtime.database()
    devices = PostgresDevices(database=database, cipher=cipher)
    made = make_channels(settings, devices=devices, clock=runtime.clock)
    for closer in made.closers:
        runtime.on_close(closer)
    demo = DemoChannel(database=database, cipher=cipher, clock=runtime.clock) if settings.is_demo_on else None
    # The demo channel last: who sets others beside it wants to see them used.
    channels: list[Channel] = [*made.channels, *([demo] if demo else []), LogChannel()]
    codes: list[Channel] = [*in_order(made.channels, settings.code_channels_set), *([demo] if demo else [])]
    log.info("notification.channels", channels=[one.name for one in channels], codes=[one.name for one in codes])
    if not codes:
        log.warning("notification.no_channel_for_codes", effect="payments that need a one-time password answer 503")
    store = PostgresStore(database=database)
    api = NotificationApi(
        store=store,
        channels=channels,
        code_channels=codes,
        code_timeout_s=settings.code_timeout_s,
        demo=demo,
        contacts=AccountContacts(runtime.client(Account)),
        templates=templates,
        clock=runtime.clock,
        ids=runtime.ids,
    )
    handler = NotificationConsumer(channels=channels, templates=templates, clock=runtime.clock, ids=runtime.ids)
    consumer = runtime.consumer(topics=list(TOPICS), handler=handler, database=database)
    service = Service(
        implementations=[
            (Notification, api),
            (Devices, DevicesApi(devices=devices, is_in_use=PUSH in settings.channels_set, clock=runtime.clock)),
            (Callbacks, CallbacksApi(readers=made.readers, store=store, clock=runtime.clock)),
        ],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={"consume": consumer.run, **_duties(api, channels, settings)},
    )
    _add_webhooks(service, runtime, settings, database, cipher)
    runtime.add_relay(service, database)
    return service


def _duties(
    api: NotificationApi, channels: Sequence[Channel], settings: NotificationSettings
) -> dict[str, Callable[[], Awaitable[None]]]:
    """A duty for each channel, so that a slow vendor holds up nobody else's messages."""
    duties = {
        f"deliver_{channel.name}": every(settings.delivery_check_s, partial(api.deliver_due_by, channel))
        for channel in channels
    }
    keep = timedelta(days=settings.message_keep_days)
    return {
        **duties,
        "fail_over_unused": every(_LOOK_FOR_UNUSED_EVERY_S, api.deliver_due_by),
        "forget_old": every(_CLEAN_UP_EVERY_S, lambda: api.forget_old(keep)),
    }


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
        nobody_listens=partial(store.pass_events_over, WEBHOOK_CONSUMER),
    )
    keep = timedelta(days=settings.webhook_keep_days)
    service.implementations.append((Webhooks, api))
    # A member of a group in Kafka stays one while nobody listens, so that it stands at the end when somebody begins to.
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
