"""What a bench report says: percentiles, ratios, pgbench's own figures, CPU between two readings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow_dev.bench.cpu import spent
from payflow_dev.bench.pgbench import environment_of, in_database, parse
from payflow_dev.bench.stats import latencies_of, percentile, ratio_to_neighbours

PGBENCH_REPORT = """\
pgbench (18.1)
starting vacuum...end.
transaction type: <builtin: TPC-B (sort of)>
scaling factor: 20
query mode: prepared
number of clients: 16
number of threads: 2
maximum number of tries: 1
duration: 10 s
number of transactions actually processed: 25123
number of failed transactions: 0 (0.000%)
latency average = 6.370 ms
initial connection time = 21.307 ms
tps = 2511.832193 (without initial connection time)
"""


@pytest.mark.parametrize(("percent", "expected"), [(1, 1), (50, 50), (95, 95), (99, 99), (99.5, 100), (100, 100)])
def test_a_percentile_is_the_nearest_rank_of_a_hundred_values(percent: float, expected: int) -> None:
    assert percentile(range(1, 101), percent) == expected


@pytest.mark.parametrize(("values", "expected"), [([], 0), ([7], 7), ([7, 9], 7), ([1, 2, 3], 2)])
def test_the_median_of_few_values_is_one_of_them(values: list[int], expected: int) -> None:
    assert percentile(values, 50) == expected


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0.1, 100))
def test_at_least_the_percentage_of_all_values_does_not_exceed_the_percentile(
    values: list[int], percent: float
) -> None:
    values.sort()

    found = percentile(values, percent)

    assert sum(value <= found for value in values) >= len(values) * percent / 100
    assert found in values


def test_latencies_are_told_in_milliseconds_whatever_their_order() -> None:
    latencies = latencies_of([3_000_000, 1_000_000, 2_000_000])

    assert (latencies.p50_ms, latencies.p99_ms, latencies.max_ms) == (2.0, 3.0, 3.0)


def test_a_ratio_is_taken_to_the_mean_of_the_neighbours_with_both_as_its_spread() -> None:
    ratio = ratio_to_neighbours(payments_per_s=1200, neighbours_tps=[2000, 3000])

    assert ratio is not None
    assert ratio.mean == pytest.approx(0.48)
    assert (ratio.low, ratio.high) == pytest.approx((0.4, 0.6))


def test_without_a_neighbour_there_is_no_ratio() -> None:
    assert ratio_to_neighbours(payments_per_s=1200, neighbours_tps=[]) is None
    assert ratio_to_neighbours(payments_per_s=1200, neighbours_tps=[0.0]) is None


def test_pgbench_s_report_is_read() -> None:
    run = parse(PGBENCH_REPORT, clients=16)

    assert (run.clients, run.tps, run.latency_ms, run.transactions, run.failed) == (16, 2511.832193, 6.37, 25123, 0)


def test_failed_transactions_of_pgbench_are_seen() -> None:
    run = parse(PGBENCH_REPORT.replace("transactions: 0 (0.000%)", "transactions: 12 (0.048%)"), clients=16)

    assert run.failed == 12


def test_a_pgbench_that_broke_off_is_no_measurement() -> None:
    with pytest.raises(ValueError, match="no figures"):
        parse('pgbench: error: connection to server on socket "x" failed', clients=8)


def test_a_database_address_becomes_libpq_s_environment() -> None:
    url = "postgresql://postgres:p%40ss@/payflow?host=%2Frun%2Fsockets"

    environ = environment_of(in_database(url, "other"))

    assert environ == {"PGHOST": "/run/sockets", "PGUSER": "postgres", "PGPASSWORD": "p@ss"}
    assert in_database(url, "other") == "postgresql://postgres:p%40ss@/other?host=%2Frun%2Fsockets"


def test_a_process_started_again_counts_from_its_start() -> None:
    before = {"confirm": 10.0, "risk": 4.0}
    after = {"confirm": 12.5, "risk": 0.5, "otp": 0.1}

    assert spent(before, after) == {"confirm": 2.5, "risk": 0.5, "otp": 0.1}
