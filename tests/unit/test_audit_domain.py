"""The rules of the audit chain: what a row's hash covers, how the chain grows, and what is signed."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.kernel.envelope import Event
from payflow.kernel.errors import Conflict
from payflow.services.audit.domain import (
    NO_HASH,
    WITHHELD,
    ChainEnd,
    Receipt,
    canonical_data,
    chain_events,
    hash_of,
    next_head,
    receipt_of,
)
from tests.builders import NOON, new_id
from tests.builders_audit_chain import a_chain, end_of, heads_of, problems_of
from tests.fakes_audit import an_event


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
