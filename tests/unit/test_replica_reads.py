"""Which reads a replica may answer: by what is known of how far it is, and by what the query must see."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from payflow.contracts.account import AccountNotFound
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.platform.replica import CLOCKS_DIFFER, LOOK_EVERY_S, Reads, ReplicaWatch
from tests.builders import NOON, FixedClock

LAG_MAX_S = 10.0


class Server:
    """A database that tells its place in the log."""

    def __init__(self, place: int | None) -> None:
        self.place = place
        self.failure: PayflowError | None = None
        self.renewals = 0
        self.is_answering = asyncio.Event()
        self.is_answering.set()

    async def fetchval(self, _query: str, /) -> int | None:
        await self.is_answering.wait()
        if self.failure is not None:
            raise self.failure
        return self.place

    async def renew(self) -> None:
        self.renewals += 1


class Query(msgspec.Struct, frozen=True):
    fresh_as_of: datetime | None
    name: str = ""


class Scene:
    """A primary, a replica, a clock, and who was asked what."""

    def __init__(self) -> None:
        self.clock = FixedClock()
        self.primary, self.replica = Server(100), Server(100)
        self.watch = ReplicaWatch(
            primary=self.primary,
            replica=self.replica,
            clock=self.clock,
            lag_max_s=LAG_MAX_S,
        )
        self.reads = Reads("primary", replica="replica", watch=self.watch)
        self.unknown_to_replica: set[str] = set()
        self.failure: PayflowError | TimeoutError | None = None

    async def look(self, *, after_s: float = 0) -> None:
        self.clock.move(timedelta(seconds=after_s))
        await self.watch.look()

    async def ask(self, *queries: Query) -> list[str | PayflowError]:
        return await self.reads.answer(queries, self._work)

    async def _work(self, queries: Sequence[Query], store: str) -> list[str | PayflowError]:
        if store == "replica" and self.failure is not None:
            raise self.failure
        return [
            AccountNotFound() if store == "replica" and query.name in self.unknown_to_replica else store
            for query in queries
        ]

    @property
    def long_ago(self) -> datetime:
        return self.clock.now() - timedelta(days=1)


async def test_before_it_was_looked_at_a_replica_answers_nothing() -> None:
    scene = Scene()

    assert await scene.ask(Query(scene.long_ago)) == ["primary"]


async def test_a_replica_that_has_all_answers_what_may_be_old_and_nothing_else() -> None:
    scene = Scene()
    await scene.look()

    assert await scene.ask(Query(scene.long_ago), Query(None), Query(scene.long_ago)) == [
        "replica",
        "primary",
        "replica",
    ]


async def test_a_change_is_seen_at_once_and_the_replica_answers_again_when_it_has_come_so_far() -> None:
    scene = Scene()
    await scene.look()
    changed_at = scene.clock.now()
    scene.primary.place = 200

    await scene.look(after_s=0.25)
    while_behind = await scene.ask(Query(changed_at))
    scene.replica.place = 200
    await scene.look(after_s=0.25)
    just_there = await scene.ask(Query(changed_at))
    await scene.look(after_s=CLOCKS_DIFFER.total_seconds() + 0.1)

    assert (while_behind, just_there) == (["primary"], ["primary"])
    assert await scene.ask(Query(changed_at)) == ["replica"]


async def test_a_replica_further_behind_than_allowed_answers_nobody() -> None:
    scene = Scene()
    await scene.look()
    for _ in range(60):
        assert scene.primary.place is not None
        scene.primary.place += 1
        await scene.look(after_s=0.25)

    assert await scene.ask(Query(scene.long_ago)) == ["primary"]
    assert scene.watch.lag_s > LAG_MAX_S


async def test_an_idle_primary_makes_no_replica_old() -> None:
    scene = Scene()
    for _ in range(100):
        await scene.look(after_s=1)

    assert await scene.ask(Query(scene.long_ago)) == ["replica"]
    assert scene.watch.lag_s == 0


async def test_while_the_primary_is_silent_the_replica_answers_until_it_is_too_old() -> None:
    scene = Scene()
    await scene.look()
    scene.primary.failure = Unavailable("gone")

    await scene.look(after_s=LAG_MAX_S - 1)
    still = await scene.ask(Query(scene.long_ago))
    await scene.look(after_s=2)

    assert still == ["replica"]
    assert await scene.ask(Query(scene.long_ago)) == ["primary"]


async def test_a_replica_that_is_gone_answers_nothing() -> None:
    scene = Scene()
    await scene.look()
    scene.replica.failure = Unavailable("gone")
    await scene.look()

    assert await scene.ask(Query(scene.long_ago)) == ["primary"]
    assert scene.watch.lag_s == float("inf")


async def test_a_replica_that_was_promoted_answers_nothing() -> None:
    scene = Scene()
    await scene.look()
    scene.replica.place = None
    await scene.look()

    assert await scene.ask(Query(scene.long_ago)) == ["primary"]


async def test_what_the_replica_does_not_know_yet_the_primary_is_asked() -> None:
    scene = Scene()
    await scene.look()
    scene.unknown_to_replica = {"new"}

    assert await scene.ask(Query(scene.long_ago, "old"), Query(scene.long_ago, "new")) == ["replica", "primary"]


async def test_a_replica_that_fails_in_the_middle_is_not_asked_again_until_it_was_looked_at() -> None:
    scene = Scene()
    await scene.look()
    scene.failure = Unavailable("lost")

    failed = await scene.ask(Query(scene.long_ago))
    scene.failure = None
    before_a_look = await scene.ask(Query(scene.long_ago))
    await scene.look(after_s=0.25)

    assert (failed, before_a_look) == (["primary"], ["primary"])
    assert await scene.ask(Query(scene.long_ago)) == ["replica"]


async def test_without_a_replica_the_primary_answers() -> None:
    async def work(queries: Sequence[Query], store: str) -> list[str | PayflowError]:
        return [store for _ in queries]

    assert await Reads("primary").answer([Query(None), Query(NOON)], work) == ["primary", "primary"]


async def test_a_replica_that_was_promoted_is_left_and_its_connections_are_made_anew() -> None:
    scene = Scene()
    await scene.look()

    scene.replica.place = None
    await scene.look(after_s=0.25)

    assert await scene.ask(Query(scene.long_ago)) == ["primary"]
    assert scene.replica.renewals == 1


async def test_another_replica_that_is_not_as_far_does_not_inherit_the_trust_in_the_one_before() -> None:
    scene = Scene()
    scene.primary.place = scene.replica.place = 300
    await scene.look()

    scene.primary.place, scene.replica.place = 310, 200
    await scene.look(after_s=0.25)

    assert await scene.ask(Query(scene.long_ago)) == ["primary"]


async def test_a_replica_that_times_out_is_replaced_by_the_primary_at_once() -> None:
    scene = Scene()
    await scene.look()
    scene.failure = TimeoutError()

    assert await scene.ask(Query(scene.long_ago)) == ["primary"]


async def test_while_a_replica_owes_an_answer_nobody_is_sent_there() -> None:
    scene = Scene()
    await scene.look()
    scene.replica.is_answering.clear()
    looking = asyncio.create_task(scene.watch.look())
    await asyncio.sleep(2 * LOOK_EVERY_S + 0.1)
    meanwhile = await scene.ask(Query(scene.long_ago))
    scene.replica.is_answering.set()
    await looking

    assert meanwhile == ["primary"]
    assert await scene.ask(Query(scene.long_ago)) == ["replica"]
