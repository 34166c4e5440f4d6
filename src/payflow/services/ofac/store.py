"""The ofac service's database: review cases and proofs of clear names through named queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg
import msgspec

from payflow.contracts.ofac import MatchView, PaymentDecision, ReviewState
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.ofac.domain.cases import Decision, Delivery, ReviewCase

queries = load_queries(__package__ or "payflow.services.ofac")

# The two names of a match, in the order of the case's matches: kept apart from the rest, and encrypted.
_names_decoder: Final = msgspec.json.Decoder(list[tuple[str, str]])


class PostgresCases:
    """One database transaction over review cases and proofs (see ports.CaseTransaction)."""

    def __init__(self, connection: Connection, rows: CaseRows, outbox: Outbox) -> None:
        self._connection = connection
        self._rows = rows
        self._outbox = outbox
        self.has_events = False

    async def open_cases(self, cases: Sequence[ReviewCase]) -> dict[UUID, UUID]:
        ordered = sorted(cases, key=lambda case: case.payment_id)
        inserted = await self._connection.fetch(
            queries.open_cases,
            [case.review_id for case in ordered],
            [case.payment_id for case in ordered],
            [case.customer_id for case in ordered],
            [_matches_without_names(case) for case in ordered],
            [self._rows.encrypt_names(case) for case in ordered],
            [case.list_version for case in ordered],
            [case.opened_at for case in ordered],
        )
        review_ids: dict[UUID, UUID] = {row["payment_id"]: row["review_id"] for row in inserted}
        others = [case.payment_id for case in ordered if case.payment_id not in review_ids]
        if others:
            review_ids.update(_review_ids(await self._connection.fetch(queries.reviews_of_payments, others)))
        return review_ids

    async def insert_proofs(self, *, proofs: Sequence[bytes], list_version: str, now: datetime) -> None:
        await self._connection.execute(queries.insert_proofs, sorted(proofs), list_version, now)

    async def lock_cases(self, review_ids: Sequence[UUID]) -> dict[UUID, ReviewCase]:
        rows = await self._connection.fetch(queries.lock_cases, sorted(set(review_ids)))
        return {row["review_id"]: self._rows.read(row) for row in rows}

    async def save_decisions(self, *, cases: Sequence[ReviewCase], deliver_after: datetime) -> None:
        await self._connection.execute(
            queries.save_decisions,
            [case.review_id for case in cases],
            [case.state.value for case in cases],
            [case.decided_at for case in cases],
            [case.decided_by for case in cases],
            [self._rows.encrypt_comment(case) for case in cases],
            deliver_after,
        )

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._outbox.append(self._connection, events)
        self.has_events = self.has_events or bool(events)


class PostgresStore:
    """The ofac service's tables (see ports.Store)."""

    def __init__(self, *, database: Database, cipher: ColumnCipher, outbox: Outbox) -> None:
        self._database = database
        self._rows = CaseRows(cipher)
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresCases]:
        async with self._database.transaction() as connection:
            cases = PostgresCases(connection, self._rows, self._outbox)
            yield cases
        if cases.has_events:
            self._outbox.wake_consumers()

    async def cases(self, review_ids: Sequence[UUID]) -> dict[UUID, ReviewCase]:
        rows = await self._database.fetch(queries.cases, list(review_ids))
        return {row["review_id"]: self._rows.read(row) for row in rows}

    async def reviews_of(self, payment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        return _review_ids(await self._database.fetch(queries.reviews_of_payments, list(payment_ids)))

    async def decisions_of(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentDecision]:
        rows = await self._database.fetch(queries.decisions_of_payments, list(payment_ids))
        return {row["payment_id"]: PaymentDecision(**{**dict(row), "state": ReviewState(row["state"])}) for row in rows}

    async def newest_cases(self, *, state: ReviewState | None, before: UUID | None, limit: int) -> list[ReviewCase]:
        rows = await self._database.fetch(queries.newest_cases, state and state.value, before, limit)
        return [self._rows.read(row) for row in rows]

    async def open_reviews(self) -> tuple[int, datetime | None]:
        row = await self._database.fetchrow(queries.open_reviews)
        return (0, None) if row is None else (row["cases"], row["oldest"])

    async def undelivered(self, *, now: datetime, limit: int) -> list[Decision]:
        rows = await self._database.fetch(queries.undelivered, now, limit)
        return [Decision(**dict(row)) for row in rows]

    async def save_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        await self._database.execute(
            queries.save_deliveries,
            [delivery.review_id for delivery in deliveries],
            [delivery.tries for delivery in deliveries],
            [delivery.deliver_after for delivery in deliveries],
            [delivery.delivered_at for delivery in deliveries],
        )


class CaseRows:
    """Reads rows of review_case, and encrypts what in them names people."""

    def __init__(self, cipher: ColumnCipher) -> None:
        self._cipher = cipher

    def encrypt_names(self, case: ReviewCase) -> bytes:
        """Screened and listed name of each match. The listed one too: it tells whose name was screened."""
        names = [(match.screened_name, match.matched_name) for match in case.matches]
        return self._cipher.encrypt(msgspec.json.encode(names).decode(), place=_place("names", case.review_id))

    def encrypt_comment(self, case: ReviewCase) -> bytes | None:
        """The officer's comment: people write names there."""
        if case.comment is None:
            return None
        return self._cipher.encrypt(case.comment, place=_place("comment", case.review_id))

    def read(self, row: asyncpg.Record) -> ReviewCase:
        """The case that a row holds. Raises DecryptionError for a row that was altered."""
        review_id = row["review_id"]
        names = _names_decoder.decode(self._cipher.decrypt(row["names_encrypted"], place=_place("names", review_id)))
        comment = row["comment_encrypted"]
        return ReviewCase(
            review_id=review_id,
            payment_id=row["payment_id"],
            customer_id=row["customer_id"],
            matches=tuple(
                MatchView(screened_name=screened, matched_name=matched, **match)
                for (screened, matched), match in zip(names, row["matches"], strict=True)
            ),
            list_version=row["list_version"],
            opened_at=row["opened_at"],
            state=ReviewState(row["state"]),
            decided_at=row["decided_at"],
            decided_by=row["decided_by"],
            comment=None if comment is None else self._cipher.decrypt(comment, place=_place("comment", review_id)),
            delivery_tries=row["delivery_tries"],
            delivered_at=row["delivered_at"],
        )


def _review_ids(rows: Iterable[asyncpg.Record]) -> dict[UUID, UUID]:
    return {row["payment_id"]: row["review_id"] for row in rows}


def _place(column: str, review_id: UUID) -> str:
    return f"review_case.{column}:{review_id}"


def _matches_without_names(case: ReviewCase) -> str:
    matches = [
        {
            "list_name": match.list_name,
            "entry_id": match.entry_id,
            "score": match.score,
            "programs": match.programs,
        }
        for match in case.matches
    ]
    return msgspec.json.encode(matches).decode()
