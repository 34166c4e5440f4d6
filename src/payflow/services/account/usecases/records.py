"""Operators' commands on the records: customers and accounts are opened, blocked, and opened again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from payflow.contracts.account import (
    AccountClosed,
    AccountNotEmpty,
    AccountNotFound,
    AccountState,
    AccountView,
    AlreadyExists,
    ChangeAccountState,
    ChangeCustomerState,
    CustomerNotFound,
    CustomerState,
    CustomerView,
    InvalidAccountNumber,
    InvalidCustomer,
    NewAccount,
    NewCustomer,
)
from payflow.contracts.operation import Answers
from payflow.contracts.topics import AccountChanged, CustomerChanged, mask_account
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import InvalidAmount, UnknownCurrency, decimals_of
from payflow.services.account.domain import CUSTOMER_NUMBER, Balance, Batch, Outcomes
from payflow.services.account.ports import LedgerTransaction, Store

SOURCE = "account"


class EventMaker:
    """Makes this service's events with fresh ids at one instant."""

    def __init__(self, *, ids: Ids, now: datetime, traceparent: str) -> None:
        self._ids, self._now, self._traceparent = ids, now, traceparent

    def customer(self, type_: str, version: int, data: CustomerChanged) -> Event:
        """An event about a customer."""
        return self._event(type_, data.customer_id, version, _as_builtins(data))

    def account(self, type_: str, version: int, data: AccountChanged) -> Event:
        """An event about an account; the subject is the masked number with its owner."""
        return self._event(type_, f"{data.customer_id}/{data.account}", version, _as_builtins(data))

    def _event(self, type_: str, subject: str, version: int, data: dict[str, object]) -> Event:
        return Event(
            id=self._ids.new(),
            source=SOURCE,
            type=type_,
            subject=subject,
            version=version,
            time=self._now,
            data=data,
            traceparent=self._traceparent,
        )


def _as_builtins(data: CustomerChanged | AccountChanged) -> dict[str, object]:
    return {name: getattr(data, name) for name in data.__struct_fields__}


async def create_customers(
    *, commands: Sequence[NewCustomer], store: Store, events: EventMaker, now: datetime
) -> Answers[CustomerView]:
    """Create customers. A repeat with the same contents gets the record; other contents are AlreadyExists.

    Items may be InvalidCustomer: without a name nobody could be screened.
    """
    named = [command for command in commands if command.name.strip() and command.customer_id.strip()]
    async with store.transaction() as ledger:
        inserted = await ledger.insert_customers(named, now)
        await ledger.append_events(
            [
                events.customer("customer.created", 1, CustomerChanged(customer_id=customer_id, state="ACTIVE"))
                for customer_id in sorted(inserted)
            ]
        )
    views = await store.customers([command.customer_id for command in commands])

    def answer(command: NewCustomer) -> CustomerView | PayflowError:
        view = views.get(command.customer_id)
        if view is None or not command.name.strip():
            return InvalidCustomer("A customer needs a customer_id and a name.")
        given = (command.name, command.country, command.email, command.phone)
        if given != (view.name, view.country, view.email, view.phone):
            return AlreadyExists(f"Customer {command.customer_id} exists with other contents.")
        return view

    return [answer(command) for command in commands]


async def create_accounts(
    *, commands: Sequence[NewAccount], store: Store, ids: Ids, events: EventMaker, now: datetime
) -> Answers[AccountView]:
    """Open customers' accounts, with an opening balance booked from the internal opening-balances account.

    `opening_balance_minor` is in minor units of the account's currency. Items may be CustomerNotFound,
    UnknownCurrency, AlreadyExists; a repeat with the same contents gets the account as it now is.
    """
    customers = await store.customers(sorted({command.customer_id for command in commands}))
    refusals = {index: _refuse_new_account(command, customers) for index, command in enumerate(commands)}
    accepted = [(ids.new(), command) for index, command in enumerate(commands) if refusals[index] is None]
    openings = {
        command.currency: await store.internal_account(kind="opening", currency=command.currency)
        for _, command in accepted
        if command.opening_balance_minor
    }
    async with store.transaction() as ledger:
        inserted = await ledger.insert_accounts(accepted, now)
        opened = [(account_id, command) for account_id, command in accepted if account_id in inserted]
        await _book_openings(ledger, opened=opened, openings=openings, ids=ids, now=now)
        await ledger.append_events([_account_opened(command, events) for _, command in opened])
    views = await store.accounts([command.number for command in commands])

    def answer(index: int, command: NewAccount) -> AccountView | PayflowError:
        view = views.get(command.number)
        if refusals[index] is not None or view is None:
            return refusals[index] or AlreadyExists(f"The number {command.number} belongs to an internal account.")
        if (view.customer_id, view.currency) != (command.customer_id, command.currency):
            return AlreadyExists(f"Account {command.number} exists with other contents.")
        return view

    return [answer(index, command) for index, command in enumerate(commands)]


def _refuse_new_account(command: NewAccount, customers: dict[str, CustomerView]) -> PayflowError | None:
    if command.customer_id not in customers:
        return CustomerNotFound(f"There is no customer {command.customer_id}.")
    if not CUSTOMER_NUMBER.fullmatch(command.number):
        return InvalidAccountNumber()
    if command.opening_balance_minor < 0:
        return InvalidAmount("An opening balance is not negative.")
    try:
        decimals_of(command.currency)
    except UnknownCurrency as error:
        return error
    return None


async def _book_openings(
    ledger: LedgerTransaction,
    *,
    opened: Sequence[tuple[UUID, NewAccount]],
    openings: dict[str, UUID],
    ids: Ids,
    now: datetime,
) -> None:
    funded = [(account_id, command) for account_id, command in opened if command.opening_balance_minor > 0]
    if not funded:
        return
    balances = await ledger.lock_balances([*openings.values(), *(account_id for account_id, _ in funded)])
    batch = Batch(balances=balances, outcomes=Outcomes(), now=now)
    for account_id, command in funded:
        batch.open_with(
            opening_account_id=openings[command.currency],
            account_id=account_id,
            amount_minor=command.opening_balance_minor,
            entry_id=ids.new(),
        )
    await ledger.save(batch.changes)


def _account_opened(command: NewAccount, events: EventMaker) -> Event:
    data = AccountChanged(
        account=mask_account(command.number), customer_id=command.customer_id, state="OPEN", currency=command.currency
    )
    return events.account("account.opened", 1, data)


async def change_customer_state(
    *, command: ChangeCustomerState, store: Store, events: EventMaker
) -> CustomerView | PayflowError:
    """Block a customer, or make them active again: a blocked customer's accounts neither pay nor receive."""
    async with store.transaction() as ledger:
        version = await ledger.set_customer_state(command.customer_id, CustomerState(command.state))
        if version is None:
            return CustomerNotFound()
        data = CustomerChanged(
            customer_id=command.customer_id,
            state=command.state,
            reason=command.reason,
            changed_by=command.changed_by,
        )
        await ledger.append_events([events.customer("customer.state_changed", version, data)])
    return (await store.customers([command.customer_id]))[command.customer_id]


async def change_account_state(
    *, command: ChangeAccountState, store: Store, events: EventMaker
) -> AccountView | PayflowError:
    """Open, block or close an account; the state that it has already changes nothing.

    AccountNotEmpty: closing needs an empty balance and no open hold. AccountClosed: a closed account stays closed.
    """
    before = (await store.accounts([command.number])).get(command.number)
    if before is None:
        return AccountNotFound()
    party = (await store.parties([command.number]))[command.number]
    async with store.transaction() as ledger:
        # Locked in any case: a batch that is being booked sees either the old state or the new one, and we its end.
        balance = (await ledger.lock_balances([party.account_id]))[party.account_id]
        refusal = _refuse_state(balance, command.state)
        if refusal is not None:
            return refusal
        if balance.state is not command.state:
            version = await ledger.set_account_state(command.number, command.state)
            data = AccountChanged(
                account=mask_account(command.number),
                customer_id=before.customer_id,
                state=command.state,
                currency=before.currency,
                reason=command.reason,
                changed_by=command.changed_by,
            )
            await ledger.append_events([events.account("account.state_changed", version or 1, data)])
    return (await store.accounts([command.number]))[command.number]


def _refuse_state(balance: Balance, state: AccountState) -> PayflowError | None:
    if balance.state is AccountState.CLOSED and state is not AccountState.CLOSED:
        return AccountClosed("A closed account stays closed.")
    if state is AccountState.CLOSED and (balance.posted_minor or balance.held_minor):
        return AccountNotEmpty()
    return None
