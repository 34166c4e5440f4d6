"""How account numbers may be written in `POST /payment/confirm`."""

from __future__ import annotations

import pytest

from tests.fakes_gateway import GatewayWorld
from tests.unit.test_gateway_payment_route import pay
from tests.unit.test_gateway_payment_route import world as world


@pytest.mark.parametrize(
    ("printed", "plain"),
    [
        ("DE08 9901 0010 0000 0010 01", "DE08990100100000001001"),
        ("FR14 2004 1010 0505 0001 3M02 606", "FR1420041010050500013M02606"),
        ("NO93 8601 1117 947", "NO9386011117947"),
    ],
)
async def test_an_iban_as_banks_print_it_is_the_same_account_without_blanks(
    world: GatewayWorld, printed: str, plain: str
) -> None:
    token = await world.token()

    await pay(world, token, to_account=printed)
    await pay(world, token, to_account=plain)

    first, second = world.confirm.commands
    assert (first.creditor_account, second.creditor_account) == (plain, plain)
    assert first.fingerprint == second.fingerprint


@pytest.mark.parametrize(
    "number",
    ["ACC 002", "DE08  9901 0010 0000 0010 01", " DE08 9901 0010 0000", "DE08 9901 0010 000 0010 01", "A" * 35],
)
async def test_other_blanks_in_an_account_number_are_refused(world: GatewayWorld, number: str) -> None:
    reply = await pay(world, await world.token(), to_account=number)

    assert (reply.status, reply.json["field"]) == (400, "to_account")
    assert reply.json["detail"] == (
        "to_account: send a text of at most 34 letters, digits and signs of ASCII without spaces, or an IBAN in groups"
        " of four such as DE08 9901 0010 0000 0010 01."
    )
    assert world.confirm.commands == []
