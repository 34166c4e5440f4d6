"""The partner_bank service's database: instructions through named queries, their parties encrypted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from uuid import UUID

import asyncpg
import msgspec

from payflow.contracts.incoming import suspense_exit_id
from payflow.contracts.partner_bank import RETURN, InstructionPage, InstructionView, ListInstructions
from payflow.contracts.sides import PaymentSides
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher, read_or_none
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.partner_bank.domain import (
    Direction,
    EndRequest,
    Instruction,
    Parties,
    Return,
    Status,
    incoming_sides,
)

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
            [one.attempts for one in instructions],
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

    async def insert_return(self, made: Return) -> None:
        await self._connection.execute(
            queries.insert_return,
            made.return_id,
            made.payment_id,
            made.number,
            made.message_id,
            made.agent_bic,
            made.end_to_end_id,
            made.uetr,
            made.amount_minor,
            made.currency,
            made.return_reason,
            made.status.value,
            made.attempts,
            made.next_attempt_at,
            made.created_at,
            made.updated_at,
            made.needs_approval,
            *_columns_of(made.request),
        )

    async def lock_due_returns(self, status: Status, *, now: datetime, limit: int) -> list[Return]:
        return [
            _return(row) for row in await self._connection.fetch(queries.lock_due_returns, status.value, now, limit)
        ]

    async def lock_returns(self, return_ids: Sequence[UUID]) -> dict[UUID, Return]:
        rows = await self._connection.fetch(queries.lock_returns, return_ids) if return_ids else []
        return {row["return_id"]: _return(row) for row in rows}

    async def lock_returns_not_refused(self, payment_ids: Sequence[UUID]) -> dict[UUID, Return]:
        rows = await self._connection.fetch(queries.lock_returns_not_refused, payment_ids)
        return {row["payment_id"]: _return(row) for row in rows}

    async def save_returns(self, returns: Sequence[Return]) -> None:
        if not returns:
            return
        await self._connection.execute(
            queries.save_returns,
            [one.return_id for one in returns],
            [one.status.value for one in returns],
            [one.reason_code for one in returns],
            [one.attempts for one in returns],
            [one.next_attempt_at for one in returns],
            [one.updated_at for one in returns],
            [one.sent_at for one in returns],
            [one.answered_at for one in returns],
            [one.booked_at for one in returns],
            [one.proof for one in returns],
            [one.ended_by for one in returns],
            [one.needs_approval for one in returns],
            *map(list, zip(*(_columns_of(one.request) for one in returns), strict=True)),
            [one.never_received for one in returns],
            [one.last_answer for one in returns],
            [one.last_answer_at for one in returns],
        )

    async def note_exits(self, payment_ids: Sequence[UUID]) -> None:
        if payment_ids:
            exits = [suspense_exit_id(id) for id in payment_ids]
            await self._connection.execute(queries.note_exits, exits, payment_ids)

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

    async def find_returns(self, return_ids: Sequence[UUID]) -> dict[UUID, Return]:
        rows = await self._database.fetch(queries.find_returns, return_ids)
        return {row["return_id"]: _return(row) for row in rows}

    async def sides(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentSides | None]:
        rows = await self._database.fetch(queries.sides, payment_ids)
        return {row["booked_as"]: read_or_none(partial(self._sides, row)) for row in rows}

    def _sides(self, row: asyncpg.Record) -> PaymentSides:
        return incoming_sides(
            booked_as=row["booked_as"],
            agent_bic=row["agent_bic"],
            end_to_end_id=row["end_to_end_id"],
            parties=_parties_of(row["parties_encrypted"], row["payment_id"], self._cipher),
        )

    async def held_in_suspense(self, *, after: UUID | None, limit: int) -> list[UUID]:
        rows = await self._database.fetch(queries.held_in_suspense, after, limit)
        return [row["payment_id"] for row in rows]

    async def open_incoming(self) -> dict[Status, tuple[int, datetime]]:
        rows = await self._database.fetch(queries.open_incoming)
        return {Status(row["status"]): (row["payments"], row["oldest"]) for row in rows}

    async def page(self, query: ListInstructions) -> InstructionPage:
        if query.direction == RETURN:
            rows = await self._database.fetch(queries.page_of_returns, query.status, query.cursor, query.limit + 1)
        else:
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
    values["parties"] = _parties_of(values.pop("parties_encrypted"), values["payment_id"], cipher)
    values["direction"] = Direction(values["direction"])
    values["status"] = Status(values["status"])
    return Instruction(**values)


def _parties_of(encrypted: bytes, payment_id: UUID, cipher: ColumnCipher) -> Parties:
    return _parties.decode(cipher.decrypt(encrypted, place=_place(payment_id)))


def _return(row: asyncpg.Record) -> Return:
    values = dict(row)
    request = [values.pop(name) for name in ("end_reference", "end_requested_by", "end_requested_at", "end_expires_at")]
    values["request"] = None if request[0] is None else EndRequest(*request)
    values["status"] = Status(values["status"])
    return Return(**values)


def _columns_of(request: EndRequest | None) -> tuple[str | None, str | None, datetime | None, datetime | None]:
    if request is None:
        return None, None, None, None
    return request.reference, request.requested_by, request.requested_at, request.expires_at
