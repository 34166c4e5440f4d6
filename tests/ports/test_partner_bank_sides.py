"""What partner_bank tells of who sent money, for statement lines: over the in-memory store and over PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from payflow.contracts.account import EntryPage, ListEntries
from payflow.contracts.incoming import suspense_exit_id
from payflow.contracts.ofac import ReviewState
from payflow.contracts.sides import ListSides, PaymentSides, Side, SidesList
from payflow.platform.migrate import migrations_of
from payflow.services.partner_bank.domain import incoming_payment_id
from tests.builders import new_id
from tests.builders_partner_bank import ERIKA, NORDBANK, World, a_submission, an_incoming
from tests.builders_partner_bank import stored_world as stored_world
from tests.builders_partner_bank import world as world
from tests.builders_suspense import decide, held, look_after, rounds


async def sides_of(world: World, *payment_ids: UUID) -> Sequence[PaymentSides]:
    (told,) = await world.gateway.list_sides([ListSides(payment_ids=list(payment_ids))])
    assert isinstance(told, SidesList), told
    return told.sides


async def line_of(world: World, number: str) -> UUID:
    """The id under which an account has its only line."""
    (page,) = await world.operator.list_entries([ListEntries(number=number)])
    assert isinstance(page, EntryPage), page
    (line,) = page.entries
    assert line.payment_id is not None
    return line.payment_id


async def test_money_from_another_bank_tells_its_sender_and_its_text(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number, remittance_information="Invoice 7")
    await world.receive(transfer)

    told = await sides_of(world, await line_of(world, number))

    assert told == [
        PaymentSides(
            payment_id=incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id),
            debtor=Side(account=ERIKA, name="Erika Musterfrau", agent=NORDBANK),
            creditor=Side(account=number, name="Ada Byron"),
            remittance_information="Invoice 7",
            transaction_id=transfer.end_to_end_id,
        )
    ]


async def test_money_that_was_held_tells_its_sender_on_the_line_by_which_it_was_credited(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    decide(world, transfer, ReviewState.CLEARED)
    await look_after(world)
    booked_as = await line_of(world, number)

    (told,) = await sides_of(world, booked_as)

    assert told.payment_id == booked_as
    assert told.debtor == Side(account=ERIKA, name="Listed Person", agent=NORDBANK)


async def test_money_that_went_back_tells_the_sides_of_what_went_back(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    await rounds(world)
    payment_id = incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id)

    came, went = await sides_of(world, payment_id, suspense_exit_id(payment_id))

    assert (came.debtor, came.creditor) == (went.debtor, went.creditor)
    assert went.payment_id == suspense_exit_id(payment_id)


async def test_payments_that_went_out_and_unknown_ones_are_left_out(world: World) -> None:
    command = a_submission()
    await world.submit(command)

    assert await sides_of(world, command.payment_id, new_id()) == []


async def test_money_that_was_held_before_its_exits_were_noted_is_found_as_well(
    stored_world: World, database_url: str
) -> None:
    transfer = await held(stored_world, await stored_world.account())
    payment_id = incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id)
    (sql,) = [one.sql for one in migrations_of("partner_bank") if "exit_from_suspense" in one.sql]
    fill = sql[sql.index("INSERT INTO exit_from_suspense") :].split(";")[0]
    owner = await asyncpg.connect(database_url, server_settings={"search_path": "partner_bank"})
    change = owner.transaction()
    await change.start()

    await owner.execute("DELETE FROM exit_from_suspense")
    await owner.execute(fill)
    noted = await owner.fetchval(
        "SELECT payment_id FROM exit_from_suspense WHERE exit_id = $1", suspense_exit_id(payment_id)
    )
    await change.rollback()
    await owner.close()

    assert noted == payment_id


async def test_a_row_that_was_altered_hides_no_other_and_its_page_says_that_it_is_not_whole(
    stored_world: World, database_url: str
) -> None:
    ids = []
    for _ in range(2):
        transfer = an_incoming(await stored_world.account(), remittance_information="Invoice 7")
        await stored_world.receive(transfer)
        ids.append(incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id))
    owner = await asyncpg.connect(database_url)
    await owner.execute(
        "UPDATE partner_bank.instruction SET parties_encrypted = set_byte(parties_encrypted, 40, "
        "get_byte(parties_encrypted, 40) # 1) WHERE payment_id = $1",
        ids[0],
    )
    await owner.close()

    (told,) = await stored_world.gateway.list_sides([ListSides(payment_ids=ids)])

    assert isinstance(told, SidesList), told
    assert ([sides.payment_id for sides in told.sides], told.is_complete) == ([ids[1]], False)
