"""The audit service with an empty chain, in memory and over PostgreSQL, and the means to tamper with it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from joserfc.jwk import OKPKey

from payflow.contracts.audit import Audit, AuditPage, AuditRow, AuditVerified, SearchAudit, VerifyAudit
from payflow.kernel.envelope import Event
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.audit import usecases
from payflow.services.audit.api import AuditApi
from payflow.services.audit.consumer import Recorder
from payflow.services.audit.domain import Record, hash_of
from payflow.services.audit.heads import HEADS_FILE, HeadKeys, HeadsFile
from payflow.services.audit.store import PostgresStore
from tests.builders import FixedClock
from tests.fakes_audit import an_event

ConnectAs = Callable[[str], Awaitable[Database]]

RECORD_COLUMNS = ", ".join(Record.__struct_fields__)
EMPTY = """
TRUNCATE audit.audit_logs;
UPDATE audit.chain_end SET sequence = 0, hash = decode(repeat('00', 32), 'hex');
UPDATE audit.head_receipt SET number = 0, digest = repeat('0', 64);
"""


class World:
    """The audit service with an empty chain of a test's own."""

    def __init__(self, store: Any, heads: Any) -> None:
        self.store = store
        self.heads = heads
        self.clock = FixedClock()
        self.api = AuditApi(store=store, heads=heads, clock=self.clock)
        self.client: Audit = in_process(Audit, self.api, caller="gateway")

    async def record(self, *events: Event) -> None:
        raise NotImplementedError

    async def search(self, query: SearchAudit) -> AuditPage:
        (page,) = await self.client.search([query])
        assert isinstance(page, AuditPage), page
        return page

    async def rows(self) -> list[AuditRow]:
        return (await self.search(SearchAudit(oldest_first=True, limit=200))).rows

    async def verify(self, from_sequence: int = 1) -> AuditVerified:
        (verified,) = await self.client.verify([VerifyAudit(from_sequence=from_sequence)])
        assert isinstance(verified, AuditVerified), verified
        return verified

    async def grow(self, *lengths: int) -> None:
        """Record so many events and sign a head, once for each number."""
        for length in lengths:
            await self.record(*(an_event(data={"amount_minor": n}) for n in range(length)))
            await self.api.sign_head()


class MemoryWorld(World):
    async def record(self, *events: Event) -> None:
        async with self.store.transaction() as chain:
            await usecases.record_events(events=events, chain=chain, now=self.clock.now())


class PostgresWorld(World):
    def __init__(self, database: Database, heads: HeadsFile, owner: asyncpg.Connection[Any], file: Path) -> None:
        super().__init__(PostgresStore(database), heads)
        self.database = database
        self.owner = owner
        self.file = file

    async def record(self, *events: Event) -> None:
        async with self.database.transaction() as connection:
            await Recorder(clock=self.clock)(connection, events)

    async def tamper(self, *statements: str) -> None:
        """Change the tables as their owner, who may do everything."""
        for statement in statements:
            await self.owner.execute(statement)

    async def rehash(self, *, start: int) -> None:
        """Compute all hashes from row `start` on anew, as somebody with the code and all rights would."""
        rows = await self.owner.fetch(
            f"SELECT {RECORD_COLUMNS} FROM audit.audit_logs WHERE sequence >= $1 ORDER BY sequence", start - 1
        )
        previous: bytes = rows[0]["hash"]
        for row in rows[1:]:
            record = msgspec.structs.replace(Record(**dict(row)), previous_hash=previous)
            previous = hash_of(record)
            await self.owner.execute(
                "UPDATE audit.audit_logs SET previous_hash = $2, hash = $3 WHERE sequence = $1",
                record.sequence,
                record.previous_hash,
                previous,
            )
        end = "UPDATE audit.chain_end SET sequence = $1, hash = $2"
        await self.owner.execute(end, rows[-1]["sequence"], previous)


@contextlib.asynccontextmanager
async def empty_postgres_world(
    connect_as: ConnectAs, database_url: str, directory: Path
) -> AsyncIterator[PostgresWorld]:
    """The tables of this module's database, emptied, and an empty heads file in this directory."""
    owner = await asyncpg.connect(database_url)
    await owner.execute(EMPTY)
    key = OKPKey.generate_key("Ed25519").as_dict(private=True)
    heads = HeadsFile(directory=directory, keys=HeadKeys.from_json(json.dumps(key)))
    heads.prepare()
    yield PostgresWorld(await connect_as("audit"), heads, owner, directory / HEADS_FILE)
    await owner.close()
