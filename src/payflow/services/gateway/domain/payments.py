"""What makes two payment or return requests the same request."""

from __future__ import annotations

import re
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.confirm import Creditor

_PLAIN_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)
_encode: Final = msgspec.json.Encoder().encode


def canonical_amount(text: str) -> str:
    """The amount without what does not change it: 1000.00, 1000.0 and 1000 are one; a text that is no plain decimal
    stands for itself."""
    match = _PLAIN_DECIMAL.fullmatch(text)
    if match is None:
        return text
    fraction = (match[2] or "").rstrip("0")
    return f"{match[1]}.{fraction}" if fraction else match[1]


def return_fingerprint(*, payment_id: UUID, amount: str | None, reason_code: str, note: str | None) -> bytes:
    """SHA-256 over the parsed values of a return request."""
    told = None if amount is None else canonical_amount(amount)
    return sha256(_encode((payment_id, told, reason_code, note))).digest()


def fingerprint(
    *,
    transaction_id: str,
    customer_id: str,
    amount: str,
    currency: str | None,
    debtor_account: str,
    creditor_account: str,
    creditor: Creditor | None,
    remittance_information: str | None,
    execute_at: datetime | None = None,
) -> bytes:
    """SHA-256 over the parsed values of a payment request. The one-time password is left out: the second call of the
    OTP flow is the same request."""
    values: tuple[object, ...] = (
        transaction_id,
        customer_id,
        canonical_amount(amount),
        currency,
        debtor_account,
        creditor_account,
        None if creditor is None else (creditor.name, creditor.country, creditor.agent),
        remittance_information,
    )
    if execute_at is not None:
        values += (execute_at,)
    return sha256(_encode(values)).digest()
