"""The ofac service over its in-memory store or over PostgreSQL, with a confirm of a test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg
import msgspec

from payflow.contracts.confirm import PaymentState
from payflow.contracts.ofac import DecideReviewCase, GetReview, Ofac, ReviewView, Screened, ScreenPayment
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.rpc import in_process
from payflow.services.ofac.api import OfacApi
from payflow.services.ofac.index import loaded_lists
from payflow.services.ofac.store import PostgresStore
from tests.builders import FixedClock, new_id
from tests.conftest import ConnectAs
from tests.fakes_ofac import FakeOfacStore, FakePayments

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
            store=store,
            payments=self.payments,
            lists=loaded_lists(),
            proof_key=b"k" * 32,
            clock=self.clock,
            ids=UuidV7(),
            delivery_wait_s=0.05,
        )
        self.risk: Ofac = in_process(Ofac, self.api, caller="risk")
        self.bank: Ofac = in_process(Ofac, self.api, caller="partner_bank")
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


@asynccontextmanager
async def a_world(store: str, connect_as: ConnectAs, database_url: str, cipher: ColumnCipher) -> AsyncIterator[World]:
    """Over this store: `memory` or `postgres`."""
    if store == "memory":
        fake = FakeOfacStore()

        async def kept() -> list[Event]:
            return fake.events

        yield World(fake, kept)
        return
    database = await connect_as("ofac")
    owner = await asyncpg.connect(database_url)

    async def logged() -> list[Event]:
        rows = await owner.fetch("SELECT events FROM event_log.batch ORDER BY id")
        return [event for row in rows for event in msgspec.msgpack.decode(row["events"], type=list[Event])]

    yield World(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database)), logged)
    await owner.close()
