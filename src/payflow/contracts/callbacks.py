"""The notification service: what vendors tell later about the messages that they took (delivered, failed, bounced)."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Protocol

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Conflict, Rejection


class Vendor(StrEnum):
    """Who calls back."""

    TWILIO = "twilio"
    SENDGRID = "sendgrid"


class CallbackNotSigned(Rejection):
    """The vendor has not signed this call, or signed it too long ago."""

    code = "CALLBACK_NOT_SIGNED"


class CallbackReplayed(Conflict):
    """Everything in the call was told before."""

    code = "CALLBACK_REPLAYED"


class UnreadableCallback(Rejection):
    """The call is signed and is not in the vendor's format."""

    code = "UNREADABLE_CALLBACK"


class VendorNotInUse(Rejection):
    """No message goes by that vendor, or its callbacks are not switched on."""

    code = "VENDOR_NOT_IN_USE"


class VendorCallback(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it came: its query string and body to the byte, for both are signed."""

    vendor: Vendor
    query: str
    signature: str
    timestamp: str
    body: bytes


class CallbackTaken(msgspec.Struct, frozen=True, kw_only=True):
    """How many of its words were new, and how many are about no message of ours."""

    stored: int
    foreign: int


class Callbacks(Protocol):
    """Operations on vendors' callbacks, of the notification service."""

    service: ClassVar[str] = "notification"

    # A body is up to a megabyte.
    @operation(callers={"gateway"}, calls_in_flight=8, batch_max=8)
    async def take_callbacks(self, callbacks: list[VendorCallback]) -> Answers[CallbackTaken]: ...
