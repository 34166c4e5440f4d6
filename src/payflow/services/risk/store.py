"""The risk service's database: assessments and rule sets through named queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import asyncpg
import msgspec

from payflow.contracts.risk import RiskLevel
from payflow.platform.postgres import ConcurrencyConflict, Connection, Database, load_queries
from payflow.services.risk.domain import Assessment, RuleSet, Screening, Verdict

queries = load_queries(__package__ or "payflow.services.risk")


class PostgresCorrections:
    """Corrections in a transaction of the event log's consumer (see ports.Corrections)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def stop_counting(self, payment_ids: Sequence[UUID]) -> None:
        await self._connection.execute(queries.stop_counting, payment_ids)


class PostgresAssessments:
    """One database transaction that counts and stores (see ports.AssessmentTransaction)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def count_recent(self, *, customer_ids: Sequence[str], since: datetime, at_most: int) -> dict[str, int]:
        rows = await self._connection.fetch(queries.count_recent, customer_ids, since, at_most)
        return {row["counted_customer_id"]: row["payments"] for row in rows}

    async def save(self, assessments: Sequence[Assessment]) -> None:
        inserted = await self._connection.execute(
            queries.save,
            *_columns(assessments),
        )
        if inserted != f"INSERT 0 {len(assessments)}":
            # Rolled back as a whole: the batch's counts were made as if those payments were not stored yet.
            raise ConcurrencyConflict("A payment was assessed meanwhile.")


class PostgresStore:
    """The risk service's tables (see ports.Store)."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresAssessments]:
        async with self._database.transaction() as connection:
            yield PostgresAssessments(connection)

    async def find(self, payment_ids: Sequence[UUID]) -> dict[UUID, Assessment]:
        rows = await self._database.fetch(queries.find, payment_ids)
        return {row["payment_id"]: _assessment(row) for row in rows}

    async def save_if_counted(
        self, assessments: Sequence[Assessment], *, expected: Mapping[str, int], since: datetime, at_most: int
    ) -> dict[str, int]:
        rows = await self._database.write(
            queries.save_if_counted, list(expected), list(expected.values()), since, at_most, *_columns(assessments)
        )
        return {row["counted_customer_id"]: row["payments"] for row in rows}

    async def activate(self, rules: RuleSet, *, now: datetime) -> RuleSet:
        await self._database.execute(queries.activate_rules, rules.version, msgspec.to_builtins(rules), now)
        return msgspec.convert(await self._database.fetchval(queries.newest_rules), RuleSet)


def _columns(assessments: Sequence[Assessment]) -> list[object]:
    return [
        [assessment.payment_id for assessment in assessments],
        [assessment.customer_id for assessment in assessments],
        [assessment.amount_minor for assessment in assessments],
        [assessment.currency for assessment in assessments],
        [assessment.debtor for assessment in assessments],
        [assessment.creditor for assessment in assessments],
        [assessment.verdict.level.value for assessment in assessments],
        [assessment.verdict.points for assessment in assessments],
        [assessment.verdict.sanctions_points for assessment in assessments],
        [assessment.verdict.needs_otp for assessment in assessments],
        [assessment.screening.is_possible_sanctions_match for assessment in assessments],
        [assessment.screening.review_id for assessment in assessments],
        [",".join(assessment.verdict.rules_hit) for assessment in assessments],
        [assessment.screening.list_version for assessment in assessments],
        [assessment.screening.is_kyc_verified for assessment in assessments],
        [assessment.payments_in_window for assessment in assessments],
        assessments[0].rules_version,
        assessments[0].assessed_at,
    ]


def _assessment(row: asyncpg.Record) -> Assessment:
    return Assessment(
        payment_id=row["payment_id"],
        customer_id=row["customer_id"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        debtor=row["debtor"],
        creditor=row["creditor"],
        screening=Screening(
            is_possible_sanctions_match=row["is_possible_match"],
            review_id=row["review_id"],
            list_version=row["list_version"],
            is_kyc_verified=row["is_kyc_verified"],
        ),
        payments_in_window=row["payments_in_window"],
        verdict=Verdict(
            level=RiskLevel(row["level"]),
            points=row["points"],
            sanctions_points=row["sanctions_points"],
            needs_otp=row["needs_otp"],
            rules_hit=row["rules_hit"],
        ),
        rules_version=row["rules_version"],
        assessed_at=row["assessed_at"],
    )
