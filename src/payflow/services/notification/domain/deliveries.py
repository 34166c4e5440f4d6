"""Deliveries: what a channel's or a vendor's word means for a message, and when it is tried again or another way.

A message has a delivery for each way that it may go. The first is tried; the others wait, and each begins when the one
before it has failed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypeAlias
from uuid import UUID

from payflow.kernel.machine import Machine
from payflow.services.notification.domain.messages import Contact, Kind

# Reasons that are ours; the vendors' own are their codes with the vendor's name in front, such as TWILIO_21211.
NO_ANSWER: Final = "NO_ANSWER"
NOT_REACHED: Final = "NOT_REACHED"
UNREADABLE_ANSWER: Final = "UNREADABLE_ANSWER"
VENDOR_OUT: Final = "VENDOR_OUT"
NO_TIME_LEFT: Final = "NO_TIME_LEFT"
NO_ADDRESS: Final = "NO_ADDRESS"
NO_DEVICE: Final = "NO_DEVICE"
NOT_IN_USE: Final = "CHANNEL_NOT_IN_USE"


class DeliveryState(StrEnum):
    """WAITING: for the way before it to fail. PENDING: to be tried (again). SENT: a vendor took it and may tell later
    what became of it. DELIVERED and FAILED are final."""

    WAITING = "WAITING"
    PENDING = "PENDING"
    SENT = "SENT"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


DELIVERY: Final = Machine(
    {
        # From WAITING to an end in one step: a code's ways are all tried in one call.
        DeliveryState.WAITING: {
            DeliveryState.PENDING,
            DeliveryState.SENT,
            DeliveryState.DELIVERED,
            DeliveryState.FAILED,
        },
        DeliveryState.PENDING: {DeliveryState.SENT, DeliveryState.DELIVERED, DeliveryState.FAILED},
        DeliveryState.SENT: {DeliveryState.DELIVERED, DeliveryState.FAILED},
        DeliveryState.DELIVERED: set(),
        DeliveryState.FAILED: set(),
    }
)
ARRIVED: Final = frozenset({DeliveryState.SENT, DeliveryState.DELIVERED})


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way out by one channel. `tries` counts this one. `contact` is there if the channel needs it.

    `has_next_way`: whether another channel waits for this one to fail. `is_doubtful`: a try before this one may have
    reached the vendor although no answer came; a channel that can, finds out before it sends again.
    """

    message_id: UUID
    customer_id: str
    kind: Kind
    subject: str
    short: str = field(repr=False)
    body: str = field(repr=False)
    channel: str
    tries: int
    created_at: datetime
    has_next_way: bool = False
    is_doubtful: bool = False
    code: str | None = field(default=None, repr=False)
    transaction_id: str | None = None
    expires_at: datetime | None = None
    contact: Contact | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The channel took the message, and with that it is where the customer reads it."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A vendor took the message, under an id of its own. What becomes of it, it tells later, or never."""

    vendor_id: str | None = None


@dataclass(frozen=True, slots=True)
class PermanentFailure:
    """The channel will never take this message, for example because there is no such number."""

    reason: str


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """The channel did not take it now; a later try may succeed, `retry_after` from now where the vendor said when.

    `is_outage`: it is the vendor, or our account there, and other messages fare no better. `is_unanswered`: the vendor
    may have taken it.
    """

    reason: str
    retry_after: timedelta | None = None
    is_outage: bool = False
    is_unanswered: bool = False


SendResult: TypeAlias = Accepted | Sent | PermanentFailure | TemporaryFailure


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a try came to. `next_try_at` matters while it is PENDING."""

    message_id: UUID
    channel: str
    state: DeliveryState
    next_try_at: datetime
    ended_at: datetime | None = None
    reason: str | None = None
    vendor_id: str | None = None
    is_doubtful: bool = False
    tries: int = 0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and when to give up. `lease`: how long a claimed message is left to whoever has it.

    `tries_before_next_way`: a message that may go another way is not tried by one way until the last.
    """

    lease: timedelta = timedelta(seconds=30)
    first_pause: timedelta = timedelta(seconds=5)
    longest_pause: timedelta = timedelta(hours=1)
    tries_max: int = 8
    # With the pauses above, about a day: long enough for a vendor, or for who must put our account there in order.
    outage_tries_max: int = 30
    tries_before_next_way: int = 4

    def pause_after(self, tries: int) -> timedelta:
        """The pause after so many tries: doubled each time, up to the longest."""
        return min(self.first_pause * (1 << min(max(tries - 1, 0), 20)), self.longest_pause)

    def outcome(self, outgoing: Outgoing, result: SendResult, *, now: datetime) -> Outcome:
        """What a channel's answer means for the delivery."""
        state, is_over = self._state(outgoing, result), True
        pause = timedelta(0)
        if state is DeliveryState.PENDING:
            is_over = False
            wish = result.retry_after if isinstance(result, TemporaryFailure) else None
            pause = min(max(self.pause_after(outgoing.tries), wish or pause), self.longest_pause)
        return Outcome(
            message_id=outgoing.message_id,
            channel=outgoing.channel,
            state=state,
            next_try_at=now + pause,
            ended_at=now if is_over else None,
            reason=result.reason if isinstance(result, PermanentFailure | TemporaryFailure) else None,
            vendor_id=result.vendor_id if isinstance(result, Sent) else None,
            is_doubtful=isinstance(result, TemporaryFailure) and result.is_unanswered,
            tries=outgoing.tries,
        )

    def _state(self, outgoing: Outgoing, result: SendResult) -> DeliveryState:
        match result:
            case Accepted():
                return DeliveryState.DELIVERED
            case Sent():
                return DeliveryState.SENT
            case PermanentFailure():
                return DeliveryState.FAILED
            case TemporaryFailure():
                tries_max = self.outage_tries_max if result.is_outage else self.tries_max
                if outgoing.has_next_way:
                    tries_max = min(tries_max, self.tries_before_next_way)
                return DeliveryState.PENDING if outgoing.tries < tries_max else DeliveryState.FAILED


@dataclass(frozen=True, slots=True)
class Receipt:
    """A vendor's later word about a message: `event_id` is the vendor's own for this word, or made of what is in it.

    `state`: what it means for the delivery; None where it is only kept (opened by the network, deferred once more).
    """

    vendor: str
    event_id: str
    message_id: UUID
    channel: str
    vendor_id: str
    status: str
    state: DeliveryState | None
    occurred_at: datetime
    reason: str | None = None


def settled_by(receipts: Iterable[Receipt], known: DeliveryState) -> Receipt | None:
    """The receipt that moves a delivery on, if any: the furthest of them that its state allows.

    Vendors tell in any order: a late "sent" changes nothing after "delivered", and an end is never left.
    """
    moves = [receipt for receipt in receipts if receipt.state is not None and DELIVERY.allows(known, receipt.state)]
    return max(moves, key=lambda one: (one.state is not DeliveryState.SENT, one.occurred_at), default=None)
