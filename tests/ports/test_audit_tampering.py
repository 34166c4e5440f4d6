"""Every way of tampering with the audit chain and its heads, by somebody with all rights on the database, is found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import asyncpg
import pytest
from joserfc.jwk import OKPKey

from payflow.kernel.errors import Conflict
from payflow.services.audit import usecases
from payflow.services.audit.domain import Record, hash_of
from payflow.services.audit.heads import HeadKeys, HeadsFile
from tests.builders import NOON
from tests.builders_audit import RECORD_COLUMNS, ConnectAs, PostgresWorld, empty_postgres_world
from tests.fakes_audit import an_event


@pytest.fixture
async def postgres_world(connect_as: ConnectAs, database_url: str, tmp_path: Path) -> AsyncIterator[PostgresWorld]:
    async with empty_postgres_world(connect_as, database_url, tmp_path) as world:
        yield world


# --- what the service's own role may do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_logs SET subject = 'x'",
        "DELETE FROM audit_logs",
        "TRUNCATE audit_logs",
        "DELETE FROM chain_end",
        "DELETE FROM head_receipt",
        "ALTER TABLE audit_logs DISABLE TRIGGER ALL",
        "DROP TABLE audit_logs",
        "SELECT * FROM account.accounts",
    ],
)
async def test_the_services_role_cannot_change_or_remove_what_is_recorded(
    postgres_world: PostgresWorld, statement: str
) -> None:
    await postgres_world.grow(2)

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await postgres_world.database.execute(statement)

    assert (await postgres_world.verify()).problems == []


async def test_two_writers_do_not_fork_the_chain(postgres_world: PostgresWorld) -> None:
    await asyncio.gather(*(postgres_world.record(an_event(), an_event()) for _ in range(4)))

    verified = await postgres_world.verify()

    assert (verified.rows, verified.problems) == (8, [])


# --- tampering with the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("data = '{\"amount_minor\":999}'", "row 3: its contents do not match its hash"),
        ("data = '{ \"amount_minor\":2}'", "row 3: its contents do not match its hash"),
        ("subject = 'another'", "row 3: its contents do not match its hash"),
        ("type = 'payment.rejected'", "row 3: its contents do not match its hash"),
        ("source = 'account'", "row 3: its contents do not match its hash"),
        ("version = version + 1", "row 3: its contents do not match its hash"),
        ("event_id = gen_random_uuid()", "row 3: its contents do not match its hash"),
        ("traceparent = ''", "row 3: its contents do not match its hash"),
        ("occurred_at = occurred_at + interval '1 microsecond'", "row 3: its contents do not match its hash"),
        ("recorded_at = recorded_at - interval '1 hour'", "row 3: its contents do not match its hash"),
        ("hash = sha256('x')", "row 3: its contents do not match its hash"),
        ("previous_hash = sha256('x')", "row 3: it does not continue row 2"),
    ],
    ids=lambda text: text.split(" =")[0] if " = " in text else "",
)
async def test_an_edit_of_any_column_is_found(postgres_world: PostgresWorld, change: str, problem: str) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper(f"UPDATE audit.audit_logs SET {change} WHERE sequence = 3")

    assert problem in (await postgres_world.verify()).problems


async def test_a_row_edited_together_with_its_hash_is_found_by_the_next_row(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper("UPDATE audit.audit_logs SET data = '{}' WHERE sequence = 3")
    row = await postgres_world.owner.fetchrow(f"SELECT {RECORD_COLUMNS} FROM audit.audit_logs WHERE sequence = 3")
    assert row is not None
    await postgres_world.owner.execute(
        "UPDATE audit.audit_logs SET hash = $1 WHERE sequence = 3", hash_of(Record(**dict(row)))
    )

    assert (await postgres_world.verify()).problems == ["row 4: it does not continue row 3"]


async def test_a_row_edited_together_with_all_hashes_after_it_is_found_by_the_heads(
    postgres_world: PostgresWorld,
) -> None:
    await postgres_world.grow(5, 5)

    await postgres_world.tamper("UPDATE audit.audit_logs SET data = '{}' WHERE sequence = 3")
    await postgres_world.rehash(start=3)

    assert (await postgres_world.verify()).problems == [
        "row 5: head 1 signed another hash",
        "row 10: head 2 signed another hash",
    ]


async def test_a_deleted_row_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper("DELETE FROM audit.audit_logs WHERE sequence = 3")

    problems = (await postgres_world.verify()).problems
    assert problems == ["row 3 is missing"]


async def test_a_deleted_row_is_found_also_where_verification_begins_behind_it(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper("DELETE FROM audit.audit_logs WHERE sequence = 3")

    assert (await postgres_world.verify(from_sequence=4)).problems == ["row 4: it does not continue row 3"]


async def test_a_deleted_row_whose_gap_was_closed_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper(
        "DELETE FROM audit.audit_logs WHERE sequence = 3",
        "UPDATE audit.audit_logs SET sequence = 3 WHERE sequence = 4",
        "UPDATE audit.audit_logs SET sequence = 4 WHERE sequence = 5",
    )
    await postgres_world.rehash(start=3)

    assert (await postgres_world.verify()).problems == ["head 1 signed row 5, but the table ends at row 4"]


async def test_a_cut_tail_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(3, 3)

    await postgres_world.tamper("DELETE FROM audit.audit_logs WHERE sequence > 4")

    assert (await postgres_world.verify()).problems == [
        "head 2 signed row 6, but the table ends at row 4",
        "rows 5 to 6 are missing",
    ]


async def test_a_tail_cut_together_with_the_written_end_is_found_and_no_longer_signed(
    postgres_world: PostgresWorld,
) -> None:
    await postgres_world.grow(3, 3)

    await postgres_world.tamper(
        "DELETE FROM audit.audit_logs WHERE sequence > 4",
        "UPDATE audit.chain_end SET (sequence, hash) = (SELECT a.sequence, a.hash FROM audit.audit_logs AS a "
        "WHERE a.sequence = 4)",
    )

    with pytest.raises(Conflict, match="ends at row 4, but a head of row 6 was signed"):
        await postgres_world.api.sign_head()
    assert not await postgres_world.api.heads_are_signed()
    assert (await postgres_world.verify()).problems == ["head 2 signed row 6, but the table ends at row 4"]


async def test_a_cut_tail_is_found_also_after_new_rows_took_its_place(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(3, 3)

    await postgres_world.tamper(
        "DELETE FROM audit.audit_logs WHERE sequence > 4",
        "UPDATE audit.chain_end SET (sequence, hash) = (SELECT a.sequence, a.hash FROM audit.audit_logs AS a "
        "WHERE a.sequence = 4)",
    )
    await postgres_world.grow(5)

    assert (await postgres_world.verify()).problems == ["row 6: head 2 signed another hash"]


async def test_rows_that_changed_places_are_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper(
        "UPDATE audit.audit_logs SET sequence = 100 WHERE sequence = 2",
        "UPDATE audit.audit_logs SET sequence = 2 WHERE sequence = 4",
        "UPDATE audit.audit_logs SET sequence = 4 WHERE sequence = 100",
    )

    problems = (await postgres_world.verify()).problems
    assert "row 2: its contents do not match its hash" in problems
    assert "row 4: its contents do not match its hash" in problems


async def test_a_row_put_in_behind_the_services_back_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(3)

    await postgres_world.tamper(
        "INSERT INTO audit.audit_logs SELECT 4, gen_random_uuid(), type, source, subject, version, occurred_at, "
        "recorded_at, data, traceparent, hash, sha256('x') FROM audit.audit_logs WHERE sequence = 3"
    )

    assert (await postgres_world.verify()).problems == [
        "row 4: its contents do not match its hash",
        "row 4: it is not the row that was written last (row 3)",
    ]


# --- tampering with the heads file ------------------------------------------------------------------------------


def _lines(world: PostgresWorld) -> list[str]:
    return world.file.read_text().splitlines(keepends=True)


def _forged(line: str) -> str:
    """The head as somebody without the key would write it for another history."""
    return json.dumps({**json.loads(line), "hash": "ab" * 32}) + "\n"


HeadsEdit = Callable[[Sequence[str]], Sequence[str]]


@pytest.mark.parametrize(
    ("edit", "problems"),
    [
        (lambda lines: lines[1:], ["head 1 is missing from the heads file"]),
        (lambda lines: [lines[0], lines[2]], ["head 2 is missing from the heads file"]),
        (lambda lines: lines[:2], ["the heads file ends at head 2, but 3 heads were signed"]),
        (lambda lines: [], ["the heads file ends at head 0, but 3 heads were signed"]),
        (lambda lines: [*lines[:2], lines[2][:40]], ["the heads file ends at head 2, but 3 heads were signed"]),
        (
            lambda lines: [*lines[:2], _forged(lines[2])],
            ["head 3: its signature is not valid", "head 3 is not the one that was signed"],
        ),
        (
            lambda lines: [lines[0], "nonsense\n", lines[2]],
            ["line 2 of the heads file cannot be read"],
        ),
    ],
    ids=["first cut off", "one taken out", "last cut off", "emptied", "torn", "forged", "made unreadable"],
)
async def test_tampering_with_the_heads_file_is_found(
    postgres_world: PostgresWorld, edit: HeadsEdit, problems: list[str]
) -> None:
    await postgres_world.grow(2, 2, 2)

    postgres_world.file.write_text("".join(edit(_lines(postgres_world))))

    assert (await postgres_world.verify()).problems == problems


async def test_a_removed_heads_file_is_found_also_after_signing_went_on(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(2, 2)

    postgres_world.file.unlink()
    await postgres_world.grow(2)

    verified = await postgres_world.verify()
    assert (verified.heads, verified.problems) == (1, ["heads 1 to 2 are missing from the heads file"])


async def test_a_rewritten_history_with_heads_of_another_key_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(3)
    postgres_world.file.unlink()
    await postgres_world.tamper(
        "UPDATE audit.audit_logs SET data = '{}' WHERE sequence = 2",
        "UPDATE audit.head_receipt SET number = 0, digest = repeat('0', 64)",
    )
    await postgres_world.rehash(start=2)
    key = json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True))
    forger = HeadsFile(directory=postgres_world.file.parent, keys=HeadKeys.from_json(key))
    await usecases.sign_head(store=postgres_world.store, heads=forger, now=NOON)

    assert (await postgres_world.verify()).problems == ["head 1: its signature is not valid"]
