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
    ("notification", "claim_codes"),
    ("audit", "append"),
]


@pytest.mark.parametrize(("service", "name"), _STATEMENTS)
async def test_no_list_of_a_batch_is_compared_item_by_item_with_another(
    database_url: str, service: str, name: str
) -> None:
    statement = getattr(load_queries(f"payflow.services.{service}"), name).rstrip().rstrip(";")

    assert _squares(await _plan(database_url, service, statement)) == []


@pytest.mark.parametrize("service", ["confirm", "partner_bank"])
async def test_the_sides_of_statement_lines_are_found_by_primary_keys(database_url: str, service: str) -> None:
    statement = load_queries(f"payflow.services.{service}").sides.rstrip().rstrip(";")

    scans = _scans(await _plan(database_url, service, statement))

    assert len(scans) == 3
    assert all(index.endswith("_pkey") for index in scans), scans


async def test_what_the_counts_of_risk_are_compared_with_stands_beside_them(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    body = await connection.fetchval("SELECT prosrc FROM pg_proc WHERE proname = 'save_if_counted'")
    await connection.close()

    assert "ROWS FROM (count_recent(" in body
    assert " JOIN " not in body


@pytest.mark.parametrize(
    "square",
    [
        "SELECT * FROM unnest($1::uuid[]) AS a (id) JOIN unnest($2::uuid[]) AS b (id) USING (id)",
        "SELECT * FROM unnest($1::uuid[]) AS a (id) "
        "JOIN (SELECT id FROM unnest($2::uuid[]) AS c (id) GROUP BY id) AS b USING (id)",
        "SELECT * FROM unnest($1::uuid[]) AS a (id) WHERE (id = ANY (SELECT b.id FROM unnest($2::uuid[]) AS b (id) "
        "WHERE b.id >= a.id)) IS TRUE",
    ],
)
async def test_the_check_finds_lists_that_are_compared_each_with_each(database_url: str, square: str) -> None:
    assert len(_squares(await _plan(database_url, "confirm", square))) == 1


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


def _scans(plan: dict[str, Any]) -> list[str]:
    """How each table of a plan is read: by which index, or else in which way."""
    # A heap whose rows an index has named is told by that index.
    is_scan = "Index Name" in plan or plan["Node Type"] == "Seq Scan"
    own = [plan.get("Index Name", plan["Node Type"])] if is_scan else []
    return own + [scan for part in plan.get("Plans", ()) for scan in _scans(part)]


def _squares(plan: dict[str, Any]) -> list[str]:
    """The parts of a plan that go through one list of the batch for each item of another."""
    found = [square for part in plan.get("Plans", ()) for square in _squares(part)]
    if plan["Node Type"] == "Nested Loop":
        sides = [part for part in plan["Plans"] if part.get("Parent Relationship") in ("Outer", "Inner")]
        if all(_is_list(side) for side in sides):
            found.append(" x ".join(side.get("Alias", side["Node Type"]) for side in sides))
    # A filter that looks things up in a hash table says so; another one goes through its list each time.
    for part in plan.get("Plans", ()):
        name = part.get("Subplan Name", "")
        is_asked_each_time = name.startswith("SubPlan") and f"hashed {name}" not in plan.get("Filter", "")
        if part.get("Parent Relationship") == "SubPlan" and is_asked_each_time and _is_list(part):
            found.append(f"{plan.get('Alias', plan['Node Type'])} x {name}")
    return found


def _is_list(side: dict[str, Any]) -> bool:
    """Whether it is read from a list of the batch alone."""
    while len(side.get("Plans", ())) == 1 and "CTE Name" not in side:
        side = side["Plans"][0]
    return side["Node Type"] in _OF_A_BATCH and side.get("CTE Name") not in _ONE_ROW
