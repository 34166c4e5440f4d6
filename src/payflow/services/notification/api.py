"""Adapts the contract and the background duties to the use cases, and logs what was sent, by ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from payflow.contracts.notification import (
    DemoCode,
    FindDemoCode,
    ListMessages,
    MessageAccepted,
    MessageList,
    Preferences,
    SendOtpCode,
)
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError
from payflow.platform.postgres import repeat_then_halve
from payflow.services.notification.domain import DeliveryState, Outcome, RetryPolicy
from payflow.services.notification.ports import Channel, Contacts, DemoOutbox, Store, Templates
from payflow.services.notification.usecases import codes, deliveries, reads

log = structlog.get_logger(__name__)

DELIVERIES_PER_BATCH: Final = 1000
# A code is tried as often as it is asked for. The lease outlives a call, so that two calls never send one code twice.
CODE_POLICY: Final = RetryPolicy(lease=timedelta(seconds=10), tries_max=1000)


class NotificationApi:
    """Implements contracts.notification.Notification. `channels` are those in use, the preferred one first."""

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
    ) -> None:
        self._store = store
        self._channels = channels
        self._demo = demo
        self._contacts = contacts
        self._templates = templates
        self._clock = clock
        self._ids = ids

    async def send_otp_codes(self, commands: list[SendOtpCode]) -> Answers[MessageAccepted]:
        answers = await repeat_then_halve(
            lambda batch: codes.send_codes(
                commands=batch,
                store=self._store,
                channels=self._channels,
                contacts=self._contacts,
                templates=self._templates,
                policy=CODE_POLICY,
                ids=self._ids,
                now=self._clock.now(),
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

    async def set_preferences(self, commands: list[Preferences]) -> Answers[Preferences]:
        return await reads.set_preferences(
            commands=commands,
            store=self._store,
            templates=self._templates,
            channels=[channel.name for channel in self._channels],
            now=self._clock.now(),
        )

    async def deliver_due(self) -> None:
        """Send everything that is due, batch by batch."""
        is_full = True
        while is_full:
            outcomes = await deliveries.deliver_due(
                store=self._store,
                channels=self._channels,
                contacts=self._contacts,
                policy=RetryPolicy(),
                now=self._clock.now(),
                limit=DELIVERIES_PER_BATCH,
            )
            _log_outcomes(outcomes)
            is_full = len(outcomes) == DELIVERIES_PER_BATCH

    async def forget_old(self, keep: timedelta) -> None:
        """Delete messages older than `keep`."""
        await deliveries.forget_old(store=self._store, now=self._clock.now(), keep=keep)


def _log_outcomes(outcomes: Sequence[Outcome]) -> None:
    if not outcomes:
        return
    counts = Counter(f"{outcome.channel}.{outcome.state.lower()}" for outcome in outcomes)
    log.info("notification.deliveries", **counts)
    for outcome in outcomes:
        if outcome.state is DeliveryState.FAILED:
            log.warning("notification.given_up", message_id=str(outcome.message_id), channel=outcome.channel)
