"""What the account service needs from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.account import (
    AccountState,
    AccountView,
    CreditorUnreachable,
    CustomerState,
    CustomerView,
    EntryPage,
    LedgerVerified,
    ListEntries,
    NewAccount,
    NewCustomer,
    Party,
)
from payflow.kernel.envelope import Event
from payflow.services.account.domain import Balance, Changes, Outcomes


class LedgerTransaction(Protocol):
    """One database transaction over the ledger."""

    async def hold_accounts(self, payment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        """The account on which each payment holds funds, for payments that have a hold; nothing is locked."""
        ...

    async def lock_balances(self, account_ids: Sequence[UUID]) -> dict[UUID, Balance]:
        """Balances locked until the end of the transaction, in one order everywhere; unknown accounts are left out."""
        ...

    async def outcomes(self, payment_ids: Sequence[UUID]) -> Outcomes:
        """What earlier commands for these payments came to; read after the locks, so that no race is missed."""
        ...

    async def save(self, changes: Changes) -> None:
        """Write a batch's changes in one statement."""
        ...

    async def insert_customers(self, customers: Sequence[NewCustomer], now: datetime) -> set[str]:
        """Insert new customers; returns the ids that were inserted (the others existed)."""
        ...

    async def insert_accounts(self, accounts: Sequence[tuple[UUID, NewAccount]], now: datetime) -> set[UUID]:
        """Insert customers' accounts with empty balances; returns the ids that were inserted."""
        ...

    async def set_customer_state(self, customer_id: str, state: CustomerState) -> int | None:
        """Change a customer's state; the record's new version, or None for an unknown customer."""
        ...

    async def set_account_state(self, number: str, state: AccountState) -> int | None:
        """Change an account's state; the record's new version, or None for an unknown account."""
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Store events in this transaction; consumers are woken after the commit."""
        ...


class Store(Protocol):
    """The account service's database."""

    def transaction(self) -> AbstractAsyncContextManager[LedgerTransaction]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def balances(self, account_ids: Sequence[UUID]) -> dict[UUID, Balance]:
        """Balances as they are, not locked; unknown accounts are left out."""
        ...

    async def book_whole(self, changes: Changes, *, balances: Sequence[Balance], payment_ids: Sequence[UUID]) -> bool:
        """Write a batch of first transfers that was decided on `balances`, in one statement; whether it was written.

        Nothing is written when one of the balances no longer has its version, or when anything was ever written about
        one of the payments. Raises Unavailable (nothing happened) or UnknownOutcome.
        """
        ...

    async def internal_account(self, *, kind: str, currency: str, agent_bic: str | None = None) -> UUID:
        """The internal account of this kind and currency (a nostro: of this bank), made if it is not there yet."""
        ...

    async def parties(self, numbers: Sequence[str]) -> dict[str, Party]:
        """Customers' accounts with their owners, by number; unknown numbers are left out."""
        ...

    async def customers(self, customer_ids: Sequence[str]) -> dict[str, CustomerView]:
        """Customers by id; unknown ids are left out."""
        ...

    async def accounts(self, numbers: Sequence[str]) -> dict[str, AccountView]:
        """Accounts by number; unknown numbers are left out."""
        ...

    async def close_instants(self, instants: Mapping[str, datetime]) -> set[str]:
        """From here on nothing is booked on these accounts, by number, at their instants or before.

        What is being booked is waited for, about a second; whoever decides later books later. Returns the accounts of
        which that is true now; over a replica, which closes nothing, those of which it has come to see it.
        """
        ...

    async def accounts_at(self, wanted: Sequence[tuple[str, datetime]]) -> dict[tuple[str, datetime], AccountView]:
        """Accounts by number with their balances as of an instant each; unknown numbers are left out."""
        ...

    async def accounts_of(self, customer_ids: Sequence[str]) -> dict[str, list[AccountView]]:
        """Each customer's accounts, ordered by number."""
        ...

    async def entries(self, query: ListEntries) -> EntryPage:
        """One page of an account's statement lines, with the balances around the range that was asked for."""
        ...

    async def expired_holds(self, *, now: datetime, limit: int) -> list[UUID]:
        """Payments whose open hold has expired."""
        ...

    async def verify(self) -> LedgerVerified:
        """Recompute the ledger from its postings in one snapshot."""
        ...

    async def verify_aside(self) -> LedgerVerified | None:
        """The same with pauses, as long as the work takes; None while another process is at it."""
        ...

    async def last_verification(self) -> tuple[datetime, int] | None:
        """When the last verification ended that was saved, and how many rules it found broken."""
        ...

    async def first_account_at(self) -> datetime | None:
        """When the first customer's account was opened; None where there is none."""
        ...

    async def save_verification(self, found: LedgerVerified, *, began_at: datetime, verified_at: datetime) -> None:
        """Remember what a verification found."""
        ...

    async def make_partitions(self) -> int:
        """Make the months to come; returns how many rows stand outside the months that they belong to.

        Raises Unavailable when the ledger is too busy; another time will do.
        """
        ...


class BankDirectory(Protocol):
    """Which accounts at other banks can be paid."""

    def agent_of(self, *, account: str, agent_bic: str | None) -> str | CreditorUnreachable:
        """The BIC of the bank that holds this account (an IBAN, or a number with its bank's BIC), or why there is none
        that can be paid."""
        ...

    def country_of(self, account: str) -> str | None:
        """The country of an IBAN, or None."""
        ...
