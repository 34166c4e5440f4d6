"""Adapts the contracts and the background duties to the use cases, and logs what was sent, by ids."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

import structlog

from payflow.contracts.notification import (
    ChangeWebhook,
    DeleteWebhook,
    DemoCode,
    FindDemoCode,
    GetPreferences,
    GetWebhook,
    ListMessages,
    ListWebhookDeliveries,
    ListWebhooks,
    MessageAccepted,
    MessageList,
    Preferences,
    RedeliverWebhook,
    RegisterWebhook,
    RotateWebhookSecret,
    SendOtpCode,
    SendWebhookTest,
    WebhookDeleted,
    WebhookDeliveryPage,
    WebhookDeliveryState,
    WebhookDeliveryView,
    WebhookPage,
    WebhookView,
    WebhookWithSecret,
)
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError
from payflow.platform.context import deadline_within
from payflow.platform.postgres import repeat_then_halve
from payflow.services.notification.domain import DeliveryState, Outcome, RetryPolicy
from payflow.services.notification.domain.addresses import AddressPolicy
from payflow.services.notification.domain.webhooks import Attempt, Reply, Schedule, Settled
from payflow.services.notification.ports import (
    Channel,
    Contacts,
    DemoOutbox,
    Store,
    Templates,
    WebhookSecrets,
    WebhookSender,
    WebhookStore,
)
from payflow.services.notification.usecases import codes, deliveries, reads, webhook_deliveries, webhooks

log = structlog.get_logger(__name__)

DELIVERIES_PER_BATCH: Final = 1000
# A code's call is answered before its caller gives up (contracts.notification: 4 s): what one way takes at most, all of
# them together, and what is kept for writing down what they came to.
CODE_TIMEOUT_S: Final = 1.5
CODES_TIMEOUT_S: Final = 4.0
WRITING_S: Final = 0.4
# How many webhooks are called at the same time, and how many of these calls may be one webhook's.
CALLS_MAX: Final = 256
CALLS_PER_WEBHOOK_MAX: Final = 64
# A code is tried as often as it is asked for. The lease outlives a call, so that two calls never send one code twice.
CODE_POLICY: Final = RetryPolicy(lease=timedelta(seconds=10), tries_max=1000)


class NotificationApi:
    """Implements contracts.notification.Notification. `channels` are those in use, the preferred one first;
    `code_channels` the same for one-time codes."""

    def __init__(
        self,
        *,
        store: Store,
        channels: Sequence[Channel],
        demo: DemoOutbox | None,
        contacts: Contacts,
        templates: Templates,
        clock: Clock,
        ids: Ids,
        code_channels: Sequence[Channel] | None = None,
        code_timeout_s: float = CODE_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._channels = channels
        self._code_channels = channels if code_channels is None else code_channels
        self._code_timeout_s = code_timeout_s
        self._demo = demo
        self._contacts = contacts
        self._templates = templates
        self._clock = clock
        self._ids = ids

    async def send_otp_codes(self, commands: list[SendOtpCode]) -> Answers[MessageAccepted]:
        patience = partial(_patience, deadline=deadline_within(CODES_TIMEOUT_S), timeout_s=self._code_timeout_s)
        answers = await repeat_then_halve(
            lambda batch: codes.send_codes(
                commands=batch,
                store=self._store,
                channels=self._code_channels,
                contacts=self._contacts,
                templates=self._templates,
                policy=CODE_POLICY,
                patience=patience,
                ids=self._ids,
                clock=self._clock,
            ),
            commands,
        )
        sent = [str(answer.message_id) for answer in answers if not isinstance(answer, PayflowError)]
        log.info("notification.codes", sent=len(sent), not_sent=len(answers) - len(sent), message_ids=sent[:20])
        return answers

    async def find_demo_codes(self, queries: list[FindDemoCode]) -> Answers[DemoCode]:
        return await reads.find_demo_codes(queries=queries, demo=self._demo)

    async def list_messages(self, queries: list[ListMessages]) -> Answers[MessageList]:
        return await reads.list_messages(queries=queries, store=self._store)

    async def get_preferences(self, queries: list[GetPreferences]) -> Answers[Preferences]:
        return await reads.get_preferences(queries=queries, store=self._store)

    async def set_preferences(self, commands: list[Preferences]) -> Answers[Preferences]:
        return await reads.set_preferences(
            commands=commands,
            store=self._store,
            templates=self._templates,
            channels=[channel.name for channel in self._channels],
            now=self._clock.now(),
        )

    async def deliver_due(self) -> None:
        """Send everything that is due by any channel."""
        await asyncio.gather(*(self.deliver_due_by(channel) for channel in self._channels), self.deliver_due_by())

    async def deliver_due_by(self, channel: Channel | None = None) -> None:
        """Send everything that is due by one channel, batch by batch; without one, fail what a channel that is not in
        use any more has left, so that it goes another way."""
        limit = DELIVERIES_PER_BATCH if channel is None else min(channel.batch_max, DELIVERIES_PER_BATCH)
        is_full = True
        while is_full:
            outcomes = await deliveries.deliver_due(
                store=self._store,
                channel=None if channel is None else channel.name,
                channels=self._channels,
                contacts=self._contacts,
                policy=RetryPolicy(),
                clock=self._clock,
                limit=limit,
            )
            _log_outcomes(outcomes)
            is_full = len(outcomes) == limit

    async def forget_old(self, keep: timedelta) -> None:
        """Delete messages older than `keep`."""
        await deliveries.forget_old(store=self._store, now=self._clock.now(), keep=keep)


def _patience(*, ways_left: int, deadline: float, timeout_s: float) -> float:
    """An equal share of the time that is left for each way that is left, and never more than one way's time-out."""
    left_s = deadline - WRITING_S - asyncio.get_running_loop().time()
    return max(0.0, min(timeout_s, left_s / max(1, ways_left)))


def _log_outcomes(outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        return
    counts = Counter(f"{outcome.channel}.{outcome.state.lower()}" for outcome in outcomes)
    log.info("notification.deliveries", counts=dict(counts))
    for outcome in outcomes:
        if outcome.state is DeliveryState.FAILED:
            log.warning("notification.given_up", message_id=str(outcome.message_id), channel=outcome.channel)


class WebhooksApi:
    """Implements contracts.notification.Webhooks. `when_due` is told when something is to be sent at once."""

    def __init__(
        self,
        *,
        store: WebhookStore,
        policy: AddressPolicy,
        secrets: WebhookSecrets,
        clock: Clock,
        ids: Ids,
        when_due: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._secrets = secrets
        self._clock = clock
        self._ids = ids
        self._when_due = when_due

    async def register_webhooks(self, commands: list[RegisterWebhook]) -> Answers[WebhookWithSecret]:
        return await webhooks.register(
            commands=commands,
            store=self._store,
            policy=self._policy,
            secrets=self._secrets,
            ids=self._ids,
            now=self._clock.now(),
        )

    async def get_webhooks(self, queries: list[GetWebhook]) -> Answers[WebhookView]:
        return await webhooks.get(queries=queries, store=self._store)

    async def list_webhooks(self, queries: list[ListWebhooks]) -> Answers[WebhookPage]:
        return await webhooks.list_all(queries=queries, store=self._store)

    async def change_webhooks(self, commands: list[ChangeWebhook]) -> Answers[WebhookView]:
        answers = await webhooks.change(
            commands=commands, store=self._store, policy=self._policy, ids=self._ids, now=self._clock.now()
        )
        self._when_due()
        return answers

    async def delete_webhooks(self, commands: list[DeleteWebhook]) -> Answers[WebhookDeleted]:
        return await webhooks.delete(commands=commands, store=self._store, ids=self._ids, now=self._clock.now())

    async def rotate_webhook_secrets(self, commands: list[RotateWebhookSecret]) -> Answers[WebhookWithSecret]:
        return await webhooks.rotate(
            commands=commands, store=self._store, secrets=self._secrets, ids=self._ids, now=self._clock.now()
        )

    async def list_webhook_deliveries(self, queries: list[ListWebhookDeliveries]) -> Answers[WebhookDeliveryPage]:
        return await webhooks.list_deliveries(queries=queries, store=self._store)

    async def redeliver_webhooks(self, commands: list[RedeliverWebhook]) -> Answers[WebhookDeliveryView]:
        answers = await webhooks.redeliver(commands=commands, store=self._store, now=self._clock.now())
        self._when_due()
        return answers

    async def send_webhook_tests(self, commands: list[SendWebhookTest]) -> Answers[WebhookDeliveryView]:
        answers = await webhooks.send_tests(commands=commands, store=self._store, ids=self._ids, now=self._clock.now())
        self._when_due()
        return answers

    async def forget_old(self, keep: timedelta) -> None:
        """Delete deliveries older than `keep`."""
        await webhook_deliveries.forget_old(store=self._store, now=self._clock.now(), keep=keep)


class WebhookDuty:
    """Sends what is due, many calls at a time, each webhook a few of them.

    Calls run on their own: a slow receiver keeps its own calls waiting and nobody else's.
    """

    def __init__(
        self,
        *,
        store: WebhookStore,
        sender: WebhookSender,
        schedule: Schedule,
        clock: Clock,
        ids: Ids,
        random: Callable[[], float],
        look_every_s: float,
    ) -> None:
        self._store = store
        self._sender = sender
        self._schedule = schedule
        self._clock = clock
        self._ids = ids
        self._random = random
        self._look_every_s = look_every_s
        self._is_due = asyncio.Event()
        self._calls: dict[asyncio.Task[Reply], Attempt] = {}

    def wake(self) -> None:
        """Look at once instead of at the next time."""
        self._is_due.set()

    async def run(self) -> None:
        """Send until cancelled. What is under way then is sent again when its lease has run out."""
        try:
            while True:
                try:
                    is_busy = await self.step()
                except PayflowError as error:
                    # The calls go on, and what they come to is written later.
                    log.warning("notification.webhooks_waiting", error=repr(error))
                    await asyncio.sleep(self._look_every_s)
                    continue
                if not is_busy:
                    await self._wait()
        finally:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)
            self._calls.clear()

    async def step(self) -> bool:
        """Write what calls have come to and begin new ones; returns whether any were begun."""
        self._is_due.clear()
        await self._settle()
        free = CALLS_MAX - len(self._calls)
        if not free:
            return False
        attempts = await webhook_deliveries.claim(
            store=self._store, schedule=self._schedule, busy=self._busy(), limit=free, now=self._clock.now()
        )
        for attempt in attempts:
            call = asyncio.create_task(self._sender.send(attempt, now=self._clock.now()))
            call.add_done_callback(lambda _: self._is_due.set())
            self._calls[call] = attempt
        return bool(attempts)

    async def finish(self) -> None:
        """Wait for the calls under way and write what they came to."""
        if self._calls:
            await asyncio.wait(self._calls)
        await self._settle()

    def _busy(self) -> list[UUID]:
        calls = Counter(attempt.webhook_id for attempt in self._calls.values())
        most = {attempt.webhook_id: 1 for attempt in self._calls.values() if attempt.failing_since is not None}
        return [
            webhook_id for webhook_id, count in calls.items() if count >= most.get(webhook_id, CALLS_PER_WEBHOOK_MAX)
        ]

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._look_every_s):
                await self._is_due.wait()
        except TimeoutError:
            return

    async def _settle(self) -> None:
        done = [call for call in self._calls if call.done()]
        if not done:
            return
        replies = [(self._calls[call], call.result()) for call in done]
        settled = await webhook_deliveries.settle(
            replies=replies,
            store=self._store,
            schedule=self._schedule,
            jitters=[self._random() for _ in replies],
            ids=self._ids,
            now=self._clock.now(),
        )
        # Only now: where the database was away, they are written at the next look.
        for call in done:
            del self._calls[call]
        _log_settled(settled)


def _log_settled(settled: Sequence[Settled]) -> None:
    counts = Counter(one.state.lower() for one in settled)
    if counts:
        log.info("notification.webhooks", counts=dict(counts))
    for one in settled:
        if one.state is WebhookDeliveryState.FAILED:
            log.warning("notification.webhook_given_up", delivery_id=str(one.delivery_id), cause=one.error)
