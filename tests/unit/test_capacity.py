"""The capacity model: more payments need more of everything, and what decides is named."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.run.capacity import Costs, Wanted, capacity_for, measured_costs

COSTS = Costs(
    measured_on="a machine",
    measured_by="a test",
    payments_per_s=2_000.0,
    cpu_us={"gateway": 100.0, "confirm": 100.0, "notification": 30.0, "audit": 30.0, "postgres": 200.0},
    wal_bytes=6_000,
    disk_bytes=4_000,
    rows=12.0,
    event_bytes=500,
)


def test_a_service_has_as_many_processes_as_its_cores_at_the_planned_utilization_need() -> None:
    found = capacity_for(Wanted(payments_per_s=30_000, utilization=0.5), COSTS)

    gateway = next(service for service in found.services if service.name == "gateway")
    assert (gateway.cores, gateway.processes) == (3.0, 6)


def test_every_service_has_its_copies_however_little_there_is_to_do() -> None:
    found = capacity_for(Wanted(payments_per_s=1, copies_min=3), COSTS)

    assert {service.processes for service in found.services} == {3}
    assert (found.database.shards, found.events.brokers) == (1, 3)


@pytest.mark.parametrize(
    ("wanted", "because"),
    [
        (Wanted(payments_per_s=100_000, database_cores=4, wal_mb_per_s=10_000), "its cores"),
        (Wanted(payments_per_s=100_000, database_cores=1_000, wal_mb_per_s=100), "its write-ahead log"),
        (
            Wanted(payments_per_s=100_000, database_cores=1_000, wal_mb_per_s=10_000),
            "the audit chain's one writer",
        ),
    ],
)
def test_what_a_primary_runs_out_of_first_decides_how_many_there_are(wanted: Wanted, because: str) -> None:
    database = capacity_for(wanted, COSTS).database

    assert database.because == because
    assert database.shards > 1


def test_a_day_is_the_mean_of_its_busiest_second() -> None:
    found = capacity_for(Wanted(payments_per_s=1_000, peak_factor=2), COSTS)

    assert found.database.disk_gb_per_day == pytest.approx(500 * 86_400 * 4_000 / 1e9, abs=0.1)


def test_the_cost_drivers_are_the_whole_largest_first() -> None:
    drivers = capacity_for(Wanted(payments_per_s=10), COSTS).drivers

    assert drivers[0][0] == "postgres"
    assert sum(share for _, share in drivers) == pytest.approx(1)
    assert drivers == sorted(drivers, key=lambda one: -one[1])


@given(st.floats(1, 200_000), st.floats(1, 10))
def test_more_payments_never_need_less(payments_per_s: float, times: float) -> None:
    less = capacity_for(Wanted(payments_per_s=payments_per_s), COSTS)
    more = capacity_for(Wanted(payments_per_s=payments_per_s * times), COSTS)

    assert more.cores >= less.cores
    assert more.database.shards >= less.database.shards
    assert all(b.processes >= a.processes for a, b in zip(less.services, more.services, strict=True))


def test_this_release_knows_what_its_payments_cost() -> None:
    costs = measured_costs()

    assert {"gateway", "confirm", "account", "risk", "audit", "notification", "postgres"} <= costs.cpu_us.keys()
    assert min(costs.wal_bytes, costs.disk_bytes, costs.rows, costs.event_bytes, *costs.cpu_us.values()) > 0


def test_an_impossible_wish_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"payments_per_s": 0}, Wanted)
