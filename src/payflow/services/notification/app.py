"""Reads the notification service's settings and wires it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec
import structlog

from payflow.contracts.account import Account
from payflow.contracts.notification import Notification
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, SettingsError, describe
from payflow.services.notification.api import NotificationApi
from payflow.services.notification.channels.demo import DemoChannel
from payflow.services.notification.channels.log import LogChannel
from payflow.services.notification.consumer import TOPICS, NotificationConsumer
from payflow.services.notification.contacts import AccountContacts
from payflow.services.notification.ports import Channel
from payflow.services.notification.store import PostgresStore
from payflow.services.notification.templates import FileTemplates

log = structlog.get_logger(__name__)

_CLEAN_UP_EVERY_S = 3600.0


class NotificationSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the notification service."""

    column_keys: Annotated[str, describe("keys of encrypted columns as JSON; best given as _FILE")]
    demo_channel: Annotated[
        bool | None, describe("keep messages in a local outbox that `payflow otp` reads; on unless in production")
    ] = None
    delivery_check_s: Annotated[float, describe("pause between looks for messages to send"), msgspec.Meta(gt=0)] = 0.5
    message_keep_days: Annotated[int, describe("days until old messages are deleted"), msgspec.Meta(ge=1)] = 90

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
    handler = NotificationConsumer(
        channels=[channel.name for channel in channels], templates=templates, clock=runtime.clock, ids=runtime.ids
    )
    consumer = runtime.consumer(topics=list(TOPICS), handler=handler, database=database)
    keep = timedelta(days=settings.message_keep_days)
    return Service(
        implementations=[(Notification, api)],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={
            "consume": consumer.run,
            "deliver": every(settings.delivery_check_s, api.deliver_due),
            "forget_old": every(_CLEAN_UP_EVERY_S, lambda: api.forget_old(keep)),
        },
    )
