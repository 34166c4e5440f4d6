"""What the notification service needs from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.notification import DemoCode, FindDemoCode, MessageView
from payflow.kernel.errors import PayflowError
from payflow.services.notification.domain import (
    Contact,
    DeliveryState,
    Kind,
    Message,
    Outcome,
    Outgoing,
    Preference,
    SendResult,
)


class Channel(Protocol):
    """A way to reach customers: SMS, e-mail, push, or the demo outbox."""

    name: str
    carries_codes: bool
    needs_contact: bool

    async def send(self, messages: Sequence[Outgoing]) -> list[SendResult]:
        """Hand messages over: one result for each, in order.

        The same `message_id` may come again after a lost answer; a channel that can, sends it once.
        """
        ...


class DemoOutbox(Protocol):
    """Where the demo channel keeps what it sent."""

    async def newest_codes(self, queries: Sequence[FindDemoCode]) -> list[DemoCode | None]:
        """The newest code for each query, or None."""
        ...


class Contacts(Protocol):
    """Where customers can be reached."""

    async def contacts(self, customer_ids: Sequence[str]) -> dict[str, Contact | PayflowError]:
        """Each customer's contact data, or why it is not known."""
        ...


class Templates(Protocol):
    """The texts of messages."""

    def languages(self) -> frozenset[str]:
        """The languages that have every kind."""
        ...

    def render(self, kind: Kind, language: str, values: Mapping[str, str]) -> tuple[str, str]:
        """Subject and body; a language that is not there is answered in the default one."""
        ...


@dataclass(frozen=True, slots=True)
class CodeDelivery:
    """How far the message of a challenge has come."""

    message_id: UUID
    channel: str
    state: DeliveryState


class Messages(Protocol):
    """One database transaction over messages and their deliveries."""

    async def preferences(self, customer_ids: Sequence[str]) -> dict[str, Preference]:
        """The preferences of those customers who have any."""
        ...

    async def add(self, messages: Sequence[Message]) -> None:
        """Insert messages with their deliveries; one whose `about` and `kind` exist changes nothing."""
        ...

    async def claim_codes(self, abouts: Sequence[str], *, now: datetime, until: datetime) -> dict[str, int]:
        """Take the pending codes that nobody else is sending, until an instant; the number of each one's try."""
        ...

    async def codes(self, abouts: Sequence[str]) -> dict[str, CodeDelivery]:
        """How far the messages of these challenges have come."""
        ...


class Store(Protocol):
    """The notification service's database."""

    def transaction(self) -> AbstractAsyncContextManager[Messages]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def claim_due(self, *, now: datetime, until: datetime, limit: int) -> list[Outgoing]:
        """Take messages that are due and that no other process has, until an instant; codes are never among them."""
        ...

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Write what tries came to. A final state is never left."""
        ...

    async def list_messages(self, customer_id: str, limit: int) -> list[MessageView]:
        """A customer's messages, newest first, one for each channel they went out by."""
        ...

    async def set_preferences(self, preferences: Mapping[str, Preference], now: datetime) -> None:
        """Write customers' preferences."""
        ...

    async def delete_before(self, instant: datetime) -> int:
        """Delete messages made before an instant, with their deliveries; returns how many."""
        ...
