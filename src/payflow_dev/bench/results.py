"""A run's figures as data: what `--json` writes and the tables show."""

from __future__ import annotations

import msgspec

from payflow_dev.bench.database import DatabaseFigures
from payflow_dev.bench.stats import Latencies, Ratio


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds of one step.

    `by_process`: each process of the instance while the load ran. `afterwards_s`: what they took together until the
    events of the step were worked off, `settled_after_s` later (None: not within the time given). `loader_s`: the
    load generator. `others_s`: everything else on the machine; `stolen_s`: taken away by the machine's host.
    """

    by_process: dict[str, float]
    afterwards_s: float
    settled_after_s: float | None
    loader_s: float
    others_s: float
    stolen_s: float


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One load step. `payments_per_s` counts acknowledged payments, of which `pending` were answered with 202.

    `cpu_us_per_payment` is all of the instance's CPU, the work afterwards included and the loader left out.
    `restarts` counts processes of the instance that died meanwhile. `history_entries`: how many journal entries there
    were before, where the ledger was filled with some. `group` tells steps of the further modes apart.
    `refused` (429, 503), `sent`, `unsent` and `recovered_after_s` are as in Load. `database`: what it cost there.
    """

    connections: int
    history_entries: int = 0
    seconds: float
    payments_per_s: float
    acknowledged: int
    pending: int
    latencies: Latencies
    errors: dict[str, int]
    neighbours_tps: list[float]
    ratio: Ratio | None
    cpu: Cpu | None
    cpu_us_per_payment: float
    loader_us_per_request: float
    restarts: int
    group: str = ""
    refused: int = 0
    refused_latencies: Latencies | None = None
    sent: int = 0
    unsent: int = 0
    recovered_after_s: float | None = None
    database: DatabaseFigures | None = None

    @property
    def error_count(self) -> int:
        """Requests that were not acknowledged."""
        return sum(self.errors.values())


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the run was asked to do."""

    seconds: float
    connections: tuple[int, ...]
    history: tuple[int, ...] = ()
    customers: int
    accounts: int
    is_hot: bool
    inter_bank_share: float
    seed: int
    loader: str
    run_id: str
    mode: str = "steps"
