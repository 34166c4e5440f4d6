"""A customer's own accounts and their statement lines. Amounts are decimals as text."""

from __future__ import annotations

from datetime import datetime

import msgspec
from litestar import get
from litestar.params import FromPath

from payflow.contracts.account import AccountState, AccountView, EntryLine, GetAccount, ListAccounts, ListEntries
from payflow.contracts.gateway import Role
from payflow.kernel.money import format_minor
from payflow.platform.http.errors import NotFound, UnreadableBody
from payflow.services.gateway.routes.bodies import AnyRequest, first
from payflow.services.gateway.routes.payments import Cursor, Limit
from payflow.services.gateway.routes.security import FOR_CUSTOMERS, ROLES, current_user, customer_of
from payflow.services.gateway.routes.services import FromServices, Services

_CURSOR_MAX = 2**63 - 1
_SEE_ALL = frozenset({Role.OPERATOR, Role.COMPLIANCE, Role.ADMIN})


class AccountBody(msgspec.Struct, kw_only=True):
    """An account: `available` is what can be spent, `posted` minus `held`."""

    number: str
    customer_id: str
    currency: str
    status: AccountState
    posted: str
    held: str
    available: str
    opened_at: datetime


class AccountPage(msgspec.Struct):
    """A customer's accounts, ordered by number; all of them, so `next_cursor` is null."""

    data: list[AccountBody]
    next_cursor: str | None = None


class StatementLine(msgspec.Struct, kw_only=True):
    """One posting: a negative `amount` left the account; `balance` is the posted balance after it."""

    sequence: int
    entry_id: str
    payment_id: str | None
    kind: str
    amount: str
    balance: str
    currency: str
    booked_at: datetime


class StatementPage(msgspec.Struct):
    """Statement lines, newest first. `next_cursor` is null on the last page."""

    data: list[StatementLine]
    next_cursor: str | None


@get("/accounts", tags=["Accounts"], summary="List own accounts", opt=FOR_CUSTOMERS)
async def list_accounts(request: AnyRequest, services: FromServices) -> AccountPage:
    """The signed-in customer's accounts with their balances."""
    query = ListAccounts(customer_id=customer_of(request.scope))
    found = first(await services.account.list_accounts([query]))
    return AccountPage(data=[account_body(account) for account in found.accounts])


@get(
    "/accounts/{number:str}",
    tags=["Accounts"],
    summary="Look at an account",
    opt={ROLES: _SEE_ALL | {Role.CUSTOMER}, "errors": ("NOT_FOUND",)},
)
async def get_account(request: AnyRequest, services: FromServices, number: FromPath[str]) -> AccountBody:
    """One account: a customer's own, 404 for anybody else's; any for operators and compliance officers."""
    return account_body(await _account(request, services, number))


@get(
    "/accounts/{number:str}/entries",
    tags=["Accounts"],
    summary="Statement lines",
    opt={ROLES: _SEE_ALL | {Role.CUSTOMER}, "errors": ("NOT_FOUND",)},
)
async def list_entries(
    request: AnyRequest, services: FromServices, number: FromPath[str], cursor: Cursor = None, limit: Limit = 50
) -> StatementPage:
    """Every posting on an account, newest first: a customer's own, any for operators and compliance officers."""
    after = read_entry_cursor(cursor)
    await _account(request, services, number)
    query = ListEntries(number=number, customer_id=_owner_seen_by(request), cursor=after, limit=limit)
    page = first(await services.account.list_entries([query]))
    next_cursor = None if page.next_cursor is None else str(page.next_cursor)
    return StatementPage(data=[statement_line(entry) for entry in page.entries], next_cursor=next_cursor)


def _owner_seen_by(request: AnyRequest) -> str | None:
    """Whose accounts the signed-in user may look at, None for everybody's. Raises Forbidden."""
    return None if current_user(request.scope).role in _SEE_ALL else customer_of(request.scope)


async def _account(request: AnyRequest, services: Services, number: str) -> AccountView:
    query = GetAccount(number=number, customer_id=_owner_seen_by(request))
    (account,) = await services.account.get_accounts([query])
    if isinstance(account, Exception) and account.code == "ACCOUNT_NOT_FOUND":
        # In a payment an unknown account is a refusal (422); as an address it is simply not there.
        raise NotFound("No such account.")
    return first([account])


def read_entry_cursor(cursor: str | None) -> int | None:
    """A cursor of statement lines. Raises UnreadableBody for what no list gave."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal()) or int(cursor) > _CURSOR_MAX:
        raise UnreadableBody("cursor: send next_cursor of the page before as it is.", field="cursor")
    return int(cursor)


def account_body(account: AccountView) -> AccountBody:
    """An account as customers and operators see it."""
    return AccountBody(
        number=account.number,
        customer_id=account.customer_id,
        currency=account.currency,
        status=account.state,
        posted=format_minor(account.posted_minor, account.currency),
        held=format_minor(account.held_minor, account.currency),
        available=format_minor(account.available_minor, account.currency),
        opened_at=account.opened_at,
    )


def statement_line(entry: EntryLine) -> StatementLine:
    """A posting as customers and operators see it."""
    return StatementLine(
        sequence=entry.sequence,
        entry_id=str(entry.entry_id),
        payment_id=None if entry.payment_id is None else str(entry.payment_id),
        kind=entry.kind,
        amount=format_minor(entry.amount_minor, entry.currency),
        balance=format_minor(entry.balance_minor, entry.currency),
        currency=entry.currency,
        booked_at=entry.booked_at,
    )


HANDLERS = [list_accounts, get_account, list_entries]
