"""Metrics that are read from living objects when somebody asks for them, so that they cost nothing in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import prometheus_client
from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from payflow import __version__

T = TypeVar("T")

# Buckets of waiting times: from what a hop takes when idle to what nobody waits for any more.
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_build: Final = Gauge("payflow_build_info", "1, with the version that runs.", ["version"])
_build.labels(__version__).set(1)


class LiveGauge(Collector):
    """A gauge that asks objects for their number when it is read, and sums those with the same labels.

    Objects are held weakly: one that is gone is no longer counted.
    """

    def __init__(
        self, name: str, documentation: str, labelnames: Sequence[str] = (), *, registry: CollectorRegistry = REGISTRY
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._labelnames = tuple(labelnames)
        self._watched: WeakKeyDictionary[Any, list[tuple[tuple[str, ...], Callable[[Any], float]]]] = (
            WeakKeyDictionary()
        )
        registry.register(self)

    def watch(self, owner: T, read: Callable[[T], float], *labels: str) -> None:
        """Count what `read(owner)` says for as long as `owner` lives. `read` must not hold on to the owner."""
        if len(labels) != len(self._labelnames):
            raise ValueError(f"{self._name} has the labels {self._labelnames}")
        self._watched.setdefault(owner, []).append((labels, read))

    def describe(self) -> Iterable[Metric]:
        """The metric without its values, so that registering it asks nobody."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The metric as it stands."""
        sums: dict[tuple[str, ...], float] = {}
        for owner, readers in list(self._watched.items()):
            for labels, read in readers:
                sums[labels] = sums.get(labels, 0.0) + read(owner)
        family = self._family()
        for labels, value in sorted(sums.items()):
            family.add_metric(labels, value)
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._documentation, labels=self._labelnames)


def tidy_exposition() -> None:
    """Leave out the `_created` series that the library adds to each counter: half of all, and nobody asks for them."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
