"""One suite for money from other banks over the in-memory store and over PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from payflow.contracts.account import (
    AccountState,
    ChangeAccountState,
)
from payflow.kernel.errors import Unavailable
from payflow.services.partner_bank.domain import (
    Verdict,
)
from tests.builders_partner_bank import (
    NORDBANK,
    World,
    an_incoming,
)
from tests.builders_partner_bank import stored_world as stored_world
from tests.builders_partner_bank import world as world


async def test_money_that_comes_in_is_screened_credited_once_and_announced_once(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number)

    verdicts = [await world.receive(transfer) for _ in range(3)]

    assert verdicts == [[Verdict("ACSC")]] * 3
    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.credited"]
    assert world.ofac.screened[-1].names == ["Erika Musterfrau", "Ada Byron"]


async def test_the_same_message_from_many_connections_is_credited_once(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number)

    await asyncio.gather(*(world.receive(transfer, transfer) for _ in range(8)))

    assert await world.receive(transfer) == [Verdict("ACSC")]
    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.credited"]


async def test_while_one_process_works_on_a_payment_the_others_say_pending(world: World) -> None:
    number, gate = await world.account(), asyncio.Event()
    world.ofac.gates = [gate]
    transfer = an_incoming(number)
    first = asyncio.create_task(world.receive(transfer))
    await world.ofac.called.wait()

    meanwhile = await world.receive(transfer)
    gate.set()

    assert meanwhile == [Verdict("PDNG")]
    assert await first == [Verdict("ACSC")]
    assert len(world.ofac.screened) == 1


async def test_a_process_that_was_overtaken_changes_and_announces_nothing(world: World) -> None:
    number, gate = await world.account(), asyncio.Event()
    world.ofac.gates = [gate]
    transfer = an_incoming(number)
    overtaken = asyncio.create_task(world.receive(transfer))
    await world.ofac.called.wait()
    world.clock.move(timedelta(minutes=1))

    overtaking = await world.receive(transfer)
    gate.set()

    assert overtaking == [Verdict("ACSC")]
    assert await overtaken == [Verdict("ACSC")]
    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.credited"]


async def test_other_contents_under_a_known_end_to_end_id_are_refused_as_a_duplicate(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number, uetr="8a562c67-ca16-48ba-b074-65581be6f011")
    await world.receive(transfer)

    verdicts = await world.receive(
        an_incoming(number, end_to_end_id=transfer.end_to_end_id, amount="26.00"),
        an_incoming(number, end_to_end_id=transfer.end_to_end_id, uetr="9a562c67-ca16-48ba-b074-65581be6f011"),
    )

    assert verdicts == [Verdict("RJCT", "AM05")] * 2
    assert await world.posted(number) == 2500


async def test_a_possible_match_goes_to_suspense_and_not_to_the_account(world: World) -> None:
    number = await world.account()
    world.ofac.listed = {"Listed Person"}
    transfer = an_incoming(number, debtor_name="Listed Person")

    verdicts = await world.receive(transfer)
    world.ofac.listed = set()

    assert verdicts == [Verdict("ACWP")]
    assert await world.receive(transfer) == [Verdict("ACWP")]
    assert await world.posted(number) == 0
    assert await world.events_of(transfer) == ["incoming.held_in_suspense"]


async def test_each_refusal_has_its_iso_reason_and_moves_nothing(world: World) -> None:
    euros, yen = await world.account(), await world.account(currency="JPY")
    blocked = await world.account()
    await world.operator.change_account_state(
        [ChangeAccountState(number=blocked, state=AccountState.BLOCKED, reason="test", changed_by="op")]
    )

    verdicts = await world.receive(
        an_incoming("NOSUCHACCOUNT"),
        an_incoming(blocked),
        an_incoming(yen),
        an_incoming(euros, amount="1.001"),
        an_incoming(euros, amount="0.00"),
        an_incoming(euros, currency="XXX"),
        an_incoming(euros, debtor_name=None),
        an_incoming(euros, end_to_end_id="NOTPROVIDED"),
        an_incoming(euros),
    )

    assert [(verdict.status, verdict.reason_code) for verdict in verdicts] == [
        ("RJCT", "AC01"),
        ("RJCT", "AC06"),
        ("RJCT", "AM03"),
        ("RJCT", "AM12"),
        ("RJCT", "AM12"),
        ("RJCT", "AM11"),
        ("RJCT", "BE08"),
        ("RJCT", "DU04"),
        ("ACSC", None),
    ]
    assert await world.posted(euros) == 2500


async def test_a_refusal_stays_also_when_the_account_is_opened_later(world: World) -> None:
    number = await world.account()
    change = ChangeAccountState(number=number, state=AccountState.BLOCKED, reason="test", changed_by="op")
    await world.operator.change_account_state([change])
    transfer = an_incoming(number)
    await world.receive(transfer)
    await world.operator.change_account_state(
        [ChangeAccountState(number=number, state=AccountState.OPEN, reason="test", changed_by="op")]
    )

    verdicts = await world.receive(transfer)

    assert verdicts == [Verdict("RJCT", "AC06")]
    assert await world.posted(number) == 0


async def test_a_process_that_was_frozen_credits_nothing_that_was_refused_meanwhile(world: World) -> None:
    number, gate = await world.account(), asyncio.Event()
    world.ledger.gates = [gate]
    transfer = an_incoming(number)
    frozen = asyncio.create_task(world.receive(transfer))
    await world.ledger.called.wait()
    change = ChangeAccountState(number=number, state=AccountState.BLOCKED_CREDIT, reason="test", changed_by="op")
    await world.operator.change_account_state([change])
    world.clock.move(timedelta(seconds=30))
    await world.inbound.settle_pending()
    told = await world.inbound.answer_enquiry([transfer.end_to_end_id], agent_bic=NORDBANK)
    await world.operator.change_account_state(
        [ChangeAccountState(number=number, state=AccountState.OPEN, reason="test", changed_by="op")]
    )

    gate.set()
    heard = await frozen

    assert told == heard == [Verdict("RJCT", "AC06")]
    assert await world.posted(number) == 0
    assert await world.events_of(transfer) == []


async def test_without_screening_the_payment_is_pending_and_settled_by_the_enquiry_later(world: World) -> None:
    number = await world.account()
    world.ofac.failure = Unavailable("away")
    transfer = an_incoming(number)

    pending = await world.receive(transfer)
    world.ofac.failure = None
    world.clock.move(timedelta(seconds=1))
    settled = await world.inbound.answer_enquiry([transfer.end_to_end_id, "never-sent"], agent_bic=NORDBANK)

    assert pending == [Verdict("PDNG")]
    assert settled == [Verdict("ACSC"), Verdict("RJCT", "AG09")]
    assert await world.posted(number) == 2500


async def test_a_pending_payment_is_settled_by_the_duty_when_nobody_asks(world: World) -> None:
    number = await world.account()
    world.ofac.failure = Unavailable("away")
    transfer = an_incoming(number)
    await world.receive(transfer)
    world.ofac.failure = None
    world.clock.move(timedelta(seconds=1))

    await world.inbound.settle_pending()

    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.credited"]


async def test_another_bank_cannot_learn_of_a_payment_that_it_did_not_send(world: World) -> None:
    number = await world.account()
    transfer = an_incoming(number)
    await world.receive(transfer)

    verdicts = await world.inbound.answer_enquiry([transfer.end_to_end_id], agent_bic="LUTEFRPPXXX")

    assert verdicts == [Verdict("RJCT", "AG09")]
