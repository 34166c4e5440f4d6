"""An event log with a writer, consumers, and a table in which each effect leaves a row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from payflow.kernel.envelope import Event
from payflow.platform.eventlog import Consumer, EventHandler, Outbox
from payflow.platform.postgres import Connection, Database
from payflow.platform.service import EventConsumer
from tests.conftest import role_url
from tests.fakes_audit import an_event

ConnectAs = Callable[[str], Awaitable[Database]]
Owner: TypeAlias = "asyncpg.Connection[Any]"

PAYMENTS = ["payments"]


class Log:
    """The event log of one test: a writer, a table for effects, and consumers of it."""

    # How long something may take that should happen soon.
    patience_s = 10.0

    def __init__(self, *, owner: Owner, writer: Database, reader: Database, url: str, owner_url: str) -> None:
        self.owner = owner
        self.owner_url = owner_url
        self.writer = writer
        self.outbox = Outbox(writer)
        self.reader = reader
        self.url = url

    async def append(self, *events: Event) -> None:
        """Append events as one batch, and wake the consumers."""
        async with self.writer.transaction() as connection:
            await self.outbox.append(connection, events)
        self.outbox.wake_consumers()

    @property
    def settings(self) -> dict[str, str]:
        """The settings with which the command line finds this log."""
        return {"PAYFLOW_POSTGRES_URL": self.owner_url}

    async def append_as(self, writer: Database, *events: Event) -> None:
        """Append events as another service."""
        outbox = Outbox(writer)
        async with writer.transaction() as connection:
            await outbox.append(connection, events)
        outbox.wake_consumers()

    def any_consumer(
        self,
        handler: EventHandler | None = None,
        *,
        name: str = "audit",
        topics: Sequence[str] = PAYMENTS,
        types: Collection[str] | None = None,
        database: Database | None = None,
        after_commit: Callable[[Sequence[Event]], None] | None = None,
    ) -> EventConsumer:
        """A consumer of this log, wherever that is: for the suite that holds every log alike."""
        return Consumer(
            name=name,
            topics=topics,
            types=types,
            handler=handler or self.write_effects,
            database=database or self.reader,
            listen_url=self.url,
            after_commit=after_commit,
        )

    def consumer(
        self,
        handler: EventHandler | None = None,
        *,
        name: str = "audit",
        topics: Sequence[str] = PAYMENTS,
        database: Database | None = None,
    ) -> Consumer:
        return Consumer(
            name=name,
            topics=topics,
            handler=handler or self.write_effects,
            database=database or self.reader,
            listen_url=self.url,
        )

    async def write_effects(self, connection: Connection, events: Sequence[Event]) -> None:
        """A handler: one row per event, in the consumer's transaction."""
        await connection.executemany(
            "INSERT INTO audit.effect (event_id, subject, version) VALUES ($1, $2, $3)",
            [(event.id, event.subject, event.version) for event in events],
        )

    async def effects(self) -> list[tuple[str, int]]:
        """Subject and version of each effect, in the order of the effects."""
        rows = await self.owner.fetch("SELECT subject, version FROM audit.effect ORDER BY id")
        return [(row["subject"], row["version"]) for row in rows]

    async def drain(self, consumer: Consumer) -> None:
        """Step until there is nothing left to do."""
        async with asyncio.timeout(10):
            while await consumer.step():
                pass

    async def effects_of(self, subject: str) -> list[int]:
        """The versions of a subject whose effect was had, in the order of the effects."""
        return [version for of, version in await self.effects() if of == subject]

    async def until_version(self, subject: str, version: int) -> list[int]:
        """Wait for the effect of a subject's version; the versions of the subject that had one by then.

        A subject's events come in order: what was appended before has been dealt with by then.
        """

        async def is_had() -> bool:
            return version in await self.effects_of(subject)

        await until(is_had, seconds=self.patience_s)
        return await self.effects_of(subject)

    async def until_effects(self, count: int, *, seconds: float = 5.0) -> list[tuple[str, int]]:
        async with asyncio.timeout(max(seconds, self.patience_s)):
            while True:
                effects = await self.effects()
                if len(effects) >= count:
                    return effects
                await asyncio.sleep(0.005)

    async def position(self, name: str = "audit") -> int:
        return int(await self.owner.fetchval("SELECT position FROM event_log.consumer WHERE name = $1", name) or 0)


@asynccontextmanager
async def empty_log(database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]) -> AsyncIterator[Log]:
    """The event log of this module's database, emptied, and a table for effects."""
    owner: Owner = await asyncpg.connect(database_url)
    await owner.execute(
        """
        TRUNCATE event_log.batch, event_log.consumer, event_log.dead_letter, event_log.inbox, event_log.replay;
        UPDATE event_log.log_end SET position = 0;
        UPDATE event_log.relay SET position = 0, is_on = false;
        DROP TABLE IF EXISTS audit.effect;
        CREATE TABLE audit.effect (
            id bigint GENERATED ALWAYS AS IDENTITY, event_id uuid NOT NULL, subject text NOT NULL, version int NOT NULL
        );
        GRANT SELECT, INSERT ON audit.effect TO payflow_audit, payflow_risk;
        GRANT USAGE ON SCHEMA audit TO payflow_risk;
        """
    )
    writer, reader = await connect_as("confirm"), await connect_as("audit")
    yield Log(
        owner=owner,
        writer=writer,
        reader=reader,
        url=role_url(database_url, "audit", password_files),
        owner_url=database_url,
    )
    await owner.close()


@asynccontextmanager
async def running(*consumers: EventConsumer) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run consumers in the background, and stop them at the end."""
    tasks = [asyncio.create_task(consumer.run()) for consumer in consumers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until(is_so: Callable[[], Awaitable[bool]], *, seconds: float = 10.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.01)


async def until_waiting(consumer: EventConsumer) -> None:
    """Wait until a consumer complains that it cannot go on."""

    async def is_waiting() -> bool:
        return not await consumer.is_reading()

    await until(is_waiting)


def a_subjects_events(subject: str, versions: range) -> list[Event]:
    """One event for each version."""
    return [an_event(subject=subject, version=version) for version in versions]
