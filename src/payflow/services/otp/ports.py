"""What the otp service needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.notification import MessageAccepted, SendOtpCode
from payflow.contracts.operation import Answers
from payflow.kernel.envelope import Event
from payflow.services.otp.domain import Challenge, Issue


class Entropy(Protocol):
    """Where nonces come from."""

    def nonce(self) -> bytes:
        """NONCE_BYTES bytes that nobody can predict."""
        ...


class CodeSender(Protocol):
    """Hands codes to the customers; the notification service is one."""

    async def send_otp_codes(self, commands: list[SendOtpCode]) -> Answers[MessageAccepted]:
        """Send codes now, one message per challenge: a repeat sends nothing."""
        ...


class Challenges(Protocol):
    """One database transaction over the challenges."""

    async def lock_customers(self, customer_ids: Sequence[str]) -> None:
        """Let nobody else issue codes to these customers until the end of the transaction; one order everywhere."""
        ...

    async def open_challenges(self, payment_ids: Sequence[UUID]) -> dict[UUID, Challenge]:
        """Each payment's open challenge, locked."""
        ...

    async def issues_since(self, customer_ids: Sequence[str], since: datetime) -> list[Issue]:
        """The codes issued to these customers after `since`."""
        ...

    async def challenges_of(self, payment_ids: Sequence[UUID]) -> list[Challenge]:
        """All challenges of these payments, locked."""
        ...

    async def insert(self, challenges: Sequence[Challenge]) -> None:
        """Write new challenges."""
        ...

    async def update(self, challenges: Sequence[Challenge]) -> None:
        """Write the tries and the end of challenges."""
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Store events in this transaction; consumers are woken after the commit."""
        ...


class Store(Protocol):
    """The otp service's database."""

    def transaction(self) -> AbstractAsyncContextManager[Challenges]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def mark_sent(self, challenge_ids: Sequence[UUID], now: datetime) -> None:
        """Note that these codes were handed over."""
        ...

    async def delete_before(self, instant: datetime) -> int:
        """Delete challenges issued before an instant; returns how many."""
        ...
