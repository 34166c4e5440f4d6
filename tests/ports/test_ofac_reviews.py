"""Cases of the ofac service, listed, decided and told; over both stores, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from payflow.contracts.confirm import DecideReview, PaymentState
from payflow.contracts.ofac import (
    DecideReviewCase,
    GetDecision,
    GetReview,
    ListReviews,
    PaymentDecision,
    ReviewDecided,
    ReviewNotFound,
    ReviewOwnPayment,
    ReviewPage,
    ReviewState,
    ReviewView,
)
from payflow.platform.crypto import ColumnCipher
from tests.builders import new_id
from tests.builders_ofac import World, a_world, decision
from tests.conftest import ConnectAs


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: ConnectAs, database_url: str, cipher: ColumnCipher
) -> AsyncIterator[World]:
    async with a_world(request.param, connect_as, database_url, cipher) as world:
        yield world


async def test_cases_are_listed_newest_first_a_page_at_a_time(world: World) -> None:
    opened = [(await world.case()).review_id for _ in range(5)]

    (first,) = await world.officer.list_reviews([ListReviews(limit=2)])
    assert isinstance(first, ReviewPage)
    (second,) = await world.officer.list_reviews([ListReviews(limit=2, cursor=first.next_cursor)])
    assert isinstance(second, ReviewPage)

    assert [review.review_id for review in first.reviews + second.reviews] == opened[:0:-1]
    assert first.next_cursor == opened[3]


async def test_how_the_cases_of_payments_stand_is_told_by_payment(world: World) -> None:
    still_open, cleared, blocked = [await world.case() for _ in range(3)]
    await world.decide(cleared, is_cleared=True)
    await world.decide(blocked, is_cleared=False)

    *known, unknown = await world.bank.get_decisions(
        [GetDecision(payment_id=id) for id in (*(one.payment_id for one in (still_open, cleared, blocked)), new_id())]
    )

    assert [one.state for one in known if isinstance(one, PaymentDecision)] == [
        ReviewState.OPEN,
        ReviewState.CLEARED,
        ReviewState.BLOCKED,
    ]
    assert isinstance(unknown, ReviewNotFound)


async def test_cases_are_listed_by_state(world: World) -> None:
    cases = [await world.case() for _ in range(3)]
    await world.decide(cases[1], is_cleared=False)

    (still_open,) = await world.officer.list_reviews([ListReviews(state=ReviewState.OPEN, limit=2)])
    (blocked,) = await world.officer.list_reviews([ListReviews(state=ReviewState.BLOCKED, limit=1)])

    assert isinstance(still_open, ReviewPage)
    assert isinstance(blocked, ReviewPage)
    assert [review.review_id for review in still_open.reviews] == [cases[2].review_id, cases[0].review_id]
    assert [review.review_id for review in blocked.reviews] == [cases[1].review_id]


async def test_open_cases_are_counted_and_the_oldest_is_told(world: World) -> None:
    async def measured() -> tuple[float, float]:
        await world.api.measure_open_reviews()
        count = REGISTRY.get_sample_value("payflow_reviews_open")
        age_s = REGISTRY.get_sample_value("payflow_oldest_review_age_seconds")
        assert count is not None
        assert age_s is not None
        return count, age_s

    before, _ = await measured()
    cases = [await world.case() for _ in range(3)]
    await world.decide(cases[0], is_cleared=True)
    world.clock.move(timedelta(hours=1))

    after, age_s = await measured()

    assert after - before == 2
    assert age_s >= 3600


async def test_an_unknown_case_is_not_found(world: World) -> None:
    unknown = new_id()

    (read,) = await world.officer.get_reviews([GetReview(review_id=unknown)])
    (decided,) = await world.officer.decide(
        [DecideReviewCase(review_id=unknown, is_cleared=True, decided_by="officer", comment="")]
    )

    assert [type(read), type(decided)] == [ReviewNotFound, ReviewNotFound]


async def test_an_officer_clears_a_case_and_the_payment_goes_on(world: World) -> None:
    case = await world.case()

    answer = await world.decide(case, is_cleared=True)

    assert isinstance(answer, ReviewView)
    assert (answer.state, answer.decided_by, answer.decided_at) == (ReviewState.CLEARED, "officer", world.clock.now())
    assert answer.comment == "Another date of birth."
    assert answer == await world.review(case.review_id)
    # Another test's decision may have waited, too.
    heard = [told for told in world.payments.heard if told.payment_id == case.payment_id]
    assert heard == [DecideReview(payment_id=case.payment_id, is_cleared=True, decided_by="officer")]
    assert world.payments.states[case.payment_id] is PaymentState.APPROVED


async def test_a_decision_is_told_to_the_world_with_the_officer_and_without_the_comment(world: World) -> None:
    case = await world.case()

    await world.decide(case, is_cleared=False)

    _, event = await world.events_of(case.payment_id)
    assert (event.type, event.version) == ("review.decided", 2)
    assert event.data == {
        "review_id": str(case.review_id),
        "payment_id": str(case.payment_id),
        "customer_id": "cust_004",
        "is_cleared": False,
        "decided_by": "officer",
    }


async def test_nobody_decides_about_a_payment_of_their_own(world: World) -> None:
    case = await world.case()

    (answer,) = await world.officer.decide([decision(case, is_cleared=True, officer_customer_id="cust_004")])

    assert isinstance(answer, ReviewOwnPayment)
    assert await world.review(case.review_id) == case
    assert world.payments.heard == []


async def test_an_officer_who_is_another_customer_decides(world: World) -> None:
    case = await world.case()

    (answer,) = await world.officer.decide([decision(case, is_cleared=True, officer_customer_id="cust_001")])

    assert isinstance(answer, ReviewView)


async def test_the_same_decision_again_gets_the_first_answer(world: World) -> None:
    case = await world.case()
    first = await world.decide(case, is_cleared=True, by="first")
    world.clock.move(timedelta(minutes=1))

    again = await world.decide(case, is_cleared=True, by="second")

    assert again == first
    assert len(world.payments.heard) == 1
    assert len(await world.events_of(case.payment_id)) == 2


async def test_another_decision_about_a_decided_case_is_refused(world: World) -> None:
    case = await world.case()
    await world.decide(case, is_cleared=False)

    answer = await world.decide(case, is_cleared=True)

    assert isinstance(answer, ReviewDecided)
    assert (await world.review(case.review_id)).state is ReviewState.BLOCKED
    assert [command.is_cleared for command in world.payments.heard] == [False]


async def test_of_two_officers_who_disagree_at_once_one_wins(world: World) -> None:
    for _ in range(5):
        case = await world.case()

        answers = await asyncio.gather(
            *(world.api.decide([decision(case, is_cleared=cleared)]) for cleared in (True, False))
        )

        won = [answer for (answer,) in answers if isinstance(answer, ReviewView)]
        assert len(won) == 1
        assert sum(isinstance(answer, ReviewDecided) for (answer,) in answers) == 1
        assert await world.review(case.review_id) == won[0]
        assert {c.is_cleared for c in world.payments.heard if c.payment_id == case.payment_id} == {
            won[0].state is ReviewState.CLEARED
        }


async def test_two_officers_who_agree_at_once_get_one_decision(world: World) -> None:
    case = await world.case()

    answers = await asyncio.gather(
        *(world.api.decide([decision(case, is_cleared=True, by=officer)]) for officer in ("first", "second"))
    )

    ((one,), (other,)) = answers
    assert isinstance(one, ReviewView)
    assert one == other
    assert len(await world.events_of(case.payment_id)) == 2


async def test_two_decisions_about_one_case_in_one_batch_are_taken_in_order(world: World) -> None:
    case = await world.case()

    first, second = await world.officer.decide([decision(case, is_cleared=True), decision(case, is_cleared=False)])

    assert isinstance(first, ReviewView)
    assert isinstance(second, ReviewDecided)


async def test_a_decision_stands_while_confirm_is_away_and_is_told_when_it_is_back(world: World) -> None:
    case = await world.case()
    world.payments.is_down = True

    answer = await world.decide(case, is_cleared=True)
    world.clock.move(timedelta(seconds=1))
    await world.api.deliver_due()
    world.payments.is_down = False
    await world.api.deliver_due()
    heard_too_early = list(world.payments.heard)
    world.clock.move(timedelta(seconds=2))
    await world.api.deliver_due()
    world.clock.move(timedelta(hours=1))
    await world.api.deliver_due()

    assert isinstance(answer, ReviewView)
    assert answer.state is ReviewState.CLEARED
    assert heard_too_early == []
    assert world.payments.heard == [DecideReview(payment_id=case.payment_id, is_cleared=True, decided_by="officer")]
    assert world.payments.states[case.payment_id] is PaymentState.APPROVED


async def test_an_officer_does_not_wait_for_a_silent_confirm(world: World) -> None:
    case = await world.case()
    world.payments.is_silent = True

    async with asyncio.timeout(2):
        answer = await world.decide(case, is_cleared=False)
    world.payments.is_silent = False
    world.clock.move(timedelta(seconds=5))
    await world.api.deliver_due()

    assert isinstance(answer, ReviewView)
    assert world.payments.states[case.payment_id] is PaymentState.REJECTED


async def test_a_decision_is_told_again_to_a_payment_that_was_not_under_review_yet(world: World) -> None:
    case = await world.case(state=PaymentState.RECEIVED)

    await world.decide(case, is_cleared=True)
    world.payments.states[case.payment_id] = PaymentState.UNDER_REVIEW
    world.clock.move(timedelta(seconds=1))
    await world.api.deliver_due()

    assert world.payments.states[case.payment_id] is PaymentState.APPROVED


@pytest.mark.parametrize("state", [None, PaymentState.CANCELLED, PaymentState.EXPIRED, PaymentState.COMPLETED])
async def test_a_payment_that_is_past_its_review_hears_of_the_decision_once(
    world: World, state: PaymentState | None
) -> None:
    case = await world.case(state=state)

    await world.decide(case, is_cleared=True)
    world.clock.move(timedelta(hours=1))
    await world.api.deliver_due()

    assert len(world.payments.heard) == 1
