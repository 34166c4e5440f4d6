"""Identifiers: sorted by time, never twice, whichever thread or forked process asks."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

from payflow.platform.ids import UuidV7, new_span_id, new_trace_id

MANY = 20_000


def test_a_uuid_says_its_version_and_its_time() -> None:
    before = time.time_ns() // 1_000_000
    made = UuidV7().new()

    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_later_uuids_sort_after_earlier_ones() -> None:
    first = UuidV7().new()
    time.sleep(0.002)

    assert UuidV7().new() > first


def test_within_a_millisecond_a_later_uuid_sorts_after_an_earlier_one_too() -> None:
    uuids = UuidV7()
    for _ in range(1000):
        first = uuids.new()
        ends_at = time.time_ns() + 1000  # four times the finest step that an id can tell
        while time.time_ns() < ends_at:
            pass
        assert uuids.new() > first


def test_threads_never_get_the_same_one() -> None:
    with ThreadPoolExecutor(8) as threads:
        made = threads.map(lambda _: [new_span_id() for _ in range(MANY // 8)], range(8))
        distinct = {one for some in made for one in some}

    assert len(distinct) == MANY


def test_a_forked_process_makes_others_than_its_parent() -> None:
    new_trace_id(), new_span_id(), UuidV7().new()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, f"{new_trace_id()} {new_span_id()} {UuidV7().new().int & 0xFFFFFFFFFFFF}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        theirs = told.read().decode().split()
    os.waitpid(child, 0)
    ours = [new_trace_id(), new_span_id(), str(UuidV7().new().int & 0xFFFFFFFFFFFF)]

    assert len(theirs) == 3
    assert not set(theirs) & set(ours)
