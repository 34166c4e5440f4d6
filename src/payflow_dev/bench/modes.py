"""What the further modes need of a bench run, and what they can ask of a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from payflow_dev.bench.drive import Driven
from payflow_dev.bench.population import Payment
from payflow_dev.bench.results import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a step differs from the usual one; None and 0 mean: not at all.

    `group` names it in the results, `stream` is what is paid, `offered_per_s` and `normal_ms` are for the loader "open"
    (see Job), `on_every` is called about every `every_s` while the load runs.
    """

    group: str = ""
    seconds: float | None = None
    loader: str | None = None
    stream: Sequence[Payment] | None = None
    offered_per_s: float = 0.0
    normal_ms: float = 0.0
    every_s: float = 0.0
    on_every: Callable[[], None] | None = None


class Bench(Protocol):
    """A run with its records made and warmed up."""

    def step(self, connections: int, plan: Plan) -> Step:
        """Drive and measure one step, and wait until what it left behind is done."""
        ...

    def load(self, connections: int, plan: Plan) -> Driven:
        """Only drive: nothing is measured beside it and nothing waited for."""
        ...

    def memory(self) -> dict[str, int]:
        """Memory of each process now, in KiB: proportional set size."""
        ...

    def heap(self) -> dict[str, int]:
        """What each process has written itself, in KiB, however many still share it."""
        ...

    def say(self, what: str, seconds: float) -> None:
        """Tell whoever looks on what comes next, and for how long."""
        ...
