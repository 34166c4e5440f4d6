"""The log as a channel: one line per batch, with ids only. It reaches nobody, so it never carries a code."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from payflow.services.notification.domain import Accepted, Outgoing, PermanentFailure, SendResult

log = structlog.get_logger(__name__)


class LogChannel:
    """See ports.Channel. What an installation without any other channel uses."""

    name = "log"
    carries_codes = False
    needs_contact = False
    reaches_customers = False
    keeps_messages = False
    batch_max = 1000

    async def send(self, messages: Sequence[Outgoing], *, within_s: float | None = None) -> list[SendResult]:
        told = [message for message in messages if message.code is None]
        if told:
            lines = [
                {"message_id": str(message.message_id), "customer_id": message.customer_id, "kind": message.kind}
                for message in told
            ]
            log.info("notification.messages", count=len(lines), messages=lines)
        return [
            Accepted() if message.code is None else PermanentFailure("The log carries no codes.")
            for message in messages
        ]
