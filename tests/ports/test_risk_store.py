"""One suite for the risk service over its in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from payflow.contracts.kyc import Kyc
from payflow.contracts.ofac import Ofac
from payflow.contracts.risk import (
    Assessed,
    AssessmentDetail,
    AssessmentMismatch,
    AssessmentNotFound,
    AssessPayment,
    GetAssessment,
    NothingToScreen,
    Risk,
    RiskLevel,
)
from payflow.contracts.topics import PaymentChanged
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Rejection, Unavailable, UnknownOutcome
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.risk import usecases
from payflow.services.risk.api import RiskApi
from payflow.services.risk.domain import Screening
from payflow.services.risk.rules import default_rules
from payflow.services.risk.rules.evaluate import assess_in_order
from payflow.services.risk.store import PostgresCorrections, PostgresStore
from tests.builders import NOON, FixedClock, new_id
from tests.fakes_risk import LIST_VERSION, FakeCustomers, FakeRiskStore, FakeSanctions

ConnectAs = Callable[[str], Awaitable[Database]]
RULES = default_rules()
DAY = timedelta(hours=24)
CLEAR = Screening(is_possible_sanctions_match=False, review_id=None, list_version="1", is_kyc_verified=True)


class World:
    """The risk service with a customer of a test's own; `stores` stand for processes that share one database."""

    def __init__(self, stores: Sequence[Any], apply: Callable[[list[Event]], Awaitable[None]]) -> None:
        self.clock = FixedClock()
        self.sanctions = FakeSanctions()
        self.customers = FakeCustomers()
        self.store = stores[0]
        self.processes = [
            RiskApi(
                store=store,
                sanctions=in_process(Ofac, _Only(screen=self.sanctions.screen), caller="risk"),
                customers=in_process(Kyc, _Only(check=self.customers.check), caller="risk"),
                rules=RULES,
                clock=self.clock,
            )
            for store in stores
        ]
        self.confirm: Risk = in_process(Risk, self.processes[0], caller="confirm")
        self.operator: Risk = in_process(Risk, self.processes[0], caller="gateway")
        self.apply = apply
        self.customer_id = f"cust_{new_id().hex}"

    def a_payment(
        self,
        amount_minor: int = 100,
        *,
        payment_id: UUID | None = None,
        customer_id: str | None = None,
        currency: str = "USD",
        creditor: str = "ACC002",
        names: list[str] | None = None,
    ) -> AssessPayment:
        return AssessPayment(
            payment_id=payment_id or new_id(),
            customer_id=customer_id or self.customer_id,
            amount_minor=amount_minor,
            currency=currency,
            debtor="ACC001",
            creditor=creditor,
            party_names=["Ada Byron", "Grace Hopper"] if names is None else names,
        )

    async def assess(self, *commands: AssessPayment) -> list[Assessed]:
        answers = await self.confirm.assess(list(commands))
        assessed = [answer for answer in answers if isinstance(answer, Assessed)]
        assert len(assessed) == len(commands), answers
        return assessed

    async def count(self) -> int:
        """How many payments of the customer count so far, this question's own payment left out."""
        (probe,) = await self.assess(self.a_payment())
        (detail,) = await self.operator.get_assessments([GetAssessment(payment_id=probe.payment_id)])
        assert isinstance(detail, AssessmentDetail)
        await self.apply([an_outcome(probe.payment_id, "rejected")])
        return detail.payments_last_24h - 1


class _Only:
    """Some operations of a service; a call of another one fails."""

    def __init__(self, **operations: Any) -> None:
        self.__dict__.update(operations)

    def __getattr__(self, name: str) -> Any:
        async def missing(items: list[Any]) -> list[Any]:
            raise AssertionError(f"risk called {name}")

        return missing


def an_outcome(payment_id: UUID, state: str) -> Event:
    data = PaymentChanged(
        payment_id=payment_id,
        transaction_id="txn",
        customer_id="cust",
        state=state.upper(),
        path=[state.upper()],
        amount_minor=100,
        currency="USD",
        debtor_account="…C001",
        creditor_account="…C002",
        at=NOON,
    )
    return Event(
        id=new_id(),
        source="confirm",
        type=f"payment.{state}",
        subject=str(payment_id),
        version=2,
        time=NOON,
        data=msgspec.to_builtins(data),
    )


def _in_memory() -> World:
    store = FakeRiskStore()

    async def apply(events: list[Event]) -> None:
        await usecases.take_out_refused(events=events, corrections=store)

    return World([store, store], apply)


async def _on_postgres(connect_as: ConnectAs) -> World:
    databases = [await connect_as("risk"), await connect_as("risk")]

    async def apply(events: list[Event]) -> None:
        async with databases[0].transaction() as connection:
            await usecases.take_out_refused(events=events, corrections=PostgresCorrections(connection))

    return World([PostgresStore(database=database) for database in databases], apply)


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs) -> World:
    return _in_memory() if request.param == "memory" else await _on_postgres(connect_as)


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


async def test_the_newest_rule_set_is_in_force_and_a_version_keeps_its_contents(world: World) -> None:
    newer = msgspec.structs.replace(RULES, version=2, high_at=40)
    changed = msgspec.structs.replace(RULES, version=2, high_at=45)

    in_force = [await world.store.activate(rules, now=NOON) for rules in (RULES, newer, RULES, changed)]

    assert in_force == [RULES, newer, newer, newer]


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
