"""One suite for money that waits in suspense, over the in-memory store and over PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from prometheus_client import REGISTRY

from payflow.contracts.ofac import ReviewState
from payflow.contracts.partner_bank import EndReturn, InstructionNotFound
from payflow.kernel.errors import Unavailable
from payflow.services.partner_bank.domain import (
    Status,
    Verdict,
)
from payflow.services.partner_bank.usecases import suspense
from tests.builders_partner_bank import World
from tests.builders_partner_bank import stored_world as stored_world
from tests.builders_partner_bank import world as world
from tests.builders_suspense import asked, decide, frozen_before_crediting, held, instruction_of, look_after, rounds


async def test_money_stays_in_suspense_while_nobody_has_decided(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)

    for _ in range(3):
        await look_after(world)

    assert await world.posted(number) == 0
    assert (await instruction_of(world, transfer)).status is Status.HELD_IN_SUSPENSE
    assert await asked(world, transfer) == [Verdict("ACWP")]


async def test_cleared_money_reaches_its_creditor_once_and_is_announced(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    decide(world, transfer, ReviewState.CLEARED)

    for _ in range(3):
        await look_after(world)

    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.held_in_suspense", "incoming.credited"]
    assert [event.version for event in await world.events() if event.type.startswith("incoming.")][-2:] == [1, 2]
    assert await asked(world, transfer) == await world.receive(transfer) == [Verdict("ACSC")]


async def test_a_decision_counts_within_a_minute_however_long_it_took(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    for _ in range(20):
        await look_after(world)
    decide(world, transfer, ReviewState.CLEARED)

    await look_after(world)

    assert await world.posted(number) == 2500


async def test_while_account_is_away_the_money_waits_and_goes_on_by_itself(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    decide(world, transfer, ReviewState.CLEARED)
    world.ledger.failure = Unavailable("away")
    await look_after(world)
    world.ledger.failure = None

    await look_after(world)

    assert await world.posted(number) == 2500


async def test_several_processes_move_the_money_once_and_tell_of_it_once(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    decide(world, transfer, ReviewState.CLEARED)
    world.clock.move(timedelta(minutes=1))

    await asyncio.gather(*(world.inbound.look_after_suspense() for _ in range(8)))

    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.held_in_suspense", "incoming.credited"]


async def test_a_process_that_was_frozen_before_crediting_moves_and_tells_nothing_twice(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    frozen, gate = await frozen_before_crediting(world, transfer)
    await look_after(world)

    gate.set()
    await frozen

    assert await world.posted(number) == 2500
    assert await world.events_of(transfer) == ["incoming.held_in_suspense", "incoming.credited"]


async def test_only_a_return_that_is_under_way_can_be_ended(world: World) -> None:
    transfer = await held(world, await world.account())
    payment_id = (await instruction_of(world, transfer)).payment_id

    (answer,) = await world.gateway.end_return([EndReturn(payment_id=payment_id, reference="x", ended_by="olga")])

    assert isinstance(answer, InstructionNotFound)
    assert (await instruction_of(world, transfer)).status is Status.HELD_IN_SUSPENSE


async def test_an_undecided_payment_is_not_written(world: World) -> None:
    transfer = await held(world, await world.account())
    before = await instruction_of(world, transfer)

    for _ in range(3):
        await look_after(world)

    assert await instruction_of(world, transfer) == before


async def test_how_long_a_decision_was_not_carried_out_is_told(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.CLEARED)
    world.ofac.decided_at = world.clock.now()
    world.ledger.failure = Unavailable("away")
    for _ in range(10):
        await look_after(world)
    waits = REGISTRY.get_sample_value("payflow_oldest_decided_incoming_age_seconds")
    world.ledger.failure = None
    await look_after(world)

    assert waits == 600
    assert REGISTRY.get_sample_value("payflow_oldest_decided_incoming_age_seconds") == 0


async def test_every_held_payment_is_asked_about_in_one_round(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspense, "PER_PAGE", 2)
    number = await world.account()
    transfers = [await held(world, number) for _ in range(5)]
    for transfer in transfers:
        decide(world, transfer, ReviewState.CLEARED)

    await look_after(world)

    assert await world.posted(number) == 5 * 2500


async def test_what_a_process_that_died_has_left_is_taken_up_in_fifteen_seconds(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    for _ in range(10):
        await look_after(world)
    decide(world, transfer, ReviewState.CLEARED)
    world.ledger.called.clear()
    world.ledger.gates = [asyncio.Event()]
    world.clock.move(timedelta(minutes=1))
    dying = asyncio.create_task(world.inbound.look_after_suspense())
    await world.ledger.called.wait()
    dying.cancel()

    world.clock.move(timedelta(seconds=15))
    await world.inbound.look_after_suspense()

    assert await world.posted(number) == 2500


async def test_what_is_under_way_is_counted_with_the_age_of_the_oldest(world: World) -> None:
    def told(metric: str, state: Status) -> float:
        return REGISTRY.get_sample_value(metric, {"state": state.value}) or 0.0

    transfer = await held(world, await world.account())
    world.clock.move(timedelta(hours=1))
    await world.inbound.measure_open_incoming()
    count = told("payflow_incoming_open", Status.HELD_IN_SUSPENSE)
    held_for = told("payflow_oldest_incoming_age_seconds", Status.HELD_IN_SUSPENSE)

    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.answers = False
    await rounds(world)
    world.clock.move(timedelta(hours=1))
    await world.inbound.measure_open_incoming()

    assert count >= 1
    assert held_for >= 3600
    assert told("payflow_oldest_incoming_age_seconds", Status.RETURNING) >= 3600


async def test_money_that_the_release_before_parked_is_looked_after_too(stored_world: World, database_url: str) -> None:
    number = await stored_world.account()
    transfer = await held(stored_world, number)
    owner = await asyncpg.connect(database_url)
    await owner.execute("UPDATE partner_bank.instruction SET next_attempt_at = NULL WHERE status = 'HELD_IN_SUSPENSE'")
    await owner.close()
    decide(stored_world, transfer, ReviewState.CLEARED)

    await look_after(stored_world)

    assert await stored_world.posted(number) == 2500
