"""One suite for the ofac service over its in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import asyncpg
import msgspec
import pytest
from prometheus_client import REGISTRY

from payflow.contracts.confirm import DecideReview, PaymentState
from payflow.contracts.ofac import (
    DecideReviewCase,
    DescribeLists,
    GetReview,
    ListReviews,
    ListsDescribed,
    MatchView,
    NameScreened,
    Ofac,
    ReviewDecided,
    ReviewNotFound,
    ReviewOwnPayment,
    ReviewPage,
    ReviewState,
    ReviewView,
    Screened,
    ScreeningOutcome,
    ScreenName,
    ScreenPayment,
)
from payflow.contracts.risk import NothingToScreen
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.ofac.api import OfacApi
from payflow.services.ofac.index import loaded_lists
from payflow.services.ofac.store import PostgresStore
from tests.builders import FixedClock, new_id
from tests.fakes_ofac import FakeOfacStore, FakePayments

CLEAR, POSSIBLE_MATCH = ScreeningOutcome.CLEAR, ScreeningOutcome.POSSIBLE_MATCH
# The demo customer `listed` has this name; the list has it as "CARO QUINTERO, Rafael".
LISTED = "Rafael Caro Quintero"

Events = Callable[[], Awaitable[list[Event]]]


class World:
    """The ofac service with a confirm of a test's own."""

    def __init__(self, store: object, read_events: Events) -> None:
        self.clock = FixedClock()
        self.payments = FakePayments()
        self._read_events = read_events
        self.api = OfacApi(
            store=store,  # type: ignore[arg-type]
            payments=self.payments,
            lists=loaded_lists(),
            proof_key=b"k" * 32,
            clock=self.clock,
            ids=UuidV7(),
            delivery_wait_s=0.05,
        )
        self.risk: Ofac = in_process(Ofac, self.api, caller="risk")
        self.officer: Ofac = in_process(Ofac, self.api, caller="gateway")

    async def screen(self, *names: str, payment_id: UUID | None = None, customer_id: str = "cust_004") -> Screened:
        command = ScreenPayment(payment_id=payment_id or new_id(), customer_id=customer_id, names=list(names))
        (answer,) = await self.risk.screen([command])
        assert isinstance(answer, Screened), answer
        return answer

    async def case(self, *, state: PaymentState | None = PaymentState.UNDER_REVIEW) -> ReviewView:
        """A fresh case; its payment is in this state at confirm (None: confirm does not know it)."""
        payment_id = new_id()
        # Ids rise from millisecond to millisecond, not within one.
        await asyncio.sleep(0.002)
        if state is not None:
            self.payments.states[payment_id] = state
        screened = await self.screen(LISTED, payment_id=payment_id)
        assert screened.review_id is not None
        return await self.review(screened.review_id)

    async def review(self, review_id: UUID) -> ReviewView:
        (view,) = await self.officer.get_reviews([GetReview(review_id=review_id)])
        assert isinstance(view, ReviewView), view
        return view

    async def decide(self, case: ReviewView, *, is_cleared: bool, by: str = "officer") -> object:
        (answer,) = await self.officer.decide([decision(case, is_cleared=is_cleared, by=by)])
        return answer

    async def events_of(self, payment_id: UUID) -> list[Event]:
        """Every event about cases of this payment, whichever case it names."""
        return [event for event in await self._read_events() if event.data.get("payment_id") == str(payment_id)]


def decision(
    case: ReviewView, *, is_cleared: bool, by: str = "officer", officer_customer_id: str | None = None
) -> DecideReviewCase:
    return DecideReviewCase(
        review_id=case.review_id,
        is_cleared=is_cleared,
        decided_by=by,
        comment="Another date of birth.",
        officer_customer_id=officer_customer_id,
    )


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest,
    connect_as: Callable[[str], Awaitable[Database]],
    database_url: str,
    cipher: ColumnCipher,
) -> AsyncIterator[World]:
    if request.param == "memory":
        store = FakeOfacStore()

        async def kept() -> list[Event]:
            return store.events

        yield World(store, kept)
        return
    database = await connect_as("ofac")
    owner = await asyncpg.connect(database_url)

    async def logged() -> list[Event]:
        rows = await owner.fetch("SELECT events FROM event_log.batch ORDER BY id")
        return [event for row in rows for event in msgspec.msgpack.decode(row["events"], type=list[Event])]

    yield World(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database)), logged)
    await owner.close()


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


async def test_cases_are_listed_newest_first_a_page_at_a_time(world: World) -> None:
    opened = [(await world.case()).review_id for _ in range(5)]

    (first,) = await world.officer.list_reviews([ListReviews(limit=2)])
    assert isinstance(first, ReviewPage)
    (second,) = await world.officer.list_reviews([ListReviews(limit=2, cursor=first.next_cursor)])
    assert isinstance(second, ReviewPage)

    assert [review.review_id for review in first.reviews + second.reviews] == opened[:0:-1]
    assert first.next_cursor == opened[3]


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


async def test_the_lists_in_use_are_described(world: World) -> None:
    (described,) = await world.officer.describe_lists([DescribeLists()])

    assert described == ListsDescribed(
        list_version=loaded_lists().index.version,
        list_date="OFAC-SDN 2024-05-03, OFAC-CONS 2025-12-19",
        entries=14_965 + 442,
        names=len(loaded_lists().index.names),
        loaded_at=world.clock.now(),
    )
