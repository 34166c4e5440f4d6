"""What the notification service needs from outside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.callbacks import VendorCallback
from payflow.contracts.notification import (
    DemoCode,
    FindDemoCode,
    MessageView,
    WebhookDeliveryState,
    WebhookDeliveryView,
)
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.services.notification.domain import (
    Contact,
    DeliveryState,
    Device,
    Kind,
    Message,
    Outcome,
    Outgoing,
    Preference,
    Receipt,
    SendResult,
    Texts,
    Value,
)
from payflow.services.notification.domain.webhooks import Attempt, Delivery, Reply, Settled, Webhook


class Channel(Protocol):
    """A way to reach customers: SMS, e-mail, push, or the demo outbox."""

    name: str
    carries_codes: bool
    needs_contact: bool
    # Whether a customer reads what it takes; the log is for operators.
    reaches_customers: bool
    # Whether a stored message is all there is to show: one without a code is then delivered without being sent.
    keeps_messages: bool
    # How many messages are best taken at once.
    batch_max: int

    async def send(self, messages: Sequence[Outgoing], *, within_s: float | None = None) -> list[SendResult]:
        """Hand messages over: one result for each, in order; each is waited for up to `within_s`, or the channel's own
        time-out where that is shorter.

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

    def render(self, kind: Kind, language: str, values: Mapping[str, Value]) -> Texts:
        """The message in words; a language that is not there is answered in the default one."""
        ...


class DeviceBook(Protocol):
    """Customers' devices."""

    async def register(self, devices: Sequence[Device]) -> dict[bytes, Device]:
        """Write devices, each by its token's digest: what is known by then, with its own id. Of a customer with more
        than DEVICES_MAX those unseen for the longest are forgotten."""
        ...

    async def of_customers(self, customer_ids: Sequence[str]) -> dict[str, list[Device]]:
        """The devices of those customers who have any, the last one seen first."""
        ...

    async def remove(self, keys: Sequence[tuple[str, UUID]]) -> set[tuple[str, UUID]]:
        """Forget devices by customer and id; those that were there."""
        ...

    async def forget(self, device_ids: Sequence[UUID]) -> None:
        """Forget devices whose vendor says that they are gone."""
        ...


class CallbackReader(Protocol):
    """Verifies a vendor's calls and reads them."""

    def read(self, callback: VendorCallback, *, now: datetime) -> list[Receipt]:
        """What a call says about messages of ours. Raises CallbackNotSigned or UnreadableCallback."""
        ...


@dataclass(frozen=True, slots=True)
class CodeDelivery:
    """How far the message of a challenge has come, by the way that has brought it furthest."""

    message_id: UUID
    channel: str
    state: DeliveryState


@dataclass(frozen=True, slots=True)
class CodeWay:
    """A way that a code may be sent, taken for this process. `tries` counts those before."""

    channel: str
    tries: int
    is_doubtful: bool


class Messages(Protocol):
    """One database transaction over messages and their deliveries."""

    async def preferences(self, customer_ids: Sequence[str]) -> dict[str, Preference]:
        """The preferences of those customers who have any."""
        ...

    async def add(self, messages: Sequence[Message], *, kept_by: Collection[str] = ()) -> None:
        """Insert messages with a delivery for each way, the first one PENDING; one whose `about` and `kind` exist
        changes nothing.

        A channel in `kept_by` has delivered a message without a code by that (Channel.keeps_messages).
        """
        ...

    async def claim_codes(
        self, abouts: Sequence[str], *, now: datetime, until: datetime
    ) -> dict[str, tuple[CodeWay, ...]]:
        """Take the codes that were not sent and that nobody else is sending, until an instant: the ways that have not
        failed for good, in order."""
        ...

    async def codes(self, abouts: Sequence[str]) -> dict[str, CodeDelivery]:
        """How far the messages of these challenges have come."""
        ...

    async def lock_deliveries(self, keys: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], DeliveryState]:
        """The states of deliveries by message and channel, locked; those that are not there stay out."""
        ...

    async def add_receipts(self, receipts: Sequence[Receipt], *, now: datetime) -> set[tuple[str, str]]:
        """Keep what vendors told: (vendor, event_id) of what was new."""
        ...

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        """As Store.finish, in this transaction."""
        ...


class Store(Protocol):
    """The notification service's database."""

    def transaction(self) -> AbstractAsyncContextManager[Messages]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def claim_due(
        self, *, channel: str | None, in_use: Sequence[str], now: datetime, until: datetime, limit: int
    ) -> list[Outgoing]:
        """Take messages that are due by a channel and that no other process has, until an instant; codes are never
        among them. Without a channel: those by channels that are not in use any more."""
        ...

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        """Write what tries came to. A final state is never left; where a way has failed, the next one begins."""
        ...

    async def release_codes(self, message_ids: Sequence[UUID], now: datetime) -> None:
        """Let go of claimed codes that were not sent: their repeat may try again at once."""
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


class WebhookSecrets(Protocol):
    """Random numbers for signing secrets."""

    def new(self) -> str:
        """A fresh secret: "whsec_" and the base64 of 32 random bytes."""
        ...


class WebhookSender(Protocol):
    """Calls receivers."""

    async def send(self, attempt: Attempt, *, now: datetime) -> Reply:
        """Sign and send one attempt. Never raises: what went wrong is the reply's `error`."""
        ...


class WebhookChanges(Protocol):
    """One database transaction over webhooks and their deliveries."""

    async def count(self) -> int:
        """How many webhooks there are; nobody else adds one until this transaction ends."""
        ...

    async def add(self, webhooks: Sequence[Webhook]) -> None:
        """Insert webhooks; one whose id exists changes nothing."""
        ...

    async def lock(self, webhook_ids: Sequence[UUID]) -> dict[UUID, Webhook]:
        """The webhooks with these ids, locked."""
        ...

    async def save(self, webhooks: Sequence[Webhook]) -> None:
        """Write what may change of webhooks."""
        ...

    async def delete(self, webhook_ids: Sequence[UUID]) -> None:
        """Forget webhooks with all their deliveries."""
        ...

    async def listening(self) -> list[Webhook]:
        """Every enabled webhook (its `secrets` left out); none of them is deleted before this transaction ends."""
        ...

    async def add_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        """Insert deliveries, due at once; an event that a webhook has already changes nothing."""
        ...

    async def redeliver(self, delivery_ids: Sequence[UUID], now: datetime) -> None:
        """Make deliveries due now with all their tries before them, except those that are being sent."""
        ...

    async def settle(self, settled: Sequence[Settled]) -> set[UUID]:
        """Write what attempts came to; the ids of those that were still ours. A late word about an attempt that was
        meanwhile made again is dropped."""
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Tell of changes, in this transaction."""
        ...


class WebhookStore(Protocol):
    """The database as far as it is about webhooks."""

    def transaction(self) -> AbstractAsyncContextManager[WebhookChanges]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def webhooks(self, webhook_ids: Sequence[UUID]) -> dict[UUID, Webhook]:
        """The webhooks with these ids."""
        ...

    async def webhooks_before(self, cursor: UUID | None, limit: int) -> list[Webhook]:
        """Webhooks, newest first, beginning behind the cursor."""
        ...

    async def webhook_deliveries(
        self, webhook_id: UUID, *, state: WebhookDeliveryState | None, cursor: UUID | None, limit: int
    ) -> list[WebhookDeliveryView]:
        """A webhook's deliveries, newest first, beginning behind the cursor."""
        ...

    async def find_deliveries(self, keys: Sequence[tuple[UUID, UUID]]) -> dict[UUID, WebhookDeliveryView]:
        """Deliveries by webhook and by delivery or event: (webhook_id, either id) -> under that id."""
        ...

    async def claim_webhooks(
        self, *, now: datetime, until: datetime, busy: Sequence[UUID], limit: int
    ) -> list[Attempt]:
        """Take deliveries that are due and that no other process has, until an instant: a few of each enabled webhook
        but those that are `busy`, so that one that is slow never stands in another's way."""
        ...

    async def pass_events_over(self, consumer: str) -> bool:
        """Whether no webhook is enabled; then the consumer's position is moved to the log's end, in one step with
        the look, so that it costs nothing to have webhooks and not use them."""
        ...

    async def delete_webhook_deliveries_before(self, instant: datetime) -> int:
        """Forget deliveries made before an instant; returns how many."""
        ...
