"""Which payments count for a customer's velocity, also at once: both stores of the risk service, by the contract."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from payflow.contracts.risk import Assessed, Risk
from payflow.platform.rpc import in_process
from payflow.services.risk.domain import Screening
from payflow.services.risk.rules.evaluate import assess_in_order
from tests.builders import new_id
from tests.builders_risk import RULES, World, an_outcome, in_memory, on_postgres
from tests.conftest import ConnectAs

DAY = timedelta(hours=24)
CLEAR = Screening(is_possible_sanctions_match=False, review_id=None, list_version="1", is_kyc_verified=True)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs) -> World:
    return in_memory() if request.param == "memory" else await on_postgres(connect_as)


async def test_of_a_hundred_payments_at_once_exactly_five_are_not_more_than_five(world: World) -> None:
    batches = [[world.a_payment() for _ in range(10)] for _ in range(10)]

    answers = await asyncio.gather(*(world.processes[index % 2].assess(batch) for index, batch in enumerate(batches)))

    levels = [answer.points for batch in answers for answer in batch if isinstance(answer, Assessed)]
    assert sorted(levels) == [0] * 5 + [25] * 95


async def test_payments_sent_several_times_at_once_have_one_answer_each_and_count_once(world: World) -> None:
    commands = [world.a_payment() for _ in range(12)]
    orders = [commands[start:] + commands[:start] for start in range(12)]

    answers = await asyncio.gather(*(world.processes[index % 2].assess(order) for index, order in enumerate(orders)))

    told: dict[UUID, set[int]] = {}
    for answer in (answer for batch in answers for answer in batch):
        assert isinstance(answer, Assessed), answer
        told.setdefault(answer.payment_id, set()).add(answer.points)
    assert all(len(points) == 1 for points in told.values())
    assert sorted(points for (points,) in told.values()) == [0] * 5 + [25] * 7


async def test_batches_with_the_same_customers_in_other_orders_all_finish(world: World) -> None:
    customers = [f"cust_{new_id().hex}" for _ in range(20)]
    batches = [[world.a_payment(customer_id=id) for id in customers[::step]] for step in (1, -1, 3, -3, 7, -7)]

    answers = await asyncio.gather(*(world.processes[index % 2].assess(batch) for index, batch in enumerate(batches)))

    assert all(isinstance(answer, Assessed) for batch in answers for answer in batch)


@pytest.mark.parametrize("state", ["rejected", "cancelled", "expired"])
async def test_a_refused_payment_no_longer_counts_however_often_that_is_told(world: World, state: str) -> None:
    assessed = await world.assess(*(world.a_payment() for _ in range(5)))

    for _ in range(2):
        await world.apply([an_outcome(one.payment_id, state) for one in assessed[:2]])

    assert await world.count() == 3


@pytest.mark.parametrize("state", ["completed", "under_review", "awaiting_otp", "held", "submitted"])
async def test_a_payment_that_goes_on_keeps_counting(world: World, state: str) -> None:
    (assessed,) = await world.assess(world.a_payment())

    await world.apply([an_outcome(assessed.payment_id, state), an_outcome(new_id(), "rejected")])

    assert await world.count() == 1


async def test_a_payment_counts_for_twenty_four_hours(world: World) -> None:
    await world.assess(world.a_payment())

    world.clock.move(DAY - timedelta(microseconds=1))
    within = await world.count()
    world.clock.move(timedelta(microseconds=1))
    after = await world.count()

    assert (within, after) == (1, 0)


async def test_other_customers_payments_do_not_count(world: World) -> None:
    others = [world.a_payment(customer_id=f"cust_{new_id().hex}") for _ in range(6)]

    assessed = await world.assess(*others, world.a_payment())

    assert {one.points for one in assessed} == {0}


async def test_wrong_expectations_store_nothing_and_are_told_the_true_counts(world: World) -> None:
    (first,) = await world.assess(world.a_payment())
    fresh = world.a_payment()
    assessments = assess_in_order(
        commands=[fresh], screenings=[CLEAR], earlier={world.customer_id: 4}, rules=RULES, now=world.clock.now()
    )

    differing = await world.store.save_if_counted(
        assessments, expected={world.customer_id: 4}, since=world.clock.now() - DAY, at_most=5
    )

    assert differing == {world.customer_id: 1}
    assert set(await world.store.find([first.payment_id, fresh.payment_id])) == {first.payment_id}


async def test_a_process_whose_expectation_is_wrong_counts_what_another_process_has_stored(world: World) -> None:
    for _ in range(2):
        await world.assess(world.a_payment())
    other = in_process(Risk, world.processes[1], caller="confirm")
    for _ in range(3):
        await other.assess([world.a_payment()])

    (sixth,) = await world.assess(world.a_payment())

    assert sixth.rules_hit == ["VELOCITY"]
