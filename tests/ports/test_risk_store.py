"""Assessments of the risk service, over its in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from payflow.contracts.risk import (
    Assessed,
    AssessmentDetail,
    AssessmentMismatch,
    AssessmentNotFound,
    GetAssessment,
    NothingToScreen,
    RiskLevel,
)
from payflow.kernel.errors import Rejection, Unavailable, UnknownOutcome
from tests.builders import NOON, new_id
from tests.builders_risk import RULES, World, in_memory, on_postgres
from tests.conftest import ConnectAs
from tests.fakes_risk import LIST_VERSION


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs) -> World:
    return in_memory() if request.param == "memory" else await on_postgres(connect_as)


async def test_a_payment_is_assessed_with_its_facts_and_told_so_again(world: World) -> None:
    world.customers.unverified.add(world.customer_id)
    world.sanctions.listed.add("Osama Nobody")
    command = world.a_payment(1_000_001, names=["Ada Byron", "Osama Nobody"])

    (assessed,) = await world.assess(command)
    (detail,) = await world.operator.get_assessments([GetAssessment(payment_id=command.payment_id)])

    assert (assessed.points, assessed.sanctions_points, assessed.level) == (190, 100, RiskLevel.HIGH)
    assert assessed.needs_otp
    assert assessed.is_possible_sanctions_match
    assert assessed.review_id is not None
    assert detail == AssessmentDetail(
        assessment=assessed,
        customer_id=world.customer_id,
        amount_minor=1_000_001,
        currency="USD",
        payments_last_24h=1,
        is_kyc_verified=False,
        sanctions_list_version=LIST_VERSION,
    )


async def test_a_clear_small_payment_hits_no_rule(world: World) -> None:
    (assessed,) = await world.assess(world.a_payment())

    assert (assessed.level, assessed.points, assessed.rules_hit, assessed.review_id) == (RiskLevel.LOW, 0, [], None)
    assert not assessed.needs_otp


async def test_a_repeat_gets_the_stored_answer_although_the_facts_have_changed_and_nobody_answers(
    world: World,
) -> None:
    command = world.a_payment()
    (first,) = await world.assess(command)
    world.customers.unverified.add(world.customer_id)
    world.sanctions.down = Unavailable("ofac does not answer at present.")
    world.clock.move(timedelta(minutes=5))

    second = await world.assess(command, command)

    assert second == [first, first]


async def test_a_payment_twice_in_one_batch_is_assessed_and_counted_once(world: World) -> None:
    command = world.a_payment()

    answers = await world.assess(command, command, command)

    assert answers[0] == answers[1] == answers[2]
    assert await world.count() == 1


@pytest.mark.parametrize("change", ["amount", "creditor", "currency", "customer"])
async def test_an_assessment_is_for_exactly_its_amount_and_parties(world: World, change: str) -> None:
    command = world.a_payment()
    await world.assess(command)
    other = {
        "amount": world.a_payment(101, payment_id=command.payment_id),
        "creditor": world.a_payment(payment_id=command.payment_id, creditor="ACC003"),
        "currency": world.a_payment(payment_id=command.payment_id, currency="EUR"),
        "customer": world.a_payment(payment_id=command.payment_id, customer_id="somebody_else"),
    }[change]

    (answer,) = await world.confirm.assess([other])

    assert isinstance(answer, AssessmentMismatch)


@pytest.mark.parametrize(
    "error",
    [
        Unavailable("It does not answer at present."),
        UnknownOutcome("No answer came."),
        Rejection("This service may not call this operation."),
    ],
)
@pytest.mark.parametrize("who", ["ofac", "kyc"])
async def test_a_payment_that_a_check_did_not_decide_is_unavailable_alone_and_stored_nowhere(
    world: World, who: str, error: Unavailable | UnknownOutcome | Rejection
) -> None:
    undecided = world.a_payment(customer_id=f"cust_{new_id().hex}")
    if who == "ofac":
        world.sanctions.failing[undecided.payment_id] = error
    else:
        world.customers.failing[undecided.customer_id] = error

    answers = await world.confirm.assess([undecided, world.a_payment()])
    (stored,) = await world.operator.get_assessments([GetAssessment(payment_id=undecided.payment_id)])

    assert [type(answer) for answer in answers] == [Unavailable, Assessed]
    assert isinstance(stored, AssessmentNotFound)


async def test_an_undecided_payment_can_be_asked_for_again_and_was_not_counted(world: World) -> None:
    command = world.a_payment()
    world.sanctions.down = Unavailable()
    await world.confirm.assess([command])
    world.sanctions.down = None

    (assessed,) = await world.assess(command)

    assert assessed.level is RiskLevel.LOW
    assert await world.count() == 1


@pytest.mark.parametrize("names", [[], ["", "  "]])
async def test_a_payment_without_names_is_refused_rather_than_found_clear(world: World, names: list[str]) -> None:
    (answer,) = await world.confirm.assess([world.a_payment(names=names)])

    assert isinstance(answer, NothingToScreen)
    assert world.sanctions.asked == []


async def test_the_newest_rule_set_is_in_force_and_a_version_keeps_its_contents(world: World) -> None:
    newer = msgspec.structs.replace(RULES, version=2, high_at=40)
    changed = msgspec.structs.replace(RULES, version=2, high_at=45)

    in_force = [await world.store.activate(rules, now=NOON) for rules in (RULES, newer, RULES, changed)]

    assert in_force == [RULES, newer, newer, newer]


async def test_a_payment_is_assessed_again_with_todays_lists_and_counted_once(world: World) -> None:
    command = world.a_payment(names=["Ada Byron", "Osama Nobody"])
    (first,) = await world.assess(command)
    world.sanctions.listed.add("Osama Nobody")
    world.customers.unverified.add(world.customer_id)

    (again,) = await world.confirm.reassess([command])
    (stored,) = await world.assess(command)

    assert isinstance(again, Assessed)
    assert (again.is_possible_sanctions_match, again.points) == (True, 140)
    assert stored == first
    assert await world.count() == 1


async def test_only_a_payment_that_was_assessed_for_these_contents_is_assessed_again(world: World) -> None:
    command = world.a_payment()
    await world.assess(command)

    other, unknown = await world.confirm.reassess(
        [world.a_payment(200, payment_id=command.payment_id), world.a_payment()]
    )

    assert isinstance(other, AssessmentMismatch)
    assert isinstance(unknown, AssessmentNotFound)
