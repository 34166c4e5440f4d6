"""Who paid whom, and what for: what statement lines tell of payments. Asked of confirm and of partner_bank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a payment: account, name as far as it is known, and the BIC of its bank where that is another one."""

    account: str | None
    name: str | None = None
    agent: str | None = None


class PaymentSides(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides of the payment that is booked under `payment_id`; of a return, those of the payment that it returns.

    `transaction_id` is the debtor's own name for the payment, `customer_id` the debtor's where it is a customer here.
    """

    payment_id: UUID
    debtor: Side
    creditor: Side
    remittance_information: str | None
    transaction_id: str
    customer_id: str | None = None


class ListSides(msgspec.Struct, frozen=True, kw_only=True):
    """The payments of one page of a statement, by the ids under which they are booked."""

    payment_ids: list[UUID]


class SidesList(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of these payments, in any order; what the service does not know is left out.

    `is_complete`: so is what it knows and cannot read, because it was altered in the database; then this is False.
    """

    sides: list[PaymentSides]
    is_complete: bool = True


def sides_lists(queries: Sequence[ListSides], known: Mapping[UUID, PaymentSides | None]) -> Answers[SidesList]:
    """Each query's payments out of those that are known; None is one that cannot be read."""
    return [
        SidesList(
            sides=[sides for id in query.payment_ids if (sides := known.get(id)) is not None],
            is_complete=all(known[id] is not None for id in query.payment_ids if id in known),
        )
        for query in queries
    ]
