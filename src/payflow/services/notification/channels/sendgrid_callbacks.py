"""SendGrid's event webhook: a list of events as JSON, signed with ECDSA over the time and the body.

The time is part of what is signed, so that an old call is refused; one that comes again within its time is found by its
events' own ids.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

from payflow.contracts.callbacks import CallbackNotSigned, UnreadableCallback, Vendor, VendorCallback
from payflow.services.notification.channels.sendgrid import ARGUMENT
from payflow.services.notification.domain import DeliveryState, Receipt

# The vendor calls again for a day where nobody answers, and signs each call anew.
AGE_MAX: Final = timedelta(minutes=5)
_TIMESTAMP: Final = re.compile(r"[0-9]{1,11}")
_WORD: Final = re.compile(r"[a-z_]{1,32}")
_ID_MAX: Final = 255
_STATES: Final = {
    "processed": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "bounce": DeliveryState.FAILED,
    "dropped": DeliveryState.FAILED,
}


class _Event(msgspec.Struct):
    """One event; its reason is not read, for it quotes the address."""

    event: str
    sg_event_id: str = ""
    sg_message_id: str = ""
    timestamp: int = 0
    type: str = ""
    message_id: str = msgspec.field(name=ARGUMENT, default="")


_decoder: Final = msgspec.json.Decoder(list[_Event])


def read_public_key(text: str) -> ec.EllipticCurvePublicKey:
    """The verification key as SendGrid shows it: base64 of DER, or the same as PEM. Raises ValueError."""
    key: Any = None
    try:
        if "BEGIN" in text:
            key = load_pem_public_key(text.encode())
        else:
            key = load_der_public_key(base64.b64decode("".join(text.split()), validate=True))
    except (ValueError, binascii.Error):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("expected the verification key of the event webhook: base64 of an ECDSA public key")
    return key


class SendGridCallbacks:
    """See ports.CallbackReader."""

    def __init__(self, *, public_key: ec.EllipticCurvePublicKey, channel: str) -> None:
        self._public_key = public_key
        self._channel = channel

    def read(self, callback: VendorCallback, *, now: datetime) -> list[Receipt]:
        self._check(callback, now=now)
        try:
            events = _decoder.decode(callback.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnreadableCallback from None
        receipts = (self._receipt(event, now=now) for event in events)
        return [receipt for receipt in receipts if receipt is not None]

    def _check(self, callback: VendorCallback, *, now: datetime) -> None:
        """Raises CallbackNotSigned."""
        if not _TIMESTAMP.fullmatch(callback.timestamp):
            raise CallbackNotSigned
        try:
            signature = base64.b64decode(callback.signature, validate=True)
            signed = callback.timestamp.encode() + callback.body
            self._public_key.verify(signature, signed, ec.ECDSA(SHA256()))
        except (InvalidSignature, binascii.Error, ValueError):
            raise CallbackNotSigned from None
        if abs(now - datetime.fromtimestamp(int(callback.timestamp), UTC)) > AGE_MAX:
            raise CallbackNotSigned("The call was signed too long ago.")

    def _receipt(self, event: _Event, *, now: datetime) -> Receipt | None:
        """None for what is not about a message of ours, and for what customers did with one (opened, clicked)."""
        try:
            message_id = UUID(event.message_id)
        except ValueError:
            return None
        is_whole = 0 < len(event.sg_event_id) <= _ID_MAX and _WORD.fullmatch(event.event)
        if not is_whole or event.event not in (*_STATES, "deferred"):
            return None
        state = _STATES.get(event.event)
        reason = f"SENDGRID_{event.event.upper()}" if state is DeliveryState.FAILED else None
        return Receipt(
            vendor=Vendor.SENDGRID,
            event_id=event.sg_event_id,
            message_id=message_id,
            channel=self._channel,
            # What its answer named is the part before the first dot.
            vendor_id=event.sg_message_id.partition(".")[0][:_ID_MAX],
            status=event.event,
            state=state,
            occurred_at=_instant(event.timestamp, default=now),
            reason=reason,
        )


def _instant(seconds: int, *, default: datetime) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return default
