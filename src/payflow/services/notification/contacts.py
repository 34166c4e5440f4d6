"""Contact data from the account service, asked for only by channels that need it."""

from __future__ import annotations

from collections.abc import Sequence

from payflow.contracts.account import Account, CustomerView, GetCustomer
from payflow.kernel.errors import PayflowError
from payflow.services.notification.domain import Contact


class AccountContacts:
    """See ports.Contacts."""

    def __init__(self, account: Account) -> None:
        self._account = account

    async def contacts(self, customer_ids: Sequence[str]) -> dict[str, Contact | PayflowError]:
        queries = [GetCustomer(customer_id=customer_id) for customer_id in customer_ids]
        answers = await self._account.get_customers(queries)
        return {
            customer_id: _contact(answer) if isinstance(answer, CustomerView) else answer
            for customer_id, answer in zip(customer_ids, answers, strict=True)
        }


def _contact(customer: CustomerView) -> Contact:
    return Contact(name=customer.name, email=customer.email, phone=customer.phone)
