"""The account service: customers, accounts, and the double-entry ledger with its holds."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.incoming import CreditFromSuspense as CreditFromSuspense
from payflow.contracts.incoming import CreditIncoming as CreditIncoming
from payflow.contracts.incoming import ReturnFromSuspense as ReturnFromSuspense
from payflow.contracts.operation import Answers, operation
from payflow.contracts.parties import ExternalParty as ExternalParty
from payflow.contracts.parties import PartiesResolved as PartiesResolved
from payflow.contracts.parties import Party as Party
from payflow.contracts.parties import ResolveParties as ResolveParties
from payflow.contracts.statements import EntryCursor as EntryCursor
from payflow.contracts.statements import EntryLine as EntryLine
from payflow.contracts.statements import EntryPage as EntryPage
from payflow.contracts.statements import LedgerVerified as LedgerVerified
from payflow.contracts.statements import ListEntries as ListEntries
from payflow.contracts.statements import VerifyLedger as VerifyLedger
from payflow.kernel.errors import Conflict, Rejection


class AccountState(StrEnum):
    OPEN = "OPEN"
    BLOCKED_DEBIT = "BLOCKED_DEBIT"
    BLOCKED_CREDIT = "BLOCKED_CREDIT"
    BLOCKED = "BLOCKED"
    CLOSED = "CLOSED"


class CustomerState(StrEnum):
    ACTIVE = "ACTIVE"
    BLOCKED = "BLOCKED"


class InsufficientFunds(Rejection):
    """The available balance is below the amount."""

    code = "INSUFFICIENT_FUNDS"


class AccountNotFound(Rejection):
    """No such account."""

    code = "ACCOUNT_NOT_FOUND"


class CustomerNotFound(Rejection):
    """No such customer."""

    code = "CUSTOMER_NOT_FOUND"


class AccountNotYours(Rejection):
    """The debtor account belongs to another customer; told as 403."""

    code = "ACCOUNT_NOT_OWNED"


class AccountBlocked(Rejection):
    """The account's or its owner's state does not allow this movement."""

    code = "ACCOUNT_BLOCKED"


class AccountClosed(Rejection):
    """The account is closed."""

    code = "ACCOUNT_CLOSED"


class AccountNotEmpty(Rejection):
    """Only an account without money and holds can be closed."""

    code = "ACCOUNT_NOT_EMPTY"


class InstantNotPassed(Rejection):
    """Balances are known as of instants that have passed."""

    code = "INSTANT_NOT_PASSED"


class InvalidAccountNumber(Rejection):
    """A customer's account number is 1 to 34 letters, digits, dots, dashes or underscores."""

    code = "INVALID_ACCOUNT_NUMBER"


class InvalidCustomer(Rejection):
    """A customer needs an id and a name: without a name nobody could be screened."""

    code = "INVALID_CUSTOMER"


class CreditorUnreachable(Rejection):
    """The creditor is neither an account here nor a payable IBAN nor an account at a known bank; `detail` says why."""

    code = "CREDITOR_UNREACHABLE"


class SameAccount(Rejection):
    """Debtor and creditor account are the same."""

    code = "SAME_ACCOUNT"


class HoldNotFound(Conflict):
    """The payment holds no funds."""

    code = "HOLD_NOT_FOUND"


class CaptureTooLarge(Conflict):
    """More is to be captured than the payment holds."""

    code = "CAPTURE_TOO_LARGE"


class AlreadyBooked(Conflict):
    """The payment's money has moved."""

    code = "ALREADY_BOOKED"


class StaleCommand(Conflict):
    """A later owner of the payment has already sent a command; this process must stop driving it."""

    code = "STALE_COMMAND"


class PaymentEnded(Rejection):
    """The payment was ended unpaid here, by somebody who may not have lived to store it: it can only end so.

    `detail` is the reason that was given with the release.
    """

    code = "PAYMENT_ENDED"


class AlreadyExists(Conflict):
    """A record with this id exists and has other contents."""

    code = "ALREADY_EXISTS"


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """Move money between two accounts of ours; `amount_minor` in minor units of the accounts' currency.

    `captures_hold`: the payment has an open hold, and the money is to come from nowhere else (else HoldNotFound).
    Where the payment has one that the caller does not know of, it is taken from there too. `is_return`: the payment is
    a return, and its journal entry is of the kind `return`.
    """

    payment_id: UUID
    fencing_token: int
    debtor_account_id: UUID
    creditor_account_id: UUID
    amount_minor: int
    currency: str
    captures_hold: bool = False
    is_return: bool = False


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """A journal entry was written (or had been, when the command is a repeat).

    `customer_id`: whose account incoming money was credited to; None on the suspense account, and for other entries.
    """

    entry_id: UUID
    booked_at: datetime
    customer_id: str | None = None


class PlaceHold(msgspec.Struct, frozen=True, kw_only=True):
    """Reserve funds for a payment. One hold per payment: a repeat gets the first one, and may prolong it."""

    payment_id: UUID
    fencing_token: int
    account_id: UUID
    amount_minor: int
    currency: str
    expires_at: datetime | None = None


class HoldPlaced(msgspec.Struct, frozen=True, kw_only=True):
    hold_id: UUID
    placed_at: datetime


class CaptureHold(msgspec.Struct, frozen=True, kw_only=True):
    """Book the held amount to another bank's nostro account (inter-bank), and end the hold.

    `amount_minor`: book only this part of it; the rest is available again by the same entry.
    """

    payment_id: UUID
    fencing_token: int
    agent_bic: str
    amount_minor: int | None = None


class ReleaseHold(msgspec.Struct, frozen=True, kw_only=True):
    """End a payment's funds: give back what is held, and refuse every later command for the payment.

    A payment without a hold is answered as released. AlreadyBooked: its money has moved, so it cannot be ended unpaid.
    `account_id` is the debtor's account, locked so that a late hold cannot slip in between.
    """

    payment_id: UUID
    fencing_token: int
    reason: str
    account_id: UUID | None = None


class Released(msgspec.Struct, frozen=True, kw_only=True):
    released_at: datetime


class KeepHold(msgspec.Struct, frozen=True, kw_only=True):
    """Take the expiry off a hold before submission: from then on only the saga ends it."""

    payment_id: UUID
    fencing_token: int


class HoldKept(msgspec.Struct, frozen=True, kw_only=True):
    hold_id: UUID


class NewCustomer(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str
    name: str
    country: str | None = None
    email: str | None = None
    phone: str | None = None


class NewAccount(msgspec.Struct, frozen=True, kw_only=True):
    """`opening_balance_minor` is booked from the internal opening-balances account of the currency."""

    number: str
    customer_id: str
    currency: str
    opening_balance_minor: int = 0


class ChangeAccountState(msgspec.Struct, frozen=True, kw_only=True):
    number: str
    state: AccountState
    reason: str
    changed_by: str


class ChangeCustomerState(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str
    state: CustomerState
    reason: str
    changed_by: str


class CustomerView(msgspec.Struct, frozen=True, kw_only=True):
    """A customer as an operator, or notification, may see it."""

    customer_id: str
    name: str
    country: str | None
    email: str | None
    phone: str | None
    state: CustomerState
    created_at: datetime


class GetCustomer(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str


class AccountView(msgspec.Struct, frozen=True, kw_only=True):
    """An account with its balances in minor units; `available` is posted minus held.

    `as_of`: the instant that the balances are of, where one was asked for; the rest is as it is now.
    """

    number: str
    customer_id: str
    currency: str
    state: AccountState
    posted_minor: int
    held_minor: int
    opened_at: datetime
    as_of: datetime | None = None

    @property
    def available_minor(self) -> int:
        """What can be spent: posted minus held."""
        return self.posted_minor - self.held_minor


class GetAccount(msgspec.Struct, frozen=True, kw_only=True):
    """`customer_id` None asks as an operator; else another customer's account is AccountNotFound.

    `at`: the balances after everything that was booked, and with the holds that were open, at this instant.
    """

    number: str
    customer_id: str | None = None
    at: datetime | None = None


class ListAccounts(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str


class AccountList(msgspec.Struct, frozen=True, kw_only=True):
    accounts: list[AccountView]


_OPERATORS = {"gateway", "cli"}


class Account(Protocol):
    """Operations of the account service."""

    service: ClassVar[str] = "account"

    @operation(callers={"confirm", "partner_bank", "gateway", "cli"}, tells=("is_on_us",))
    async def resolve(self, queries: list[ResolveParties]) -> Answers[PartiesResolved]: ...

    @operation(callers={"confirm"}, tells=("entry_id",))
    async def transfer(self, commands: list[Transfer]) -> Answers[Booked]: ...

    @operation(callers={"confirm"}, tells=("hold_id",))
    async def place_hold(self, commands: list[PlaceHold]) -> Answers[HoldPlaced]: ...

    @operation(callers={"confirm"}, tells=("hold_id",))
    async def keep_hold(self, commands: list[KeepHold]) -> Answers[HoldKept]: ...

    @operation(callers={"confirm"}, tells=("entry_id",))
    async def capture_hold(self, commands: list[CaptureHold]) -> Answers[Booked]: ...

    @operation(callers={"confirm"})
    async def release_hold(self, commands: list[ReleaseHold]) -> Answers[Released]: ...

    @operation(callers={"partner_bank"}, tells=("entry_id",))
    async def credit_incoming(self, commands: list[CreditIncoming]) -> Answers[Booked]: ...

    @operation(callers={"partner_bank"}, tells=("entry_id",))
    async def credit_from_suspense(self, commands: list[CreditFromSuspense]) -> Answers[Booked]: ...

    @operation(callers={"partner_bank"}, tells=("entry_id",))
    async def return_from_suspense(self, commands: list[ReturnFromSuspense]) -> Answers[Booked]: ...

    @operation(callers=_OPERATORS, timeout_s=30)
    async def create_customers(self, commands: list[NewCustomer]) -> Answers[CustomerView]: ...

    @operation(callers=_OPERATORS, timeout_s=30)
    async def create_accounts(self, commands: list[NewAccount]) -> Answers[AccountView]: ...

    @operation(callers=_OPERATORS)
    async def change_account_state(self, commands: list[ChangeAccountState]) -> Answers[AccountView]: ...

    @operation(callers=_OPERATORS)
    async def change_customer_state(self, commands: list[ChangeCustomerState]) -> Answers[CustomerView]: ...

    @operation(callers=_OPERATORS | {"notification", "risk", "kyc", "confirm"})
    async def get_customers(self, queries: list[GetCustomer]) -> Answers[CustomerView]: ...

    @operation(callers=_OPERATORS)
    async def get_accounts(self, queries: list[GetAccount]) -> Answers[AccountView]: ...

    @operation(callers=_OPERATORS)
    async def list_accounts(self, queries: list[ListAccounts]) -> Answers[AccountList]: ...

    @operation(callers=_OPERATORS)
    async def list_entries(self, queries: list[ListEntries]) -> Answers[EntryPage]: ...

    @operation(callers={"cli"}, timeout_s=600)
    async def verify_ledger(self, queries: list[VerifyLedger]) -> Answers[LedgerVerified]: ...
