"""The capacity model: pure arithmetic on measured costs per payment. docs/scaling.md says what it leaves out."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import Annotated, Final

import msgspec

_SECONDS_PER_DAY: Final = 86_400
_MICROSECONDS: Final = 1_000_000
# One process writes the chain of hashes of a shard; it can be no faster than one core.
ONE_WRITER: Final = "audit"
POSTGRES: Final = "postgres"
# A consumer group shares a topic by partitions: as many again as needed, so that it can grow without moving keys.
_PARTITIONS_SPARE: Final = 2

Positive = Annotated[float, msgspec.Meta(gt=0)]


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What one payment costs. `cpu_us`: CPU microseconds by process name, on the machine that `measured_on` names."""

    measured_on: str
    measured_by: str
    payments_per_s: float
    cpu_us: dict[str, float]
    wal_bytes: float
    disk_bytes: float
    rows: float
    event_bytes: float


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be carried, and what the machines may be asked for.

    `utilization`: the share of a core that is planned for at the peak. `peak_factor`: the busiest second over the day's
    mean. `database_cores`, `wal_mb_per_s`: what one primary has. `copies_min`: of every service, for failures.
    """

    payments_per_s: Positive
    utilization: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.6
    peak_factor: Annotated[float, msgspec.Meta(ge=1)] = 3.0
    database_cores: Annotated[int, msgspec.Meta(ge=1)] = 16
    wal_mb_per_s: Positive = 200.0
    copies_min: Annotated[int, msgspec.Meta(ge=1)] = 2
    broker_mb_per_s: Positive = 50.0


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One service: processes in all, and the cores that they use at the peak."""

    name: str
    cpu_us: float
    cores: float
    processes: int


class Database(msgspec.Struct, frozen=True, kw_only=True):
    """PostgreSQL: `shards` primaries, each with a standby; figures are of all of them together."""

    shards: int
    because: str
    cores: float
    wal_mb_per_s: float
    rows_per_s: float
    disk_gb_per_day: float


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """Kafka: replicated three times."""

    messages_per_s: float
    mb_per_s: float
    brokers: int
    partitions: int


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a rate needs. `drivers`: shares of the CPU cost, largest first."""

    wanted: Wanted
    services: list[Service]
    database: Database
    events: Events
    cores: float
    drivers: list[tuple[str, float]]


def measured_costs() -> Costs:
    """The costs that this release was measured with (measured.json, written by `make plots`)."""
    return msgspec.json.decode(files(__package__).joinpath("measured.json").read_bytes(), type=Costs)


def capacity_for(wanted: Wanted, costs: Costs) -> Capacity:
    """Compute what `wanted` needs at its peak second."""
    services = [_service(name, cpu_us, wanted) for name, cpu_us in sorted(costs.cpu_us.items()) if name != POSTGRES]
    database = _database(wanted, costs)
    total = sum(costs.cpu_us.values())
    return Capacity(
        wanted=wanted,
        services=services,
        database=database,
        events=_events(wanted, costs),
        cores=round(sum(service.cores for service in services) + database.cores, 1),
        drivers=sorted(((name, us / total) for name, us in costs.cpu_us.items()), key=lambda one: -one[1]),
    )


def _cores(payments_per_s: float, cpu_us: float) -> float:
    return payments_per_s * cpu_us / _MICROSECONDS


def _service(name: str, cpu_us: float, wanted: Wanted) -> Service:
    cores = _cores(wanted.payments_per_s, cpu_us)
    return Service(
        name=name,
        cpu_us=round(cpu_us, 1),
        cores=round(cores, 2),
        processes=max(wanted.copies_min, math.ceil(cores / wanted.utilization)),
    )


def _database(wanted: Wanted, costs: Costs) -> Database:
    cores = _cores(wanted.payments_per_s, costs.cpu_us[POSTGRES])
    wal_mb_per_s = wanted.payments_per_s * costs.wal_bytes / 1e6
    writer_per_s = wanted.utilization * _MICROSECONDS / costs.cpu_us[ONE_WRITER]
    needs = {
        "its cores": cores / (wanted.database_cores * wanted.utilization),
        "its write-ahead log": wal_mb_per_s / wanted.wal_mb_per_s,
        "the audit chain's one writer": wanted.payments_per_s / writer_per_s,
    }
    because = max(needs, key=lambda name: needs[name])
    return Database(
        shards=max(1, math.ceil(needs[because])),
        because=because,
        cores=round(cores, 1),
        wal_mb_per_s=round(wal_mb_per_s, 1),
        rows_per_s=round(wanted.payments_per_s * costs.rows),
        disk_gb_per_day=round(_per_day(wanted) * costs.disk_bytes / 1e9, 1),
    )


def _events(wanted: Wanted, costs: Costs) -> Events:
    mb_per_s = wanted.payments_per_s * costs.event_bytes / 1e6
    slowest_us = max(costs.cpu_us[name] for name in ("notification", ONE_WRITER))
    consumers = math.ceil(_cores(wanted.payments_per_s, slowest_us) / wanted.utilization)
    return Events(
        messages_per_s=round(wanted.payments_per_s),
        mb_per_s=round(mb_per_s, 2),
        brokers=max(3, math.ceil(mb_per_s * 3 / wanted.broker_mb_per_s)),
        partitions=max(6, consumers * _PARTITIONS_SPARE),
    )


def _per_day(wanted: Wanted) -> float:
    return wanted.payments_per_s / wanted.peak_factor * _SECONDS_PER_DAY
