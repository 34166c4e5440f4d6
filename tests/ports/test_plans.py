"""How PostgreSQL runs the statements of a payment's path: what a batch costs grows with its items, not their square.

The sessions of a service do without hash joins (platform/pooling.py), so that no plan reads a whole table. A join of
two lists of a batch would then compare each with each: ten thousand times for a hundred payments.
"""

from __future__ import annotations

from typing import Any, Final

import asyncpg
import msgspec
import pytest

from payflow.platform.pooling import session_settings
from payflow.platform.postgres import load_queries

# Scans of a batch: a list that came with the statement, or what one of its steps gave back.
_OF_A_BATCH: Final = ("Function Scan", "CTE Scan")
# One row, whatever the batch: a nested loop over it is none.
_ONE_ROW: Final = {"whole"}
_ASK: Final = """
CREATE FUNCTION pg_temp.plan_of(statement text) RETURNS json LANGUAGE plpgsql AS $$
DECLARE
    told json;
BEGIN
    EXECUTE 'EXPLAIN (GENERIC_PLAN, FORMAT JSON) ' || statement INTO told;
    RETURN told;
END
$$
"""
_STATEMENTS: Final = [
    ("confirm", "claim"),
    ("confirm", "save_whole"),
    ("confirm", "save"),
    ("account", "book_whole"),
    ("account", "book"),
    ("risk", "save"),
    ("notification", "add_messages"),
    ("audit", "append"),
]


@pytest.mark.parametrize(("service", "name"), _STATEMENTS)
async def test_no_list_of_a_batch_is_compared_item_by_item_with_another(
    database_url: str, service: str, name: str
) -> None:
    statement = getattr(load_queries(f"payflow.services.{service}"), name).rstrip().rstrip(";")

    plan = await _plan(database_url, service, statement)

    assert [_told(loop) for loop in _loops(plan) if _is_square(loop)] == []


async def test_the_check_finds_a_join_of_two_lists(database_url: str) -> None:
    joined = "SELECT * FROM unnest($1::uuid[]) AS a (id) JOIN unnest($2::uuid[]) AS b (id) USING (id)"

    plan = await _plan(database_url, "confirm", joined)

    assert [_is_square(loop) for loop in _loops(plan)] == [True]


async def _plan(url: str, service: str, statement: str) -> dict[str, Any]:
    """The plan of a prepared statement, which knows no values, in a session as the service's are."""
    connection = await asyncpg.connect(url)
    try:
        for setting, value in session_settings(service).items():
            await connection.execute("SELECT set_config($1, $2, false)", setting, value)
        # Asked for through a function, since the statement's parameters have no values here.
        await connection.execute(_ASK)
        plans = msgspec.json.decode(await connection.fetchval("SELECT pg_temp.plan_of($1)::text", statement))
        found: dict[str, Any] = plans[0]["Plan"]
        return found
    finally:
        await connection.close()


def _loops(plan: dict[str, Any]) -> list[dict[str, Any]]:
    below = [loop for part in plan.get("Plans", ()) for loop in _loops(part)]
    return [plan, *below] if plan["Node Type"] == "Nested Loop" else below


def _is_square(loop: dict[str, Any]) -> bool:
    """Whether both sides of a nested loop are lists of the batch."""
    sides = [part for part in loop["Plans"] if part.get("Parent Relationship") in ("Outer", "Inner")]
    return all(_is_list(side) for side in sides)


def _is_list(side: dict[str, Any]) -> bool:
    while side["Node Type"] in ("Materialize", "Memoize", "Sort"):
        side = side["Plans"][0]
    return side["Node Type"] in _OF_A_BATCH and side.get("CTE Name") not in _ONE_ROW


def _told(loop: dict[str, Any]) -> str:
    return " x ".join(part.get("Alias", part["Node Type"]) for part in loop["Plans"])
