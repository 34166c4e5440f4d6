"""Statement lines as they are told: the ledger's postings, with what confirm and partner_bank know of their payments.

The ledger knows no texts. Who paid whom, and what for, is asked of whoever keeps it, once for a page; the names of
customers who have paid are asked of account. Where one of them does not answer, the lines are told without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.account import CustomerView, EntryLine, EntryPage, GetCustomer
from payflow.contracts.confirm import Confirm
from payflow.contracts.partner_bank import PartnerBank
from payflow.contracts.sides import ListSides, PaymentSides, Side, SidesList
from payflow.kernel.errors import PayflowError, Rejection
from payflow.kernel.money import format_minor
from payflow.services.gateway.routes.services import Services

# By the kind of a line's entry: what partner_bank knows; everything else is confirm's.
_FROM_OTHER_BANKS: Final = frozenset({"incoming", "incoming_return"})
# Where the ledger does not tell the kind, either may know the payment.
_EITHER: Final = frozenset({"unknown"})


class OtherSide(msgspec.Struct, kw_only=True):
    """Who the money came from or went to. `agent` is the BIC of their bank, null for accounts here.

    `account` is a number here or an IBAN. It and `name` are null where they are not known.
    """

    account: str | None
    name: str | None
    agent: str | None


class StatementLine(msgspec.Struct, kw_only=True):
    """One posting: a negative `amount` left the account; `balance` is the posted balance after it.

    `other_side` and `remittance_information` are the payment's, of a return those of the payment that it gives back.
    `transaction_id` is the payer's own name for the payment, told to the payer, operators and compliance officers.
    """

    sequence: int
    entry_id: str
    payment_id: str | None
    kind: str
    amount: str
    balance: str
    currency: str
    booked_at: datetime
    transaction_id: str | None
    other_side: OtherSide | None
    remittance_information: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Who looks at which account. `customer_id` None: one of the bank's own people, who may see all of a payment."""

    account: str
    customer_id: str | None

    def is_debtor(self, sides: PaymentSides) -> bool:
        """Whether the account is the payment's debtor's; what another bank calls its accounts says nothing here."""
        return sides.debtor.agent is None and sides.debtor.account == self.account

    def is_told_of_payer(self, sides: PaymentSides) -> bool:
        """Whether the payer's own name for the payment may be seen."""
        return self.customer_id is None or self.customer_id == sides.customer_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What is known of a page's payments, by the ids under which they are booked, and debtors' names by customer.

    `is_complete`: everybody who was asked has answered, and could read all that it knows.
    """

    sides: dict[UUID, PaymentSides]
    names: dict[str, str]
    is_complete: bool


async def details_of(page: EntryPage, *, viewer: Viewer, services: Services) -> Details:
    """What is known of the payments of these lines. Nothing is raised for a service that does not answer."""
    of_ours = [line.payment_id for line in page.entries if line.kind not in _FROM_OTHER_BANKS]
    of_others = [line.payment_id for line in page.entries if line.kind in _FROM_OTHER_BANKS | _EITHER]
    told = await asyncio.gather(
        _sides_by(services.confirm, of_ours), _sides_by(services.client(PartnerBank), of_others)
    )
    sides = {one.payment_id: one for known in told if known is not None for one in known.sides}
    names = await _names_of(_debtors(sides.values(), viewer), services=services)
    is_complete = names is not None and all(known is not None and known.is_complete for known in told)
    return Details(sides=sides, names=names or {}, is_complete=is_complete)


async def _sides_by(service: Confirm | PartnerBank, payment_ids: Iterable[UUID | None]) -> SidesList | None:
    """None where the service does not answer."""
    ids = [id for id in payment_ids if id is not None]
    if not ids:
        return SidesList(sides=[])
    (answer,) = await service.list_sides([ListSides(payment_ids=ids)])
    return None if isinstance(answer, PayflowError) else answer


def _debtors(sides: Iterable[PaymentSides], viewer: Viewer) -> list[str]:
    """The customers who are the other side: confirm knows them by their ids alone."""
    return sorted({one.customer_id for one in sides if one.customer_id is not None and not viewer.is_debtor(one)})


async def _names_of(customer_ids: Sequence[str], *, services: Services) -> dict[str, str] | None:
    """None where account does not answer."""
    if not customer_ids:
        return {}
    answers = await services.account.get_customers([GetCustomer(customer_id=id) for id in customer_ids])
    if any(isinstance(answer, PayflowError) and not isinstance(answer, Rejection) for answer in answers):
        return None
    return {answer.customer_id: answer.name for answer in answers if isinstance(answer, CustomerView)}


def statement_line(entry: EntryLine, *, details: Details, viewer: Viewer) -> StatementLine:
    """A posting as this viewer sees it."""
    sides = None if entry.payment_id is None else details.sides.get(entry.payment_id)
    return StatementLine(
        sequence=entry.sequence,
        entry_id=str(entry.entry_id),
        payment_id=None if entry.payment_id is None else str(entry.payment_id),
        kind=entry.kind,
        amount=format_minor(entry.amount_minor, entry.currency),
        balance=format_minor(entry.balance_minor, entry.currency),
        currency=entry.currency,
        booked_at=entry.booked_at,
        transaction_id=sides.transaction_id if sides is not None and viewer.is_told_of_payer(sides) else None,
        other_side=None if sides is None else _other_side(sides, details=details, viewer=viewer),
        remittance_information=None if sides is None else sides.remittance_information,
    )


def _other_side(sides: PaymentSides, *, details: Details, viewer: Viewer) -> OtherSide:
    if viewer.is_debtor(sides):
        return _told(sides.creditor, name=sides.creditor.name)
    known = None if sides.customer_id is None else details.names.get(sides.customer_id)
    return _told(sides.debtor, name=known or sides.debtor.name)


def _told(side: Side, *, name: str | None) -> OtherSide:
    return OtherSide(account=side.account, name=name, agent=side.agent)
