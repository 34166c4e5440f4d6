"""Which payments a person means: by the payment_id, or by the transaction_id, which customers know."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import msgspec

from payflow.run.errors import StartError

if TYPE_CHECKING:
    import asyncpg

_LISTED_MAX: Final = 20


class NamedPayment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that a name stands for, and whose it is."""

    payment_id: UUID
    customer_id: str


async def payments_called(connection: asyncpg.Connection[Any], name: str) -> list[NamedPayment]:
    """The payments with this payment_id or transaction_id, the one with the payment_id first; as the database's owner.

    A transaction_id is unique for one customer only: several payments may have it.
    """
    payment_id = None
    with suppress(ValueError):
        payment_id = UUID(name)
    rows = await connection.fetch(
        "SELECT payment_id, customer_id FROM confirm.transactions WHERE payment_id = $1 OR transaction_id = $2 "
        "ORDER BY payment_id IS DISTINCT FROM $1, received_at, payment_id",
        payment_id,
        name,
    )
    return [NamedPayment(**dict(row)) for row in rows]


def the_one(payments: list[NamedPayment], *, name: str) -> NamedPayment | None:
    """The payment that is meant; None where none is called so. Raises StartError with the list of several.

    A payment_id is nobody else's, whatever customers call their transactions.
    """
    if len(payments) > 1 and str(payments[0].payment_id) != name:
        listed = [f"{payment.payment_id} (of {payment.customer_id})" for payment in payments[:_LISTED_MAX]]
        more = "" if len(payments) <= _LISTED_MAX else f" and {len(payments) - _LISTED_MAX} more"
        raise StartError(
            f"{name} is the transaction_id of {len(payments)} payments: choose one by its payment_id, of "
            f"{', '.join(listed)}{more}."
        )
    return payments[0] if payments else None
