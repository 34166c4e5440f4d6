"""Accounts: opened with a balance, blocked, opened again, closed. `routes.accounts` shows them, to every role."""

from __future__ import annotations

import re
from typing import Annotated, Final

import msgspec
from litestar import post

from payflow.contracts.account import AccountState, AccountView, ChangeAccountState, NewAccount
from payflow.contracts.gateway import Role
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import InvalidAmount, Money, decimals_of
from payflow.platform.http.errors import NotFound
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.routes.accounts import AccountBody, account_body
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.operators.shared import END, NewAccountNumber, NewId, PathText, Reason, open_to
from payflow.services.gateway.routes.security import current_user
from payflow.services.gateway.routes.services import FromServices

_ZERO: Final = re.compile(r"0(?:\.(0+))?")


class NewAccountBody(Body):
    """An account to open. `opening_balance` is a decimal as text, with at most the currency's decimals."""

    number: NewAccountNumber
    customer_id: NewId
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}" + END, examples=["USD"])]
    opening_balance: Annotated[str, msgspec.Meta(max_length=40, examples=["250.00"])] = "0"


class AccountStateBody(Body):
    """The state to change to: BLOCKED_DEBIT pays nothing, BLOCKED_CREDIT receives nothing, BLOCKED neither."""

    state: AccountState
    reason: Reason


_NEW: Final = StrictReader(NewAccountBody, required=("number", "customer_id", "currency"))
_STATE: Final = StrictReader(AccountStateBody, required=("state", "reason"))


@post(
    "/accounts",
    guards=[open_to(Role.OPERATOR)],
    tags=["Accounts"],
    summary="Open an account",
    opt={
        "body": NewAccountBody,
        "errors": ("CUSTOMER_NOT_FOUND", "INVALID_AMOUNT", "UNKNOWN_CURRENCY", "ALREADY_EXISTS"),
    },
)
async def create_account(request: AnyRequest, services: FromServices) -> AccountBody:
    """The opening balance is booked from the bank's opening-balances account of the currency.

    No Idempotency-Key is needed: creation is idempotent by `number`. A repeat for the same customer and currency
    answers the account as it now is and books nothing; anything else is ALREADY_EXISTS.
    """
    body = await read_json(request, _NEW)
    command = NewAccount(
        number=body.number,
        customer_id=body.customer_id,
        currency=body.currency,
        opening_balance_minor=opening_balance_minor(body.opening_balance, body.currency),
    )
    return account_body(first(await services.account.create_accounts([command])))


@post(
    "/accounts/{number:str}/state",
    status_code=200,
    guards=[open_to(Role.OPERATOR, Role.COMPLIANCE)],
    tags=["Accounts"],
    summary="Block, open or close an account",
    opt={"body": AccountStateBody, "errors": ("NOT_FOUND", "ACCOUNT_NOT_EMPTY", "ACCOUNT_CLOSED")},
)
async def change_account_state(request: AnyRequest, services: FromServices, number: PathText) -> AccountBody:
    """Payments that are under way are refused when they reach the ledger.

    Only an account without money and holds can be closed, and it stays closed. The state that it has is no error.
    """
    body = await read_json(request, _STATE)
    command = ChangeAccountState(
        number=number,
        state=body.state,
        reason=body.reason,
        changed_by=current_user(request.scope).username,
    )
    (account,) = await services.account.change_account_state([command])
    return account_body(found_at_address(account))


def found_at_address(account: AccountView | PayflowError) -> AccountView:
    """The account. In a payment an unknown one is a refusal (422); as an address it is simply not there (404)."""
    if isinstance(account, PayflowError) and account.code == "ACCOUNT_NOT_FOUND":
        raise NotFound("No such account.")
    return first([account])


def opening_balance_minor(text: str, currency: str) -> int:
    """An opening balance in minor units; zero is allowed. Raises InvalidAmount, UnknownCurrency."""
    zero = _ZERO.fullmatch(text)
    if zero is None:
        return Money.from_decimal(text, currency).minor_units
    if len(zero[1] or "") > decimals_of(currency):
        raise InvalidAmount(f"{currency} has {decimals_of(currency)} decimals; the amount has {len(zero[1])}.")
    return 0


HANDLERS = [create_account, change_account_state]
