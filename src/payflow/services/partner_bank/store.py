"""The partner_bank service's database: instructions through named queries, their parties encrypted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from payflow.contracts.partner_bank import InstructionPage, InstructionView, ListInstructions
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.partner_bank.domain import Direction, Instruction, Parties, Status

queries = load_queries(__package__ or "payflow.services.partner_bank")
_parties = msgspec.json.Decoder(Parties)


class PostgresInstructions:
    """One database transaction over the instructions (see ports.InstructionTransaction)."""

    def __init__(self, connection: Connection, cipher: ColumnCipher, outbox: Outbox) -> None:
        self._connection = connection
        self._cipher = cipher
        self._outbox = outbox
        self.has_events = False

    async def insert(self, instructions: Sequence[Instruction]) -> set[UUID]:
        if not instructions:
            return set()
        rows = await self._connection.fetch(
            queries.insert_instructions,
            [one.payment_id for one in instructions],
            [one.direction.value for one in instructions],
            [one.agent_bic for one in instructions],
            [one.end_to_end_id for one in instructions],
            [one.message_id for one in instructions],
            [one.instruction_id for one in instructions],
            [one.uetr for one in instructions],
            [one.amount_minor for one in instructions],
            [one.currency for one in instructions],
            [encrypt_parties(self._cipher, one) for one in instructions],
            [one.fencing_token for one in instructions],
            [one.status.value for one in instructions],
            [one.reason_code for one in instructions],
            [one.next_attempt_at for one in instructions],
            [one.created_at for one in instructions],
            [one.answered_at for one in instructions],
            [one.is_answer_delivered for one in instructions],
        )
        return {row["payment_id"] for row in rows}

    async def lock(self, payment_ids: Sequence[UUID]) -> dict[UUID, Instruction]:
        if not payment_ids:
            return {}
        rows = await self._connection.fetch(queries.lock_instructions, payment_ids)
        return {row["payment_id"]: _instruction(row, self._cipher) for row in rows}

    async def lock_due(self, statuses: Sequence[Status], *, now: datetime, limit: int) -> list[Instruction]:
        rows = await self._connection.fetch(queries.lock_due, [status.value for status in statuses], now, limit)
        return [_instruction(row, self._cipher) for row in rows]

    async def save(self, instructions: Sequence[Instruction]) -> None:
        if not instructions:
            return
        await self._connection.execute(
            queries.save_instructions,
            [one.payment_id for one in instructions],
            [one.fencing_token for one in instructions],
            [one.status.value for one in instructions],
            [one.reason_code for one in instructions],
            [one.is_suspicious for one in instructions],
            [one.attempts for one in instructions],
            [one.next_attempt_at for one in instructions],
            [one.updated_at for one in instructions],
            [one.answered_at for one in instructions],
            [one.is_answer_delivered for one in instructions],
        )

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._outbox.append(self._connection, events)
        self.has_events = self.has_events or bool(events)


class PostgresStore:
    """The partner_bank service's tables (see ports.Store)."""

    def __init__(self, *, database: Database, cipher: ColumnCipher, outbox: Outbox) -> None:
        self._database = database
        self._cipher = cipher
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresInstructions]:
        async with self._database.transaction() as connection:
            book = PostgresInstructions(connection, self._cipher, self._outbox)
            yield book
        if book.has_events:
            self._outbox.wake_consumers()

    async def find(self, payment_ids: Sequence[UUID]) -> dict[UUID, Instruction]:
        rows = await self._database.fetch(queries.find_instructions, payment_ids)
        return {row["payment_id"]: _instruction(row, self._cipher) for row in rows}

    async def page(self, query: ListInstructions) -> InstructionPage:
        rows = await self._database.fetch(
            queries.page_of_instructions, query.direction, query.status, query.cursor, query.limit + 1
        )
        views = [InstructionView(**dict(row)) for row in rows[: query.limit]]
        return InstructionPage(
            instructions=views, next_cursor=views[-1].payment_id if len(rows) > query.limit else None
        )


def encrypt_parties(cipher: ColumnCipher, instruction: Instruction) -> bytes:
    """The parties as the table keeps them; bound to their payment, so that they cannot be moved to another."""
    text = msgspec.json.encode(asdict(instruction.parties)).decode()
    return cipher.encrypt(text, place=_place(instruction.payment_id))


def _place(payment_id: UUID) -> str:
    return f"instruction.parties:{payment_id}"


def _instruction(row: asyncpg.Record, cipher: ColumnCipher) -> Instruction:
    values = dict(row)
    text = cipher.decrypt(values.pop("parties_encrypted"), place=_place(values["payment_id"]))
    values["parties"] = _parties.decode(text)
    values["direction"] = Direction(values["direction"])
    values["status"] = Status(values["status"])
    return Instruction(**values)
