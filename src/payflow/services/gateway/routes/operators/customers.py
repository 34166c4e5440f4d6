"""Customers: created one by one or in arrays, looked at, blocked, and made active again."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post

from payflow.contracts.account import (
    AccountView,
    ChangeCustomerState,
    CustomerState,
    CustomerView,
    GetCustomer,
    ListAccounts,
    NewCustomer,
)
from payflow.contracts.gateway import Role
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.routes.accounts import AccountPage, account_body
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.documented import OneOf, Problem
from payflow.services.gateway.routes.operators.shared import (
    END,
    ITEMS_MAX,
    Country,
    NewId,
    PathText,
    PersonName,
    Reason,
    answer_each,
    open_to,
    read_one_or_many,
)
from payflow.services.gateway.routes.security import current_user
from payflow.services.gateway.routes.services import FromServices


class NewCustomerBody(Body):
    """A customer to create. Sending the same contents again changes nothing and answers the same record."""

    customer_id: NewId
    name: PersonName
    country: Country | None = None
    email: (
        Annotated[
            str, msgspec.Meta(max_length=254, pattern=r"^[!-?A-~]+@[!-?A-~]+" + END, examples=["edsger@example.org"])
        ]
        | None
    ) = None
    phone: (
        Annotated[str, msgspec.Meta(pattern=r"^\+?[0-9][0-9 ()./-]{3,30}" + END, examples=["+31 20 555 0100"])] | None
    ) = None


class NewCustomers(Body):
    """The array form, as an object."""

    items: Annotated[list[NewCustomerBody], msgspec.Meta(min_length=1, max_length=ITEMS_MAX)]


class CustomerStateBody(Body):
    """The state to change to. A blocked customer's accounts neither pay nor receive."""

    state: CustomerState
    reason: Reason


class Customer(msgspec.Struct, kw_only=True):
    """A customer's record."""

    customer_id: str
    name: str
    country: str | None
    email: str | None
    phone: str | None
    state: CustomerState
    created_at: datetime


ManyNewCustomers = Annotated[list[NewCustomerBody], msgspec.Meta(min_length=1, max_length=ITEMS_MAX)]

_ONE: Final = StrictReader(NewCustomerBody, required=("customer_id", "name"))
_MANY: Final = StrictReader(NewCustomers)
_STATE: Final = StrictReader(CustomerStateBody, required=("state", "reason"))


@post(
    "/customers",
    guards=[open_to(Role.OPERATOR)],
    tags=["Customers"],
    summary="Create customers",
    opt={
        "body": NewCustomerBody | ManyNewCustomers,
        "answers": {201: Customer, 200: OneOf(Customer, Problem, is_many=True)},
        "errors": ("ALREADY_EXISTS", "INVALID_CUSTOMER"),
    },
)
async def create_customers(request: AnyRequest, services: FromServices) -> Response[Any]:
    """Send an object and get the record (201), or an array of up to 500 and get an array of the same length (200):
    each item a record, or the problem that kept it from being created; one bad item does not keep the others out.

    No Idempotency-Key is needed: creation is idempotent by `customer_id`. The same contents again answer the same
    record; other contents are ALREADY_EXISTS.
    """
    body = await read_one_or_many(request, one=_ONE, many=_MANY)
    if isinstance(body, list):
        answers = await services.account.create_customers([_new_customer(item) for item in body])
        return Response(answer_each(answers, _customer, instance=request.scope["path"]), status_code=200)
    return Response(_customer(first(await services.account.create_customers([_new_customer(body)]))), status_code=201)


@get(
    "/customers/{customer_id:str}",
    guards=[open_to(Role.OPERATOR, Role.COMPLIANCE)],
    tags=["Customers"],
    summary="Look at a customer",
    opt={"errors": ("CUSTOMER_NOT_FOUND",)},
)
async def get_customer(services: FromServices, customer_id: PathText) -> Customer:
    """One customer's record."""
    return _customer(first(await services.account.get_customers([GetCustomer(customer_id=customer_id)])))


@get(
    "/customers/{customer_id:str}/accounts",
    guards=[open_to(Role.OPERATOR, Role.COMPLIANCE)],
    tags=["Customers"],
    summary="List a customer's accounts",
    opt={"errors": ("CUSTOMER_NOT_FOUND",)},
)
async def list_customer_accounts(services: FromServices, customer_id: PathText) -> AccountPage:
    """A customer's accounts with their balances, ordered by number."""
    first(await services.account.get_customers([GetCustomer(customer_id=customer_id)]))
    accounts: list[AccountView] = first(
        await services.account.list_accounts([ListAccounts(customer_id=customer_id)])
    ).accounts
    return AccountPage(data=[account_body(account) for account in accounts])


@post(
    "/customers/{customer_id:str}/state",
    status_code=200,
    guards=[open_to(Role.OPERATOR, Role.COMPLIANCE)],
    tags=["Customers"],
    summary="Block a customer, or make them active",
    opt={"body": CustomerStateBody, "errors": ("CUSTOMER_NOT_FOUND",)},
)
async def change_customer_state(request: AnyRequest, services: FromServices, customer_id: PathText) -> Customer:
    """Payments that are under way when a customer is blocked are refused when they reach the ledger."""
    body = await read_json(request, _STATE)
    command = ChangeCustomerState(
        customer_id=customer_id,
        state=body.state,
        reason=body.reason,
        changed_by=current_user(request.scope).username,
    )
    return _customer(first(await services.account.change_customer_state([command])))


def _new_customer(body: NewCustomerBody) -> NewCustomer:
    return NewCustomer(
        customer_id=body.customer_id, name=body.name, country=body.country, email=body.email, phone=body.phone
    )


def _customer(view: CustomerView) -> Customer:
    return msgspec.convert(view, Customer, from_attributes=True)


HANDLERS = [create_customers, get_customer, list_customer_accounts, change_customer_state]
