"""What the verification of the audit chain finds: rows and heads that were changed, taken out or put in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.services.audit.domain import (
    PROBLEMS_MAX,
    ChainEnd,
    Head,
    HeadRead,
    Receipt,
    Record,
    Verification,
    receipt_of,
)
from tests.builders import NOON, new_id
from tests.builders_audit_chain import a_chain, end_of, heads_of, problems_of, rehashed, relinked

Edit = Callable[[list[Record]], list[Record]]
HeadEdit = Callable[[list[Head]], list[Head]]


def test_an_untouched_chain_has_no_problem() -> None:
    records = a_chain(6)
    heads = heads_of(records, 2, 6)

    assert problems_of(records, heads, end=end_of(records), receipt=receipt_of(heads[-1])) == []


def _swapped(records: list[Record]) -> list[Record]:
    third, fourth = records[2], records[3]
    records[2] = msgspec.structs.replace(fourth, sequence=3)
    records[3] = msgspec.structs.replace(third, sequence=4)
    return records


TAMPERED_ROWS: list[tuple[str, Edit, list[str]]] = [
    (
        "an edited row",
        lambda rows: [*rows[:2], msgspec.structs.replace(rows[2], data='{"amount_minor":1}'), *rows[3:]],
        ["row 3: its contents do not match its hash"],
    ),
    (
        "a row replaced together with its hash",
        lambda rows: [*rows[:2], rehashed(rows[2], data="{}"), *rows[3:]],
        ["row 4: it does not continue row 3"],
    ),
    (
        "a signed row replaced together with every hash after it",
        lambda rows: relinked([*rows[:2], rehashed(rows[2], data="{}"), *rows[3:]], start=4),
        [
            "row 4: head 1 signed another hash",
            "row 6: head 2 signed another hash",
            "row 6: it is not the row that was written last (row 6)",
        ],
    ),
    ("a deleted row", lambda rows: [*rows[:2], *rows[3:]], ["row 3 is missing"]),
    ("deleted rows at the beginning", lambda rows: rows[2:], ["rows 1 to 2 are missing"]),
    (
        "a deleted row, those after it renumbered and hashed anew",
        lambda rows: relinked(
            [*rows[:2], *(msgspec.structs.replace(row, sequence=row.sequence - 1) for row in rows[3:])], start=3
        ),
        ["row 4: head 1 signed another hash", "head 2 signed row 6, but the table ends at row 5", "row 6 is missing"],
    ),
    (
        "a cut tail",
        lambda rows: rows[:4],
        ["head 2 signed row 6, but the table ends at row 4", "rows 5 to 6 are missing"],
    ),
    (
        "an empty table",
        lambda rows: [],
        [
            "head 1 signed row 4, but the table ends at row 0",
            "head 2 signed row 6, but the table ends at row 0",
            "rows 1 to 6 are missing",
        ],
    ),
    (
        "two rows that changed places",
        _swapped,
        [
            "row 3: it does not continue row 2",
            "row 3: its contents do not match its hash",
            "row 4: it does not continue row 3",
            "row 4: its contents do not match its hash",
            "row 4: head 1 signed another hash",
            "row 5: it does not continue row 4",
        ],
    ),
    (
        "a row put in at the end",
        lambda rows: [*rows, rehashed(rows[-1], sequence=7, previous_hash=rows[-1].hash, event_id=new_id())],
        ["row 7: it is not the row that was written last (row 6)"],
    ),
]


@pytest.mark.parametrize(("edit", "expected"), [case[1:] for case in TAMPERED_ROWS], ids=[c[0] for c in TAMPERED_ROWS])
def test_tampering_with_rows_is_found(edit: Edit, expected: list[str]) -> None:
    records = a_chain(6)
    heads = heads_of(records, 4, 6)
    end = end_of(records)

    problems = problems_of(edit(list(records)), heads, end=end, receipt=receipt_of(heads[-1]))

    assert problems == expected


def test_a_tail_cut_together_with_the_written_end_is_found_by_the_heads() -> None:
    records = a_chain(6)
    heads = heads_of(records, 4, 6)

    problems = problems_of(records[:5], heads, end=end_of(records[:5]), receipt=receipt_of(heads[-1]))

    assert problems == ["head 2 signed row 6, but the table ends at row 5"]


TAMPERED_HEADS: list[tuple[str, HeadEdit, list[str]]] = [
    ("the first head taken out", lambda heads: heads[1:], ["head 1 is missing from the heads file"]),
    (
        "a head taken out of the middle",
        lambda heads: [heads[0], heads[2]],
        ["head 2 is missing from the heads file"],
    ),
    ("the last head cut off", lambda heads: heads[:2], ["the heads file ends at head 2, but 3 heads were signed"]),
    ("an empty file", lambda heads: [], ["the heads file ends at head 0, but 3 heads were signed"]),
    (
        "a head that names another hash",
        lambda heads: [heads[0], msgspec.structs.replace(heads[1], hash="00" * 32), heads[2]],
        ["head 3 does not follow the head before it", "row 4: head 2 signed another hash"],
    ),
    (
        "a head put in twice",
        lambda heads: [heads[0], heads[0], heads[1], heads[2]],
        ["head 1 does not follow the head before it"],
    ),
]


@pytest.mark.parametrize(
    ("edit", "expected"), [case[1:] for case in TAMPERED_HEADS], ids=[case[0] for case in TAMPERED_HEADS]
)
def test_tampering_with_heads_is_found(edit: HeadEdit, expected: list[str]) -> None:
    records = a_chain(6)
    heads = heads_of(records, 2, 4, 6)

    problems = problems_of(records, edit(list(heads)), end=end_of(records), receipt=receipt_of(heads[-1]))

    assert problems == expected


def test_a_head_with_a_forged_signature_is_found_and_not_believed() -> None:
    records = a_chain(6)
    heads = heads_of(records, 2, 6)

    problems = problems_of(records, heads, end=end_of(records), receipt=receipt_of(heads[-1]), forged=[2])

    assert problems == ["head 2: its signature is not valid"]


def test_an_unreadable_line_is_told_by_its_number() -> None:
    records = a_chain(6)
    heads = heads_of(records, 2, 4, 6)
    verification = Verification(before=ChainEnd())

    verification.check_heads([HeadRead(1, heads[0], True), HeadRead(2, None), HeadRead(3, heads[2], True)])
    verification.check_rows(records)

    assert verification.finish(end=end_of(records), receipt=receipt_of(heads[2]), now=NOON) == [
        "line 2 of the heads file cannot be read"
    ]


@pytest.mark.parametrize(
    ("age", "expected"),
    [
        (timedelta(seconds=60), []),
        (timedelta(seconds=61), ["rows 5 to 6: no head was signed"]),
    ],
)
def test_rows_that_stay_without_a_head_are_a_problem_after_a_minute(age: timedelta, expected: list[str]) -> None:
    records = a_chain(6)
    heads = heads_of(records, 4)

    problems = problems_of(records, heads, end=end_of(records), receipt=receipt_of(heads[0]), now=NOON + age)

    assert problems == expected


def test_a_ruined_table_is_told_in_a_bounded_number_of_lines() -> None:
    records = [msgspec.structs.replace(record, data="{}") for record in a_chain(PROBLEMS_MAX + 20)]

    problems = problems_of(records, [], end=end_of(records), receipt=Receipt())

    assert len(problems) == PROBLEMS_MAX + 1
    assert problems[-1] == "and 20 more"


@given(st.integers(1, 12), st.integers(0, 11), st.sampled_from(["type", "subject", "data"]))
def test_any_edit_of_any_row_is_found(length: int, index: int, column: str) -> None:
    records = a_chain(length)
    index %= length
    heads = heads_of(records, length)
    edited = list(records)
    edited[index] = msgspec.structs.replace(edited[index], **{column: "edited"})

    found = problems_of(edited, heads, end=end_of(records), receipt=receipt_of(heads[0]))
    rewritten = relinked(edited, start=index + 1)
    found_after_rewriting = problems_of(rewritten, heads, end=end_of(rewritten), receipt=receipt_of(heads[0]))

    assert found
    assert found_after_rewriting
