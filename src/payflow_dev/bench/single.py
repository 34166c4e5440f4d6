"""The customer and the payments where only an address is known: one user's, between two named accounts."""

from __future__ import annotations

import base64
import random

import msgspec

from payflow.run.errors import StartError
from payflow_dev.bench.options import AddressOnly
from payflow_dev.bench.population import Customer, Payment, random_amount_minor


def payer_of(payer: AddressOnly, *, token: str) -> Customer:
    """The customer as whom the user signs in, told by the token itself. Raises StartError where it does not tell."""
    try:
        claims = token.split(".")[1]
        found = msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        customer_id = found["customer_id"]
    except (IndexError, KeyError, TypeError, ValueError, msgspec.DecodeError):
        raise StartError(f"The access token of {payer.username} names no customer: only customers can pay.") from None
    return Customer(str(customer_id), payer.username, "", (payer.from_account,))


def payments_of_one(*, payer: AddressOnly, count: int, seed: int) -> list[Payment]:
    """Payments of usual amounts from the one account to the other."""
    source = random.Random(seed)
    return [Payment(0, payer.from_account, payer.to_account, random_amount_minor(source)) for _ in range(count)]
