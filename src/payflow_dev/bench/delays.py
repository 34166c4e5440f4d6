"""How long an event takes from when it happened until a consumer's effect is committed, with little and much to do."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import aiohttp
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from payflow_dev.bench.goals import Goal
from payflow_dev.bench.modes import Bench, Plan
from payflow_dev.bench.results import Step
from payflow_dev.bench.target import Target

# Few enough that no event meets another one.
IDLE_PER_S: Final = 8.0
# Of fewer events than a few hundred, the 99th percentile is the one slowest.
IDLE_S_MIN: Final = 40.0
IDLE_MS_MAX: Final = 50.0
HALF_MS_MAX: Final = 250.0
IDLE: Final = "idle"
HALF: Final = "half the best rate"
EVENTS_LOADS: Final = 2
_CONNECTIONS: Final = {IDLE: 4, HALF: 256}
_METRIC: Final = "payflow_event_delay_seconds"
_TIMEOUT_S: Final = 10.0

Buckets = dict[str, dict[float, float]]


class Delay(msgspec.Struct, frozen=True, kw_only=True):
    """The events of one consumer under one load; quantiles are interpolated in the histogram's buckets."""

    log: str
    load: str
    payments_per_s: float
    consumer: str
    events: int
    p50_ms: float
    p99_ms: float


def measure_delays(
    bench: Bench, target: Target, *, log: str, best_per_s: float, seconds: float
) -> tuple[list[Step], list[Delay]]:
    """Pay a little, then at half the best rate, by the clock; the steps, and what the consumers' histograms say."""
    steps, delays = list[Step](), list[Delay]()
    for load, per_s in ((IDLE, IDLE_PER_S), (HALF, best_per_s / 2)):
        plan = Plan(
            group=f"{log}, {load}",
            loader="open",
            offered_per_s=per_s,
            seconds=max(seconds, IDLE_S_MIN) if load == IDLE else seconds,
            normal_ms=_TIMEOUT_S * 1e3,
        )
        before = _read(target)
        step = bench.step(_CONNECTIONS[load], plan)
        after = _read(target)
        steps.append(step)
        for consumer, buckets in after.items():
            counts = {bound: count - before.get(consumer, {}).get(bound, 0.0) for bound, count in buckets.items()}
            events = int(max(counts.values(), default=0))
            if events:
                delays.append(
                    Delay(
                        log=log,
                        load=load,
                        payments_per_s=step.payments_per_s,
                        consumer=consumer,
                        events=events,
                        p50_ms=round(quantile(counts, 0.5) * 1e3, 1),
                        p99_ms=round(quantile(counts, 0.99) * 1e3, 1),
                    )
                )
    return steps, delays


def quantile(cumulative: Mapping[float, float], share: float) -> float:
    """The value (seconds) below which this share of a histogram lies, by the counts up to each upper bound.

    Interpolated within its bucket; the last finite bound where it lies above that.
    """
    total = max(cumulative.values(), default=0.0)
    below, lower = 0.0, 0.0
    for bound, count in sorted(cumulative.items()):
        if count >= share * total:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (share * total - below) / (count - below) if count > below else bound
        below, lower = count, bound
    return lower


def delay_goals(delays: Sequence[Delay]) -> list[Goal]:
    """One for each log and load: its slowest consumer."""
    goals = []
    for log, load in dict.fromkeys((each.log, each.load) for each in delays):
        slowest = max((each for each in delays if (each.log, each.load) == (log, load)), key=lambda each: each.p99_ms)
        allowed_ms = IDLE_MS_MAX if load == IDLE else HALF_MS_MAX
        goals.append(
            Goal(
                name=f"events end to end through {log}, {load}",
                wanted=f"p99 <= {allowed_ms:.0f} ms",
                measured=f"{slowest.p99_ms:.0f} ms ({slowest.consumer}, at {slowest.payments_per_s:,.0f} payments/s)",
                is_met=slowest.p99_ms <= allowed_ms,
            )
        )
    return goals


def _read(target: Target) -> Buckets:
    """The cumulative counts of every consumer's histogram, all processes together."""
    found: Buckets = defaultdict(lambda: defaultdict(float))
    for text in asyncio.run(_metrics_of(list(_services(target)))):
        for family in text_string_to_metric_families(text):
            if family.name == _METRIC:
                for sample in family.samples:
                    if sample.name.endswith("_bucket"):
                        found[sample.labels["consumer"]][float(sample.labels["le"])] += sample.value
    return found


async def _metrics_of(urls: Sequence[str]) -> list[str]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)) as session:

        async def one(url: str) -> str:
            async with session.get(f"{url}/metrics") as answer:
                return await answer.text()

        return await asyncio.gather(*map(one, urls))


def _services(target: Target) -> Iterator[str]:
    status = target.refreshed()
    for process in status.processes if status else ():
        if process.kind == "service" and process.url.startswith("http"):
            yield process.url
