"""A customer's own accounts and their statement lines. Amounts are decimals as text."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

import msgspec
from litestar import get
from litestar.params import FromPath, QueryParameter

from payflow.contracts.account import (
    AccountState,
    AccountView,
    EntryCursor,
    EntryPage,
    GetAccount,
    ListAccounts,
    ListEntries,
)
from payflow.contracts.gateway import Role
from payflow.kernel.money import format_minor
from payflow.platform.http.errors import NotFound, UnreadableBody
from payflow.services.gateway.domain.instants import read_instant
from payflow.services.gateway.routes.bodies import AnyRequest, first
from payflow.services.gateway.routes.payments import Cursor, Limit
from payflow.services.gateway.routes.security import FOR_CUSTOMERS, ROLES, current_user, customer_of, freshness_name
from payflow.services.gateway.routes.services import FromServices, Services
from payflow.services.gateway.routes.statement_lines import (
    Details,
    StatementLine,
    Viewer,
    details_of,
    statement_line,
)

_CURSOR_MAX = 2**63 - 1
_LINE_CURSOR: Final = re.compile(r"([0-9]{1,17})\.([0-9]{1,18})", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PAST: Final = "2026-01-31"

_INSTANT_LENGTH_MAX: Final = 64
_INSTANT: Final = "An instant with its offset, or a date, which is its first instant in UTC."
At = Annotated[
    str | None, QueryParameter(max_length=_INSTANT_LENGTH_MAX, description="The balances as of then. " + _INSTANT)
]
From = Annotated[
    str | None,
    QueryParameter(name="from", max_length=_INSTANT_LENGTH_MAX, description="Booked then or later. " + _INSTANT),
]
To = Annotated[
    str | None, QueryParameter(name="to", max_length=_INSTANT_LENGTH_MAX, description="Booked before then. " + _INSTANT)
]

_SEE_ALL = frozenset({Role.OPERATOR, Role.COMPLIANCE, Role.ADMIN})


class AccountBody(msgspec.Struct, kw_only=True):
    """An account: `available` is what can be spent, `posted` minus `held`.

    `as_of` is the instant that these three are of, where one was asked for with `at`; all else is as it is now.
    """

    number: str
    customer_id: str
    currency: str
    status: AccountState
    posted: str
    held: str
    available: str
    opened_at: datetime
    as_of: datetime | None = None


class AccountPage(msgspec.Struct):
    """A customer's accounts, ordered by number; all of them, so `next_cursor` is null."""

    data: list[AccountBody]
    next_cursor: str | None = None


class StatementPage(msgspec.Struct):
    """Statement lines, newest first. `next_cursor` is null on the last page.

    `opening_balance` and `closing_balance` are the posted balances before the first and after the last line of the
    whole range, on each of its pages. `details_complete` is false where a service did not answer in time, or
    could not read what it stored: then `transaction_id`, `other_side`, the name in it and `remittance_information` may
    be null though they are known.
    """

    data: list[StatementLine]
    opening_balance: str
    closing_balance: str
    details_complete: bool
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
    opt={ROLES: _SEE_ALL | {Role.CUSTOMER}, "errors": ("NOT_FOUND", "INSTANT_NOT_PASSED")},
)
async def get_account(request: AnyRequest, services: FromServices, number: FromPath[str], at: At = None) -> AccountBody:
    """One account: a customer's own, 404 for anybody else's; any for operators and compliance officers.

    With `at`, any instant that has passed: `posted` is what was booked until then, that instant included, `held` are
    the holds that were open then, and `available` is what could be spent. Before it was opened, an account had nothing.
    `status` is the present one in any case.
    """
    return account_body(await _account(request, services, number, at=_read("at", at)))


@get(
    "/accounts/{number:str}/entries",
    tags=["Accounts"],
    summary="Statement lines",
    opt={ROLES: _SEE_ALL | {Role.CUSTOMER}, "errors": ("NOT_FOUND",)},
)
async def list_entries(
    request: AnyRequest,
    services: FromServices,
    number: FromPath[str],
    booked_from: From = None,
    booked_until: To = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> StatementPage:
    """Postings on an account, newest first: a customer's own, any for operators and compliance officers.

    `from` belongs to the range, `to` does not, so that a month is `from=2026-01-01&to=2026-02-01`. Without them it is
    all that was ever booked. A cursor stays good while new entries arrive; send it with the same `from` and `to`.

    Each line tells who the money came from or went to, and what for. Who was paid never learns the payer's
    `transaction_id`.
    """
    begin, end = _read("from", booked_from), _read("to", booked_until)
    if begin is not None and end is not None and begin >= end:
        raise UnreadableBody("from: send an instant before that of to.", field="from")
    query = ListEntries(
        number=number,
        customer_id=_owner_seen_by(request),
        booked_from=begin,
        booked_until=end,
        cursor=read_line_cursor(cursor),
        limit=limit,
        fresh_as_of=await services.freshness.fresh_as_of(freshness_name(request.scope)),
    )
    account = await _account(request, services, number)
    page = first(await services.account.list_entries([query]))
    viewer = Viewer(account=account.number, customer_id=query.customer_id)
    details = await details_of(page, viewer=viewer, services=services)
    return _statement_page(page, account.currency, details=details, viewer=viewer)


def _statement_page(page: EntryPage, currency: str, *, details: Details, viewer: Viewer) -> StatementPage:
    return StatementPage(
        data=[statement_line(entry, details=details, viewer=viewer) for entry in page.entries],
        opening_balance=format_minor(page.opening_minor, currency),
        closing_balance=format_minor(page.closing_minor, currency),
        details_complete=details.is_complete,
        next_cursor=None if page.next_cursor is None else line_cursor(page.next_cursor),
    )


def _read(name: str, text: str | None) -> datetime | None:
    """An instant of the query. Raises UnreadableBody."""
    if text is None:
        return None
    try:
        # A "+" that was not written as %2B has become a blank on its way.
        return read_instant(name, text.replace(" ", "+"), example=_PAST)
    except ValueError as error:
        raise UnreadableBody(str(error), field=name) from None


def _owner_seen_by(request: AnyRequest) -> str | None:
    """Whose accounts the signed-in user may look at, None for everybody's. Raises Forbidden."""
    return None if current_user(request.scope).role in _SEE_ALL else customer_of(request.scope)


async def _account(request: AnyRequest, services: Services, number: str, *, at: datetime | None = None) -> AccountView:
    query = GetAccount(number=number, customer_id=_owner_seen_by(request), at=at)
    (account,) = await services.account.get_accounts([query])
    if isinstance(account, Exception) and account.code == "ACCOUNT_NOT_FOUND":
        # In a payment an unknown account is a refusal (422); as an address it is simply not there.
        raise NotFound("No such account.")
    return first([account])


def read_entry_cursor(cursor: str | None) -> int | None:
    """A cursor that is a number. Raises UnreadableBody for what no list gave."""
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal()) or int(cursor) > _CURSOR_MAX:
        raise UnreadableBody("cursor: send next_cursor of the page before as it is.", field="cursor")
    return int(cursor)


def line_cursor(cursor: EntryCursor) -> str:
    """A place in a statement, as it is told: its instant in microseconds, and its number."""
    return f"{(cursor.booked_at - _EPOCH) // timedelta(microseconds=1)}.{cursor.sequence}"


def read_line_cursor(cursor: str | None) -> EntryCursor | None:
    """A place in a statement. Raises UnreadableBody for what no list gave."""
    if cursor is None:
        return None
    match = _LINE_CURSOR.fullmatch(cursor)
    try:
        if match is not None:
            return EntryCursor(_EPOCH + timedelta(microseconds=int(match[1])), int(match[2]))
    except OverflowError:
        pass
    raise UnreadableBody("cursor: send next_cursor of the page before as it is.", field="cursor")


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
        as_of=account.as_of,
    )


HANDLERS = [list_accounts, get_account, list_entries]
