"""What cannot be handled, forgeries and rubbish: set aside, while the rest goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.dead_letters import list_dead_letters
from payflow.platform.postgres import Connection, Database
from tests.builders_event_log import ConnectAs, Log, running, until, until_waiting
from tests.event_log_suite.helpers import Picky, until_letters
from tests.fakes_audit import an_event


class Failing:
    """What fails is waited out or set aside."""

    # --- what cannot be handled ---------------------------------------------------------------------------------

    async def test_an_event_that_always_fails_is_set_aside_and_the_rest_goes_on(self, log: Log) -> None:
        poison = an_event(subject="poison")
        async with running(log.any_consumer(Picky(log, "poison"))):
            await log.append(an_event(subject="before"), poison, an_event(subject="after"))
            await log.append(an_event(subject="later"))
            for subject in ("before", "after", "later"):
                await log.until_version(subject, 1)
            (letter,) = await until_letters(log, 1)

        assert sorted(await log.effects()) == [("after", 1), ("before", 1), ("later", 1)]
        assert (letter.consumer, letter.event_id, letter.source) == ("audit", poison.id, "payflow_confirm")
        assert letter.cause == "ValueError('not this one')"
        assert letter.events == [poison]

    @pytest.mark.parametrize(
        "error", [AttributeError("a bug"), asyncpg.ForeignKeyViolationError("refers to nothing")], ids=repr
    )
    async def test_an_event_at_which_the_handler_breaks_stops_what_is_behind_it_for_five_seconds_at_most(
        self, log: Log, error: Exception
    ) -> None:
        loop = asyncio.get_running_loop()
        async with running(log.any_consumer(Picky(log, "poison", error=error))):
            await log.append(an_event(subject="first"))
            await log.until_version("first", 1)
            began_at = loop.time()
            await log.append(an_event(subject="poison", version=1), an_event(subject="behind"))
            await log.until_version("behind", 1)
            took_s = loop.time() - began_at
            (letter,) = await until_letters(log, 1)

        assert took_s < 5.5
        assert letter.subject == "poison"

    async def test_a_handler_that_breaks_at_every_event_sets_nothing_aside(self, log: Log) -> None:
        broken = Picky(log, "a", error=AttributeError("a bug"))
        consumer = log.any_consumer(broken)
        async with running(consumer):
            # Of one payment, so that they come together: a lone event that fails is at fault, as far as one knows.
            await log.append(an_event(subject="a", version=1), an_event(subject="a", version=2))
            await asyncio.sleep(5)
            before = (await log.effects(), await list_dead_letters(log.owner))
            broken.refused.clear()
            await log.until_version("a", 2)

        assert before == ([], [])
        assert await list_dead_letters(log.owner) == []

    async def test_an_event_that_fails_for_a_moment_is_not_set_aside(self, log: Log) -> None:
        tries = 0

        async def fail_twice(connection: Connection, events: Sequence[Event]) -> None:
            nonlocal tries
            tries += 1
            if tries <= 2:
                raise ValueError("for a moment")
            await log.write_effects(connection, events)

        async with running(log.any_consumer(fail_twice)):
            await log.append(an_event(subject="patience"))
            await log.until_version("patience", 1)

        assert await list_dead_letters(log.owner) == []

    async def test_what_passes_is_waited_out_and_said(self, log: Log) -> None:
        is_away = True

        async def ask_first(connection: Connection, events: Sequence[Event]) -> None:
            if is_away:
                raise Unavailable("away")
            await log.write_effects(connection, events)

        consumer = log.any_consumer(ask_first)
        async with running(consumer):
            await log.append(an_event(subject="patience", version=1))
            await until_waiting(consumer)
            await log.append(an_event(subject="patience", version=2))
            before = await log.effects()
            is_away = False
            versions = await log.until_version("patience", 2)

            async def is_well() -> bool:
                return await consumer.is_reading()

            await until(is_well)

        assert before == []
        assert versions == [1, 2]
        assert await list_dead_letters(log.owner) == []

    async def test_a_consumer_waits_until_its_database_is_back(self, log: Log) -> None:
        database = await Database.connect(url=log.url, pool_size=2, application="test", schema="audit")
        async with running(log.any_consumer(database=database)):
            await log.append(an_event(subject="payment", version=1))
            await log.until_version("payment", 1)
            await log.owner.execute("ALTER ROLE payflow_audit NOLOGIN")
            try:
                await log.owner.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE usename = 'payflow_audit' AND datname = current_database()"
                )
                await log.append(an_event(subject="payment", version=2))
                await asyncio.sleep(0.5)
                before = await log.effects_of("payment")
            finally:
                await log.owner.execute("ALTER ROLE payflow_audit LOGIN")
            versions = await log.until_version("payment", 2)
        await database.close()

        assert before == [1]
        assert versions == [1, 2]

    # --- forgeries and rubbish ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("writer", "event"),
        [
            ("kyc", an_event(type="payment.rejected", source="confirm", subject="payment")),
            ("kyc", an_event(type="payment.rejected", source="kyc", subject="payment")),
            ("kyc", an_event(type="security.user_created", source="gateway", subject="payment")),
            ("confirm", an_event(type="review.decided", source="confirm", subject="payment")),
        ],
        ids=["in another's name", "of another's topic", "everybody's topic in another's name", "a clearing by confirm"],
    )
    async def test_a_forged_event_has_no_effect_and_is_set_aside(
        self, log: Log, connect_as: ConnectAs, writer: str, event: Event
    ) -> None:
        topics = ["payments", "security", "reviews.decided"]
        async with running(log.any_consumer(topics=topics)):
            await log.append_as(await connect_as(writer), event)
            await log.append(an_event(subject="payment", version=2))
            versions = await log.until_version("payment", 2)
            (letter,) = await until_letters(log, 1)

        assert versions == [2]
        assert (letter.event_id, letter.source) == (event.id, f"payflow_{writer}")
        assert letter.cause.startswith("forged: ")

    @pytest.mark.parametrize(
        "written", [b"\x90\x90", b"", b"\x91" * 5000 + b"\xc0"], ids=["no events", "empty", "deep"]
    )
    async def test_a_batch_that_cannot_be_read_is_set_aside_and_the_rest_goes_on(
        self, log: Log, written: bytes
    ) -> None:
        async with running(log.any_consumer()):
            await log.writer.execute(
                "INSERT INTO event_log.batch (types, events, event_count) VALUES ('{payment.completed}', $1, 1)",
                written,
            )
            await log.append(an_event(subject="after"))
            await log.until_version("after", 1)
            (letter,) = await until_letters(log, 1)

        assert (letter.types, letter.source) == ([], "payflow_confirm")
