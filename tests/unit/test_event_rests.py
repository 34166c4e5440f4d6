"""A reader of the event log rests by the rate of events, so that a lone one does not wait and many share a reading."""

from __future__ import annotations

import pytest

from payflow.platform.eventlog.rests import REST_MAX_S, REST_MIN_S, Rests


class Seconds:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def rest_at(per_s: float, *, for_s: float = 5.0) -> float:
    """The rest that a reader comes to which reads whatever came since, after each rest."""
    clock = Seconds()
    rests, rest, ends_at = Rests(clock), REST_MIN_S, clock.now + for_s
    while clock.now < ends_at:
        clock.now += rest
        rest = rests.after(round(per_s * rest))
    return rest


def test_after_a_lone_event_there_is_hardly_any_rest() -> None:
    assert Rests(Seconds()).after(1) == REST_MIN_S


def test_after_nothing_there_is_the_least_rest() -> None:
    assert Rests(Seconds()).after(0) == REST_MIN_S


def test_a_reader_that_nobody_waits_for_rests_at_least_as_long_as_it_may() -> None:
    rests = Rests(Seconds(), shortest_s=0.07)

    assert rests.now() == 0.07
    assert rests.after(0) == 0.07
    assert rests.after(1000) == REST_MAX_S


@pytest.mark.parametrize("per_s", [600, 1000, 5000])
def test_under_load_the_rest_is_the_longest(per_s: float) -> None:
    assert rest_at(per_s) == REST_MAX_S


def test_a_reader_that_finds_nothing_of_its_own_does_not_spin() -> None:
    clock = Seconds()
    rests, readings, ends_at = Rests(clock), 0, clock.now + 10
    while clock.now < ends_at:
        clock.now += rests.after(0)
        readings += 1

    assert readings < 300


def test_eight_events_a_second_hardly_wait_for_each_other() -> None:
    clock = Seconds()
    rests, longest = Rests(clock), 0.0
    for _ in range(80):
        clock.now += 1 / 8
        longest = max(longest, rests.after(1))

    assert longest < 0.02


def test_one_who_may_rests_longer_with_thousands_of_events_a_second_and_as_before_right_after() -> None:
    clock = Seconds()
    rests = Rests(clock, longest_s=0.07, busiest_s=0.15)
    rests.after(500)
    found = []
    for per_s in (1000, 2000, 20_000, 1000):
        clock.now += 0.1
        found.append(rests.after(per_s // 10))

    assert found == pytest.approx([0.07, 0.1, 0.15, 0.07])


def test_one_who_waits_for_what_comes_right_behind_goes_by_the_rate_of_this_moment() -> None:
    clock = Seconds()
    rests = Rests(clock, longest_s=0.025, counts_as=1)
    alone = rests.now()
    rests.after(500)
    under_load = rests.now()
    clock.now += 5

    assert (alone, under_load) == (REST_MIN_S, 0.025)
    assert rests.now() == REST_MIN_S


def test_it_grows_with_the_rate() -> None:
    clock = Seconds()
    rests = Rests(clock)
    grown = [rests.after(20) for _ in range(10)]

    assert grown == sorted(grown)
    assert grown[0] < grown[5]


def test_three_seconds_later_a_burst_is_nearly_forgotten_however_large_it_was() -> None:
    clock = Seconds()
    rests = Rests(clock)
    assert rests.after(20_000) == REST_MAX_S
    clock.now += 3

    assert rests.after(1) < 0.012
