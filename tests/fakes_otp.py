"""In-memory ports of the otp service. The store passes the same suite as the real one in tests/ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from payflow.contracts.notification import MessageAccepted, SendOtpCode
from payflow.contracts.operation import Answers
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.services.otp.domain import Challenge, ChallengeState, Issue
from tests.builders import new_id


class FakeChallenges:
    """One transaction over the in-memory challenges."""

    def __init__(self, rows: dict[UUID, Challenge], events: list[Event]) -> None:
        self.rows = rows
        self.events = events

    async def lock_customers(self, customer_ids: Sequence[str]) -> None:
        """Nothing to do: there is one transaction at a time."""

    async def open_challenges(self, payment_ids: Sequence[UUID]) -> dict[UUID, Challenge]:
        return {row.payment_id: row for row in self._of(payment_ids) if row.state is ChallengeState.OPEN}

    async def issues_since(self, customer_ids: Sequence[str], since: datetime) -> list[Issue]:
        return [
            Issue(row.customer_id, row.payment_id, row.issued_at)
            for row in self.rows.values()
            if row.customer_id in customer_ids and row.issued_at > since
        ]

    async def challenges_of(self, payment_ids: Sequence[UUID]) -> list[Challenge]:
        return self._of(payment_ids)

    async def insert(self, challenges: Sequence[Challenge]) -> None:
        for challenge in challenges:
            assert challenge.challenge_id not in self.rows
            others = await self.open_challenges([challenge.payment_id])
            assert not others or challenge.state is not ChallengeState.OPEN, "one open challenge per payment"
            self.rows[challenge.challenge_id] = challenge

    async def update(self, challenges: Sequence[Challenge]) -> None:
        for challenge in challenges:
            assert self.rows[challenge.challenge_id].state is ChallengeState.OPEN
            self.rows[challenge.challenge_id] = challenge

    async def append_events(self, events: Sequence[Event]) -> None:
        self.events.extend(events)

    def _of(self, payment_ids: Sequence[UUID]) -> list[Challenge]:
        return [row for row in self.rows.values() if row.payment_id in payment_ids]


class FakeOtpStore:
    """The otp service's database in memory: one transaction at a time, all or nothing."""

    def __init__(self) -> None:
        self._rows: dict[UUID, Challenge] = {}
        self.events: list[Event] = []
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeChallenges]:
        async with self._lock:
            working = FakeChallenges(dict(self._rows), [])
            yield working
            self._rows = working.rows
            self.events.extend(working.events)

    async def mark_sent(self, challenge_ids: Sequence[UUID], now: datetime) -> None:
        async with self._lock:
            for challenge_id in challenge_ids:
                row = self._rows[challenge_id]
                self._rows[challenge_id] = replace(row, sent_at=row.sent_at or now)

    async def delete_before(self, instant: datetime) -> int:
        old = [row.challenge_id for row in self._rows.values() if row.issued_at < instant]
        for challenge_id in old:
            del self._rows[challenge_id]
        return len(old)


class FakeCodeSender:
    """A notification service that keeps what it was given, once per challenge, and can be out of order."""

    def __init__(self) -> None:
        self.sent: dict[UUID, SendOtpCode] = {}
        self.calls = 0
        self.is_down = False

    async def send_otp_codes(self, commands: list[SendOtpCode]) -> Answers[MessageAccepted]:
        self.calls += 1
        if self.is_down:
            return [Unavailable("down") for _ in commands]
        for command in commands:
            self.sent.setdefault(command.challenge_id, command)
        return [MessageAccepted(message_id=new_id(), channel="fake") for _ in commands]

    def code_of(self, transaction_id: str) -> str:
        """The newest code sent for a transaction."""
        return [message.code for message in self.sent.values() if message.transaction_id == transaction_id][-1]


class CountingEntropy:
    """Nonces that differ and can be told in advance."""

    def __init__(self) -> None:
        self._next = 0

    def nonce(self) -> bytes:
        self._next += 1
        return self._next.to_bytes(16, "big")
