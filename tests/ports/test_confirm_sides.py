"""What confirm tells of the two sides of payments, for statement lines: over memory and over PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from payflow.contracts.confirm import Creditor, PaymentView
from payflow.contracts.sides import ListSides, PaymentSides, Side, SidesList
from tests.builders import NORDBANK_BIC, new_id
from tests.builders_confirm import IBAN, World
from tests.builders_confirm import world as world
from tests.builders_returns import paid, requested


async def sides_of(world: World, *payment_ids: UUID) -> Sequence[PaymentSides]:
    (told,) = await world.gateway.list_sides([ListSides(payment_ids=list(payment_ids))])
    assert isinstance(told, SidesList), told
    return told.sides


async def test_a_payment_tells_both_sides_its_text_and_its_payers_own_name_for_it(world: World) -> None:
    request = world.request("12.00", creditor=Creditor(name="Grace Hopper"), remittance_information="Rent März")
    payment = await world.pay(request)
    assert isinstance(payment, PaymentView), payment

    told = await sides_of(world, payment.payment_id)

    assert told == [
        PaymentSides(
            payment_id=payment.payment_id,
            debtor=Side(account=world.debtor),
            creditor=Side(account=world.creditor, name="Grace Hopper"),
            remittance_information="Rent März",
            transaction_id=request.transaction_id,
            customer_id=world.customer,
        )
    ]


async def test_what_a_payment_does_not_name_is_not_told(world: World) -> None:
    payment = await paid(world)

    (told,) = await sides_of(world, payment.payment_id)

    assert (told.creditor.name, told.creditor.agent, told.remittance_information) == (None, None, None)


async def test_a_payment_to_another_bank_tells_that_banks_bic(world: World) -> None:
    request = world.request("12.00", to=IBAN, debtor_account=world.debtor, creditor=Creditor(name="Erika Musterfrau"))
    payment = await world.pay(request)
    assert isinstance(payment, PaymentView), payment

    (told,) = await sides_of(world, payment.payment_id)

    assert told.creditor == Side(account=IBAN, name="Erika Musterfrau", agent=NORDBANK_BIC)


async def test_a_return_tells_the_sides_of_the_payment_that_it_gives_back(world: World) -> None:
    payment = await paid(world)
    made = await requested(world, payment, "100.00")

    of_payment, of_return = await sides_of(world, payment.payment_id, made.return_id)

    assert of_return.payment_id == made.return_id
    assert (of_return.debtor, of_return.creditor) == (of_payment.debtor, of_payment.creditor)
    assert (of_return.transaction_id, of_return.customer_id) == (payment.transaction_id, world.customer)


async def test_each_page_is_told_of_its_own_payments_and_unknown_ones_are_left_out(world: World) -> None:
    one, other = await paid(world), await paid(world)

    pages = await world.gateway.list_sides(
        [
            ListSides(payment_ids=[other.payment_id, new_id()]),
            ListSides(payment_ids=[]),
            ListSides(payment_ids=[one.payment_id, other.payment_id]),
        ]
    )

    told = [[sides.payment_id for sides in page.sides] for page in pages if isinstance(page, SidesList)]
    assert told == [[other.payment_id], [], [one.payment_id, other.payment_id]]


@pytest.mark.parametrize("world", ["postgres"], indirect=True)
async def test_a_row_that_was_altered_hides_no_other_and_its_page_says_that_it_is_not_whole(
    world: World, database_url: str
) -> None:
    altered = await world.pay(world.request("12.00", remittance_information="Rent"))
    other = await paid(world)
    assert isinstance(altered, PaymentView), altered
    owner = await asyncpg.connect(database_url)
    await owner.execute(
        "UPDATE confirm.transactions SET remittance_encrypted = set_byte(remittance_encrypted, 30, "
        "get_byte(remittance_encrypted, 30) # 1) WHERE payment_id = $1",
        altered.payment_id,
    )
    await owner.close()

    with capture_logs() as lines:
        both, whole = await world.gateway.list_sides(
            [
                ListSides(payment_ids=[altered.payment_id, other.payment_id]),
                ListSides(payment_ids=[other.payment_id]),
            ]
        )

    assert isinstance(both, SidesList)
    assert isinstance(whole, SidesList)
    assert ([sides.payment_id for sides in both.sides], both.is_complete) == ([other.payment_id], False)
    assert ([sides.payment_id for sides in whole.sides], whole.is_complete) == ([other.payment_id], True)
    (line,) = (line for line in lines if line["event"] == "row.unreadable")
    assert line["error"] == f"the value of transactions.remittance:{altered.payment_id} was altered or moved"
