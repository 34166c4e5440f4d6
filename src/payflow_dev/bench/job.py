"""What a loader is told and what it tells: files, since it runs in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from payflow_dev.bench.stats import NO_LATENCIES, Latencies
from payflow_dev.bench.wire import Outcome, Template

S = TypeVar("S", bound=msgspec.Struct)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One step. Payment `number` is rendered from template `number % len(templates)`; the first one is `first`.

    `offered_per_s`: payments sent by the clock, whatever becomes of earlier ones, over at most `connections`; 0 for a
    closed loop. `normal_ms` goes with it: the time of a single payment that counts as usual when the load has ended.
    """

    host: str
    port: int
    connections: int
    seconds: float
    run_id: str
    first: int
    heads: list[bytes]
    templates: list[Template]
    offered_per_s: float = 0.0
    normal_ms: float = 0.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What a step came to.

    `outcomes` has one byte (an Outcome) for each payment from the job's `first` on that may have been sent.
    `acknowledged` and `pending` (a part of it) count answers within `window_s`, and `latencies` is theirs; answers that
    came after it, while the last requests were awaited, are in `outcomes` only. `cpu_s` is the loader's own.
    `refused` counts answers that turned the caller away (429, 503). With payments by the clock, `sent` of them went out
    in time, `unsent` found every connection taken, and `recovered_after_s` after the end single payments took their
    usual time again (None: not while they were watched).
    """

    outcomes: bytes
    acknowledged: int
    pending: int
    window_s: float
    latencies: Latencies
    errors: dict[str, int]
    cpu_s: float
    refused: int = 0
    refused_latencies: Latencies = NO_LATENCIES
    sent: int = 0
    unsent: int = 0
    recovered_after_s: float | None = None

    @property
    def payments_per_s(self) -> float:
        """Acknowledged payments per second."""
        return self.acknowledged / self.window_s if self.window_s else 0.0

    @property
    def acknowledged_in_all(self) -> int:
        """Acknowledged payments, those of the last moments included."""
        return self.outcomes.count(Outcome.SUCCESS) + self.outcomes.count(Outcome.PENDING)


def write_file(path: Path, value: msgspec.Struct) -> None:
    """Write a message where only this user can read it: a job carries access tokens."""
    path.touch(mode=0o600)
    path.write_bytes(msgspec.msgpack.encode(value))


def read_file(path: Path, kind: type[S]) -> S:
    """Read what `write_file` wrote."""
    return msgspec.msgpack.decode(path.read_bytes(), type=kind)
