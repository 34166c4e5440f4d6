"""Twilio's status callbacks: a form, signed over the address and the form's parameters (X-Twilio-Signature).

The signature has no time in it. A callback that comes again is found by what it says: a message reaches a status once.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from datetime import datetime
from hashlib import sha1
from typing import Final
from urllib.parse import parse_qsl
from uuid import UUID

from payflow.contracts.callbacks import CallbackNotSigned, UnreadableCallback, Vendor, VendorCallback
from payflow.services.notification.channels.twilio import CALLBACK_PATH
from payflow.services.notification.domain import DeliveryState, Receipt

_FIELDS_MAX: Final = 100
_SID: Final = re.compile(r"[A-Za-z0-9]{1,64}")
_STATUS: Final = re.compile(r"[a-z-]{1,32}")
_ERROR: Final = re.compile(r"[0-9]{1,6}")
# What Twilio's words mean. Those before `sent` (accepted, scheduled, queued, sending) say no more than its answer did,
# which may have been lost.
_STATES: Final = {
    "accepted": DeliveryState.SENT,
    "queued": DeliveryState.SENT,
    "sending": DeliveryState.SENT,
    "sent": DeliveryState.SENT,
    "delivered": DeliveryState.DELIVERED,
    "read": DeliveryState.DELIVERED,
    "undelivered": DeliveryState.FAILED,
    "failed": DeliveryState.FAILED,
    "canceled": DeliveryState.FAILED,
}


class TwilioCallbacks:
    """See ports.CallbackReader."""

    def __init__(self, *, public_url: str, account_sid: str, auth_token: str, channel: str) -> None:
        self._url = f"{public_url.rstrip('/')}{CALLBACK_PATH}"
        self._account_sid = account_sid
        self._auth_token = auth_token.encode()
        self._channel = channel

    def read(self, callback: VendorCallback, *, now: datetime) -> list[Receipt]:
        form = _form(callback.body)
        if form is None or not self._is_signed(callback, form):
            raise CallbackNotSigned
        sid, status = form.get("MessageSid", ""), form.get("MessageStatus", "")
        message_id = _message_id(callback.query)
        is_whole = _SID.fullmatch(sid) and _STATUS.fullmatch(status) and form.get("AccountSid") == self._account_sid
        if not is_whole:
            raise UnreadableCallback
        if message_id is None:
            return []  # of another system on the same account
        error = form.get("ErrorCode", "")
        receipt = Receipt(
            vendor=Vendor.TWILIO,
            event_id=f"{sid}:{status}",
            message_id=message_id,
            channel=self._channel,
            vendor_id=sid,
            status=status,
            state=_STATES.get(status),
            occurred_at=now,
            reason=f"TWILIO_{error}" if _ERROR.fullmatch(error) else None,
        )
        return [receipt]

    def _is_signed(self, callback: VendorCallback, form: dict[str, str]) -> bool:
        # The address as Twilio was given it: what came in at the gateway's own name is nobody's proof.
        url = self._url + (f"?{callback.query}" if callback.query else "")
        text = url + "".join(name + form[name] for name in sorted(form))
        wanted = hmac.new(self._auth_token, text.encode(), sha1).digest()
        try:
            given = base64.b64decode(callback.signature, validate=True)
        except (binascii.Error, ValueError):
            return False
        return hmac.compare_digest(wanted, given)


def _form(body: bytes) -> dict[str, str] | None:
    """The form's parameters; None for what is none, and for a parameter that is there twice: which one is signed?"""
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=_FIELDS_MAX)
    except ValueError:
        return None
    form = dict(pairs)
    return form if len(form) == len(pairs) else None


def _message_id(query: str) -> UUID | None:
    try:
        return UUID(dict(parse_qsl(query, max_num_fields=8))["message_id"])
    except (KeyError, ValueError):
        return None
