"""The demo channel: codes in an outbox in our own database that the demo, the tests and `payflow otp` read. Any other
message is in its customer's list of messages already, and nothing more is done for it.

It exists so that Payflow can be tried without a telephone. Settings refuse it in production.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.notification import DemoCode, FindDemoCode
from payflow.kernel.clock import Clock
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database, load_queries
from payflow.services.notification.domain import Accepted, Outgoing, SendResult

queries = load_queries("payflow.services.notification")


class _Content(msgspec.Struct, frozen=True):
    """What is encrypted: nobody with the table alone can read a code."""

    subject: str
    body: str
    code: str | None


_decoder: Final = msgspec.json.Decoder(_Content)


class DemoChannel:
    """See ports.Channel and ports.DemoOutbox."""

    name = "demo"
    carries_codes = True
    needs_contact = False
    reaches_customers = True
    keeps_messages = True
    batch_max = 1000

    def __init__(self, *, database: Database, cipher: ColumnCipher, clock: Clock) -> None:
        self._database = database
        self._cipher = cipher
        self._clock = clock

    async def send(self, messages: Sequence[Outgoing], *, within_s: float | None = None) -> list[SendResult]:
        await self._database.execute(
            queries.demo_insert,
            [message.message_id for message in messages],
            [message.customer_id for message in messages],
            [message.kind for message in messages],
            [message.transaction_id for message in messages],
            [self._encrypt(message) for message in messages],
            [message.expires_at for message in messages],
            self._clock.now(),
        )
        return [Accepted() for _ in messages]

    async def newest_codes(self, queries_: Sequence[FindDemoCode]) -> list[DemoCode | None]:
        rows = await self._database.fetch(
            queries.demo_newest_codes,
            [query.transaction_id for query in queries_],
            [query.customer_id for query in queries_],
        )
        found: list[DemoCode | None] = [None for _ in queries_]
        for row in rows:
            content = self._decrypt(row["message_id"], row["content_encrypted"])
            found[row["place"] - 1] = DemoCode(
                transaction_id=row["transaction_id"],
                customer_id=row["customer_id"],
                code=content.code or "",
                sent_at=row["sent_at"],
                expires_at=row["expires_at"],
            )
        return found

    def _encrypt(self, message: Outgoing) -> bytes:
        content = _Content(message.subject, message.body, message.code)
        text = msgspec.json.encode(content).decode()
        return self._cipher.encrypt(text, place=_place(message.message_id))

    def _decrypt(self, message_id: UUID, data: bytes) -> _Content:
        return _decoder.decode(self._cipher.decrypt(data, place=_place(message_id)))


def _place(message_id: UUID) -> str:
    return f"demo_outbox.content:{message_id}"
