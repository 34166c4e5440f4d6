"""What a history lacks: whatever was promised before the run, or counted beside it, and is not there is unknown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from payflow_dev.chaos.history import Counts, Fault, FinalEnd, Promise


def what_is_missing(
    *, promises: Sequence[Promise], ends: Sequence[FinalEnd], heard: Counts, faults: Sequence[Fault], acknowledged: int
) -> Iterator[str]:
    """Words for each thing that a whole history has and this one has not. `heard`: how much of each kind it has."""
    if not promises:
        yield "nothing was promised: whether all was done is not known"
    if not ends:
        yield "the final read is not complete"
    for promise in promises:
        yield from _not_done(promise, faults, acknowledged)
    for end in ends:
        yield from _not_read(end.counts, heard)


def _not_done(promise: Promise, faults: Sequence[Fault], acknowledged: int) -> Iterator[str]:
    hits = [fault for fault in faults if fault.is_hit]
    done = (
        ("faults", promise.faults, len(faults)),
        ("kills", promise.kills, sum(fault.is_kill for fault in hits)),
        ("acknowledged payments", promise.payments, acknowledged),
    )
    for what, promised, found in done:
        if found < promised:
            yield f"of {promised} {what} that were promised there are {found}"
    places = {fault.place for fault in hits}
    for edge in promise.edges:
        if edge not in places:
            yield f"no promised fault has struck at {edge}"


def _not_read(counts: Counts | None, heard: Counts) -> Iterator[str]:
    if counts is None:
        yield "how much there was to read at the end is not told"
        return
    expected, found = msgspec.structs.asdict(counts), msgspec.structs.asdict(heard)
    for what, count in expected.items():
        if found[what] != count:
            yield f"of {count} records of {what} at the end the history has {found[what]}"
