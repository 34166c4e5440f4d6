"""What a statement line tells of its payment, and to whom: payer, payee, the bank's own people."""

from __future__ import annotations

import asyncio
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

from payflow.contracts.account import EntryLine
from payflow.contracts.gateway import Role
from payflow.contracts.sides import PaymentSides, Side
from payflow.kernel.errors import Unavailable, UnknownOutcome
from payflow.services.gateway.routes.openapi import openapi_document
from tests.builders import NOON, new_id
from tests.builders import NORDBANK_BIC as NORDBANK
from tests.fakes_gateway import GatewayWorld
from tests.openapi_contract import OpenApiContract

IBAN = "DE08990100100000001001"
UNTOLD = {"transaction_id": None, "other_side": None, "remittance_information": None}


@cache
def _documented() -> OpenApiContract:
    return OpenApiContract(msgspec.json.decode(openapi_document()[0]))


@pytest.fixture
def world(tmp_path: Path) -> GatewayWorld:
    """Ada has ACC001, Grace ACC002."""
    made = GatewayWorld(tmp_path / "keys")
    made.account.open("ACC001", "cust_001")
    made.account.open("ACC002", "cust_002")
    made.account.names = {"cust_001": "Ada Byron", "cust_002": "Grace Hopper"}
    return made


def a_line(number: str, world: GatewayWorld, *, kind: str = "transfer", payment_id: UUID | None = None) -> UUID | None:
    """One more line of an account; gives the id under which it is booked."""
    lines = world.account.entries.setdefault(number, [])
    lines.append(
        EntryLine(
            sequence=len(lines) + 1,
            entry_id=new_id(),
            payment_id=payment_id,
            kind=kind,
            amount_minor=100,
            balance_minor=100,
            currency="USD",
            booked_at=NOON,
        )
    )
    return payment_id


def the_sides(payment_id: UUID, **changes: Any) -> PaymentSides:
    """Ada pays Grace, and calls her Grace H."""
    values: dict[str, Any] = {
        "payment_id": payment_id,
        "debtor": Side(account="ACC001"),
        "creditor": Side(account="ACC002", name="Grace H."),
        "remittance_information": "Rent",
        "transaction_id": "txn_001",
        "customer_id": "cust_001",
    }
    return PaymentSides(**{**values, **changes})


def from_nordbank(payment_id: UUID, **changes: Any) -> PaymentSides:
    """Erika pays Grace from another bank."""
    values: dict[str, Any] = {
        "debtor": Side(account=IBAN, name="Erika Musterfrau", agent=NORDBANK),
        "creditor": Side(account="ACC002", name="G. Hopper"),
        "remittance_information": "Invoice 7",
        "transaction_id": "E2E-1",
        "customer_id": None,
    }
    return the_sides(payment_id, **{**values, **changes})


async def statement(world: GatewayWorld, number: str, *, role: Role = Role.CUSTOMER) -> dict[str, Any]:
    """The page, as OpenAPI allows it, that the account's owner sees, or one of the bank's own people."""
    if role is Role.CUSTOMER:
        token = await world.token(f"owner-{number}", customer_id=world.account.accounts[number].customer_id)
    else:
        token = await world.token(role.value, role=role)
    path = f"/accounts/{number}/entries"
    reply = await world.client.send("GET", path, token=token)
    assert reply.status == 200, reply.body
    _documented().check("GET", path, status=reply.status, headers=reply.headers, body=reply.body)
    page: dict[str, Any] = reply.json
    return page


def details(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in UNTOLD}


def paid(world: GatewayWorld, *, kind: str = "transfer", **changes: Any) -> UUID:
    """A payment that both accounts have a line of."""
    payment_id = new_id()
    for number in ("ACC001", "ACC002"):
        a_line(number, world, kind=kind, payment_id=payment_id)
    world.confirm.sides[payment_id] = the_sides(payment_id, **changes)
    return payment_id


async def test_the_payer_sees_whom_they_paid_as_they_named_them_and_their_own_name_for_it(world: GatewayWorld) -> None:
    paid(world)

    page = await statement(world, "ACC001")

    assert page["details_complete"] is True
    assert details(page["data"][0]) == {
        "transaction_id": "txn_001",
        "other_side": {"account": "ACC002", "name": "Grace H.", "agent": None},
        "remittance_information": "Rent",
    }


async def test_the_payee_sees_who_paid_and_nothing_else_of_the_payer(world: GatewayWorld) -> None:
    paid(world)

    page = await statement(world, "ACC002")

    assert details(page["data"][0]) == {
        "transaction_id": None,
        "other_side": {"account": "ACC001", "name": "Ada Byron", "agent": None},
        "remittance_information": "Rent",
    }
    assert "txn_001" not in str(page)
    assert "cust_001" not in str(page)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.COMPLIANCE])
async def test_the_banks_own_people_see_each_side_and_the_payers_name_for_it(world: GatewayWorld, role: Role) -> None:
    paid(world)

    page = await statement(world, "ACC002", role=role)

    assert details(page["data"][0]) == {
        "transaction_id": "txn_001",
        "other_side": {"account": "ACC001", "name": "Ada Byron", "agent": None},
        "remittance_information": "Rent",
    }


async def test_who_pays_between_their_own_accounts_is_payer_on_both(world: GatewayWorld) -> None:
    world.account.open("ACC003", "cust_001")
    payment_id = paid(world, creditor=Side(account="ACC003"))
    a_line("ACC003", world, payment_id=payment_id)

    page = await statement(world, "ACC003")

    assert page["data"][0]["transaction_id"] == "txn_001"
    assert page["data"][0]["other_side"] == {"account": "ACC001", "name": "Ada Byron", "agent": None}


async def test_what_a_payment_does_not_name_is_null(world: GatewayWorld) -> None:
    paid(world, creditor=Side(account="ACC002"), remittance_information=None)

    (line,) = (await statement(world, "ACC001"))["data"]

    assert line["other_side"] == {"account": "ACC002", "name": None, "agent": None}
    assert line["remittance_information"] is None


async def test_money_to_another_bank_tells_its_account_name_and_bank(world: GatewayWorld) -> None:
    paid(world, kind="capture", creditor=Side(account=IBAN, name="Erika Musterfrau", agent=NORDBANK))

    (line,) = (await statement(world, "ACC001"))["data"]

    assert line["other_side"] == {"account": IBAN, "name": "Erika Musterfrau", "agent": NORDBANK}
    assert line["transaction_id"] == "txn_001"


@pytest.mark.parametrize(("role", "transaction_id"), [(Role.CUSTOMER, None), (Role.OPERATOR, "E2E-1")])
async def test_money_from_another_bank_tells_who_sent_it(
    world: GatewayWorld, role: Role, transaction_id: str | None
) -> None:
    payment_id = new_id()
    a_line("ACC002", world, kind="incoming", payment_id=payment_id)
    world.bank.sides[payment_id] = from_nordbank(payment_id)

    page = await statement(world, "ACC002", role=role)

    assert details(page["data"][0]) == {
        "transaction_id": transaction_id,
        "other_side": {"account": IBAN, "name": "Erika Musterfrau", "agent": NORDBANK},
        "remittance_information": "Invoice 7",
    }
    assert world.confirm.sides_asked == []


async def test_an_account_that_another_bank_calls_as_ours_is_called_is_still_theirs(world: GatewayWorld) -> None:
    payment_id = new_id()
    a_line("ACC002", world, kind="incoming", payment_id=payment_id)
    debtor = Side(account="ACC002", name="Erika Musterfrau", agent=NORDBANK)
    world.bank.sides[payment_id] = from_nordbank(payment_id, debtor=debtor)

    (line,) = (await statement(world, "ACC002"))["data"]

    assert line["other_side"] == {"account": "ACC002", "name": "Erika Musterfrau", "agent": NORDBANK}


async def test_a_return_tells_the_sides_of_the_payment_that_it_gives_back(world: GatewayWorld) -> None:
    return_id = paid(world, kind="return")

    (of_payer,) = (await statement(world, "ACC001"))["data"]
    (of_payee,) = (await statement(world, "ACC002"))["data"]

    assert of_payer["payment_id"] == of_payee["payment_id"] == str(return_id)
    assert (of_payer["transaction_id"], of_payee["transaction_id"]) == ("txn_001", None)
    assert (of_payer["other_side"]["account"], of_payee["other_side"]["account"]) == ("ACC002", "ACC001")
    assert of_payer["remittance_information"] == of_payee["remittance_information"] == "Rent"


async def test_a_line_without_a_payment_or_of_an_unknown_one_tells_nothing_more(world: GatewayWorld) -> None:
    a_line("ACC001", world, kind="opening")
    a_line("ACC001", world, payment_id=new_id())

    page = await statement(world, "ACC001")

    assert [details(line) for line in page["data"]] == [UNTOLD, UNTOLD]
    assert page["details_complete"] is True


async def test_a_page_is_asked_about_once_and_one_without_payments_not_at_all(world: GatewayWorld) -> None:
    payment_ids = [paid(world) for _ in range(3)]
    came_in = a_line("ACC001", world, kind="incoming", payment_id=new_id())
    of_no_kind = a_line("ACC001", world, kind="unknown", payment_id=new_id())
    world.account.open("ACC003", "cust_001")
    a_line("ACC003", world, kind="opening")

    await statement(world, "ACC003")
    asked_before = [*world.confirm.sides_asked, *world.bank.sides_asked]
    await statement(world, "ACC001")

    assert asked_before == []
    (of_confirm,), (of_bank,) = world.confirm.sides_asked, world.bank.sides_asked
    assert set(of_confirm.payment_ids) == {*payment_ids, of_no_kind}
    assert set(of_bank.payment_ids) == {came_in, of_no_kind}


async def test_confirm_and_partner_bank_are_asked_at_the_same_time(world: GatewayWorld) -> None:
    paid(world)
    a_line("ACC001", world, kind="incoming", payment_id=new_id())
    world.confirm.sides_barrier = world.bank.sides_barrier = asyncio.Barrier(2)

    page = await statement(world, "ACC001")

    assert page["details_complete"] is True


@pytest.mark.parametrize("failure", [Unavailable("away"), UnknownOutcome("no answer")])
async def test_without_confirm_the_statement_is_told_without_what_confirm_knows(
    world: GatewayWorld, failure: Unavailable | UnknownOutcome
) -> None:
    paid(world)
    payment_id = new_id()
    a_line("ACC002", world, kind="incoming", payment_id=payment_id)
    world.bank.sides[payment_id] = from_nordbank(payment_id)
    world.confirm.sides_failure = failure

    page = await statement(world, "ACC002")

    incoming, internal = page["data"]
    assert page["details_complete"] is False
    assert details(internal) == UNTOLD
    assert (internal["amount"], internal["balance"]) == ("1.00", "1.00")
    assert incoming["other_side"]["name"] == "Erika Musterfrau"


async def test_without_partner_bank_only_what_came_from_other_banks_lacks_its_sides(world: GatewayWorld) -> None:
    paid(world)
    world.bank.sides_failure = Unavailable("away")

    without_incoming = await statement(world, "ACC001")
    a_line("ACC002", world, kind="incoming", payment_id=new_id())
    with_incoming = await statement(world, "ACC002")

    assert without_incoming["details_complete"] is True
    assert with_incoming["details_complete"] is False
    assert [line["other_side"] is None for line in with_incoming["data"]] == [True, False]


async def test_a_statement_says_that_something_could_not_be_read(world: GatewayWorld) -> None:
    paid(world)
    world.confirm.sides_are_complete = False

    page = await statement(world, "ACC001")

    assert page["details_complete"] is False
    assert page["data"][0]["other_side"] is not None


async def test_without_its_payers_names_a_statement_is_not_complete(world: GatewayWorld) -> None:
    paid(world)
    world.account.names_failure = Unavailable("away")

    page = await statement(world, "ACC002")

    assert page["details_complete"] is False
    assert page["data"][0]["other_side"] == {"account": "ACC001", "name": None, "agent": None}


async def test_a_payer_who_is_no_customer_any_more_has_no_name(world: GatewayWorld) -> None:
    paid(world)
    del world.account.names["cust_001"]

    page = await statement(world, "ACC002")

    assert page["details_complete"] is True
    assert page["data"][0]["other_side"] == {"account": "ACC001", "name": None, "agent": None}
