"""Screening by the ofac service, over its in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from payflow.contracts.ofac import (
    DescribeLists,
    ListReviews,
    ListsDescribed,
    MatchView,
    NameScreened,
    ReviewState,
    Screened,
    ScreeningOutcome,
    ScreenName,
    ScreenPayment,
)
from payflow.contracts.risk import NothingToScreen
from payflow.platform.crypto import ColumnCipher
from payflow.services.ofac.index import loaded_lists
from tests.builders import new_id
from tests.builders_ofac import LISTED, World, a_world
from tests.conftest import ConnectAs

CLEAR, POSSIBLE_MATCH = ScreeningOutcome.CLEAR, ScreeningOutcome.POSSIBLE_MATCH


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: ConnectAs, database_url: str, cipher: ColumnCipher
) -> AsyncIterator[World]:
    async with a_world(request.param, connect_as, database_url, cipher) as world:
        yield world


async def test_names_that_are_on_no_list_are_clear(world: World) -> None:
    screened = await world.screen("Ada Byron", "Grace Hopper", "Northwind Logistics GmbH")

    assert screened == Screened(outcome=CLEAR, review_id=None, list_version=loaded_lists().index.version)


async def test_the_listed_demo_customer_opens_a_case_that_shows_why(world: World) -> None:
    payment_id = new_id()

    screened = await world.screen("Ada Byron", LISTED, payment_id=payment_id)

    assert screened.outcome is POSSIBLE_MATCH
    assert screened.review_id is not None
    case = await world.review(screened.review_id)
    assert (case.payment_id, case.customer_id, case.state) == (payment_id, "cust_004", ReviewState.OPEN)
    assert (case.decided_at, case.decided_by, case.comment) == (None, None, None)
    assert case.matches == [
        MatchView(
            screened_name=LISTED,
            list_name="OFAC-SDN",
            entry_id="6707",
            matched_name="CARO QUINTERO, Rafael",
            score=100.0,
            programs=["SDNTK"],
        )
    ]


async def test_a_payment_with_a_case_is_never_clear_again_even_if_its_names_are(world: World) -> None:
    """Names and lists change between two tries; the case that was opened is still to be decided."""
    case = await world.case()

    repeated = await world.screen("Ada Byron", payment_id=case.payment_id)
    other = await world.screen("Ada Byron")

    assert (repeated.outcome, repeated.review_id) == (POSSIBLE_MATCH, case.review_id)
    assert (other.outcome, other.review_id) == (CLEAR, None)
    assert len(await world.events_of(case.payment_id)) == 1


async def test_a_case_is_told_to_the_world_once_and_without_names(world: World) -> None:
    case = await world.case()
    await world.screen(LISTED, payment_id=case.payment_id)

    (event,) = await world.events_of(case.payment_id)

    assert (event.type, event.source, event.subject) == ("review.opened", "ofac", str(case.review_id))
    assert event.version == 1
    assert event.data == {
        "review_id": str(case.review_id),
        "payment_id": str(case.payment_id),
        "customer_id": "cust_004",
    }


async def test_a_payment_screened_twenty_times_at_once_has_one_case(world: World) -> None:
    command = ScreenPayment(payment_id=new_id(), customer_id="cust_004", names=[LISTED])

    answers = await asyncio.gather(*(world.api.screen([command, command]) for _ in range(20)))

    review_ids = {answer.review_id for pair in answers for answer in pair if isinstance(answer, Screened)}
    assert len(review_ids) == 1
    assert len(await world.events_of(command.payment_id)) == 1


async def test_a_decided_case_is_still_the_answer_for_its_payment(world: World) -> None:
    case = await world.case()
    await world.decide(case, is_cleared=True)

    screened = await world.screen(LISTED, payment_id=case.payment_id)

    assert (screened.outcome, screened.review_id) == (POSSIBLE_MATCH, case.review_id)


async def test_one_suspicious_payment_does_not_touch_its_neighbours(world: World) -> None:
    commands = [
        ScreenPayment(payment_id=new_id(), customer_id="cust_001", names=["Ada Byron"]),
        ScreenPayment(payment_id=new_id(), customer_id="cust_004", names=[LISTED, "Ada Byron"]),
        ScreenPayment(payment_id=new_id(), customer_id="cust_001", names=[]),
        ScreenPayment(payment_id=new_id(), customer_id="cust_002", names=["Grace Hopper"]),
    ]

    first, second, third, fourth = await world.risk.screen(commands)

    assert isinstance(third, NothingToScreen)
    assert [answer.outcome for answer in (first, second, fourth) if isinstance(answer, Screened)] == [
        CLEAR,
        POSSIBLE_MATCH,
        CLEAR,
    ]


async def test_a_name_that_cannot_be_compared_is_left_to_a_person(world: World) -> None:
    screened = await world.screen("Ada Byron", "張偉")

    assert screened.outcome is POSSIBLE_MATCH
    assert screened.review_id is not None
    (match,) = (await world.review(screened.review_id)).matches
    assert (match.screened_name, match.list_name, match.entry_id, match.matched_name) == ("張偉", "", "", "")


async def test_an_operator_looks_names_up_without_opening_a_case(world: World) -> None:
    before = await world.officer.list_reviews([ListReviews()])

    found, clear = await world.officer.screen_names([ScreenName(name=LISTED), ScreenName(name="Ada Byron")])

    assert isinstance(found, NameScreened)
    assert (found.outcome, found.matches[0].matched_name) == (POSSIBLE_MATCH, "CARO QUINTERO, Rafael")
    assert isinstance(clear, NameScreened)
    assert (clear.outcome, clear.matches) == (CLEAR, [])
    assert await world.officer.list_reviews([ListReviews()]) == before


async def test_the_lists_in_use_are_described(world: World) -> None:
    (described,) = await world.officer.describe_lists([DescribeLists()])

    assert described == ListsDescribed(
        list_version=loaded_lists().index.version,
        list_date="OFAC-SDN 2024-05-03, OFAC-CONS 2025-12-19",
        entries=14_965 + 442,
        names=len(loaded_lists().index.names),
        loaded_at=world.clock.now(),
    )
