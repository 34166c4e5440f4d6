"""The rules of the audit chain: what a row's hash covers, how the chain grows, and what verification finds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.kernel.envelope import Event
from payflow.kernel.errors import Conflict
from payflow.services.audit.domain import (
    NO_HASH,
    PROBLEMS_MAX,
    WITHHELD,
    ChainEnd,
    Head,
    HeadRead,
    Receipt,
    Record,
    Verification,
    canonical_data,
    chain_events,
    hash_of,
    next_head,
    receipt_of,
)
from tests.builders import NOON, new_id
from tests.fakes_audit import an_event

Edit = Callable[[list[Record]], list[Record]]
HeadEdit = Callable[[list[Head]], list[Head]]


def a_chain(length: int = 6, *, recorded_at: datetime = NOON) -> list[Record]:
    events = [an_event(subject=f"payment-{n}", version=n) for n in range(1, length + 1)]
    return chain_events(events=events, known=(), end=ChainEnd(), recorded_at=recorded_at)


def heads_of(records: Sequence[Record], *sequences: int) -> list[Head]:
    """A signed head for each of these rows."""
    heads: list[Head] = []
    receipt = Receipt()
    for sequence in sequences:
        record = records[sequence - 1]
        end = ChainEnd(record.sequence, record.hash)
        head = next_head(end=end, last=heads[-1] if heads else None, receipt=receipt, now=NOON)
        assert head is not None
        heads.append(head)
        receipt = receipt_of(head)
    return heads


def problems_of(
    records: Sequence[Record],
    heads: Sequence[Head],
    *,
    end: ChainEnd,
    receipt: Receipt,
    forged: Sequence[int] = (),
    now: datetime = NOON,
) -> list[str]:
    verification = Verification(before=ChainEnd())
    reads = [HeadRead(line, head, head.number not in forged) for line, head in enumerate(heads, start=1)]
    verification.check_heads(reads)
    verification.check_rows(records)
    return verification.finish(end=end, receipt=receipt, now=now)


def end_of(records: Sequence[Record]) -> ChainEnd:
    return ChainEnd(records[-1].sequence, records[-1].hash)


def rehashed(record: Record, **changes: Any) -> Record:
    """The row with other contents and the hash that belongs to them."""
    changed = msgspec.structs.replace(record, **changes)
    return msgspec.structs.replace(changed, hash=hash_of(changed))


def relinked(records: Sequence[Record], *, start: int) -> list[Record]:
    """All hashes from row `start` on computed anew, as somebody with the code and all rights would."""
    result = list(records)
    for index in range(start - 1, len(result)):
        previous = result[index - 1].hash if index else NO_HASH
        result[index] = rehashed(result[index], previous_hash=previous)
    return result


def test_rows_are_numbered_without_gaps_and_each_names_its_predecessors_hash() -> None:
    records = a_chain(5)

    assert [record.sequence for record in records] == [1, 2, 3, 4, 5]
    assert [record.previous_hash for record in records] == [NO_HASH, *(record.hash for record in records[:-1])]
    assert all(record.hash == hash_of(record) for record in records)


def test_the_hash_can_be_recomputed_with_nothing_but_a_json_library() -> None:
    data = {"name": 'é "quoted" \\ / \x7f \t', "at": "2026-03-02T12:00:00Z", "n": [1, 2.5, None, True]}
    (record,) = chain_events(events=[an_event(data=data)], known=(), end=ChainEnd(), recorded_at=NOON)

    contents = [
        1,
        str(record.event_id),
        record.type,
        record.source,
        record.subject,
        record.version,
        "2026-03-02T12:00:00.000000+00:00",
        "2026-03-02T12:00:00.000000+00:00",
        record.data,
        record.traceparent,
    ]
    text = json.dumps(contents, ensure_ascii=False, separators=(",", ":"))

    assert hashlib.sha256(bytes(32) + text.encode()).digest() == record.hash
    assert json.loads(record.data) == data


def test_an_event_that_comes_twice_makes_one_row_and_no_gap() -> None:
    first, second, third = an_event(), an_event(), an_event()

    records = chain_events(
        events=[first, second, second, third], known={first.id}, end=ChainEnd(7, b"x" * 32), recorded_at=NOON
    )

    assert [(record.sequence, record.event_id) for record in records] == [(8, second.id), (9, third.id)]


@pytest.mark.parametrize(
    "changes",
    [
        {"sequence": 2},
        {"event_id": new_id()},
        {"type": "payment.rejected"},
        {"source": "account"},
        {"subject": "another"},
        {"version": 9},
        {"occurred_at": NOON + timedelta(microseconds=1)},
        {"recorded_at": NOON + timedelta(microseconds=1)},
        {"data": "{}"},
        {"traceparent": ""},
        {"previous_hash": b"y" * 32},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_column_is_covered_by_the_hash(changes: dict[str, Any]) -> None:
    (record,) = a_chain(1)

    changed = msgspec.structs.replace(record, **changes)

    assert hash_of(changed) != record.hash


def test_an_instant_has_one_hash_in_every_time_zone() -> None:
    (record,) = a_chain(1)
    elsewhere = NOON.astimezone(timezone(timedelta(hours=9)))

    moved = msgspec.structs.replace(record, occurred_at=elsewhere, recorded_at=elsewhere)

    assert hash_of(moved) == record.hash


@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**63), 2**63) | st.text(max_size=8) | st.none(), max_size=6))
def test_the_order_of_names_does_not_change_the_stored_text(data: dict[str, Any]) -> None:
    backwards = dict(reversed(list(data.items())))

    assert canonical_data(data) == canonical_data(backwards)
    assert "\x00" not in canonical_data(data)
    assert "\\u0000" not in canonical_data(data)


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJjdXN0XzAwMSJ9.c2lnbmF0dXJl",
        "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$hash",
        "-----BEGIN EC PRIVATE KEY-----\nMHcC",
    ],
)
def test_what_looks_like_a_secret_is_withheld_wherever_it_stands(secret: str) -> None:
    data = {"actor": "demo", "detail": secret, "more": [{"deep": secret}]}

    stored = json.loads(canonical_data(data))

    assert stored == {"actor": "demo", "detail": WITHHELD, "more": [{"deep": WITHHELD}]}


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


def test_nothing_is_signed_while_there_is_no_row() -> None:
    assert next_head(end=ChainEnd(), last=None, receipt=Receipt(), now=NOON) is None


def test_the_same_end_is_signed_once() -> None:
    records = a_chain(3)
    (head,) = heads_of(records, 3)

    assert next_head(end=end_of(records), last=head, receipt=receipt_of(head), now=NOON) is None
    assert next_head(end=end_of(records), last=head, receipt=Receipt(), now=NOON) is None


def test_a_chain_shorter_than_its_last_head_is_not_signed() -> None:
    records = a_chain(3)
    (head,) = heads_of(records, 3)

    with pytest.raises(Conflict, match="ends at row 2, but a head of row 3 was signed"):
        next_head(end=end_of(records[:2]), last=head, receipt=receipt_of(head), now=NOON)


def test_after_heads_were_lost_the_next_one_leaves_the_hole_visible() -> None:
    records = a_chain(6)
    heads = heads_of(records, 2, 4, 6)

    head = next_head(end=end_of(records), last=heads[0], receipt=receipt_of(heads[2]), now=NOON)

    assert head is not None
    assert (head.number, head.previous) == (4, heads[2].digest())
    problems = problems_of(records, [heads[0], head], end=end_of(records), receipt=receipt_of(head))
    assert problems == ["heads 2 to 3 are missing from the heads file"]


def test_an_events_naive_instant_is_taken_as_utc() -> None:
    naive = an_event(time=NOON.replace(tzinfo=None))

    (record,) = chain_events(events=[naive], known=(), end=ChainEnd(), recorded_at=NOON)

    assert record.occurred_at == NOON


def test_text_that_postgresql_cannot_hold_does_not_keep_an_event_out() -> None:
    event: Event = an_event(subject="a\x00b", data={"detail": "c\x00d"})

    (record,) = chain_events(events=[event], known=(), end=ChainEnd(), recorded_at=NOON)

    assert (record.subject, record.data) == ("a\ufffdb", '{"detail":"c\ufffdd"}')
