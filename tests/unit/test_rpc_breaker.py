"""When a service that does not answer is left alone, and when it is tried again."""

from __future__ import annotations

import pytest

from payflow.platform.rpc.breaker import FAILURES_TO_OPEN, OPEN_S_MAX, OPEN_S_MIN, Breaker


def an_open_breaker(*, at: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(at)
    return breaker


@pytest.mark.parametrize(
    ("failures", "is_closed"),
    [(0, True), (1, True), (FAILURES_TO_OPEN - 1, True), (FAILURES_TO_OPEN, False), (FAILURES_TO_OPEN + 3, False)],
)
def test_it_opens_after_so_many_failures_in_a_row(failures: int, is_closed: bool) -> None:
    breaker = Breaker()

    for _ in range(failures):
        breaker.failed(100.0)

    assert breaker.is_closed is is_closed
    assert breaker.allows(100.0) is is_closed


def test_an_answer_in_between_begins_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(FAILURES_TO_OPEN - 1):
        breaker.failed(100.0)

    breaker.succeeded()
    breaker.failed(100.0)

    assert breaker.is_closed


@pytest.mark.parametrize(
    ("after_s", "is_allowed"), [(0.0, False), (OPEN_S_MIN - 0.01, False), (OPEN_S_MIN, True), (60.0, True)]
)
def test_while_open_a_trial_is_let_through_after_the_pause(after_s: float, is_allowed: bool) -> None:
    breaker = an_open_breaker(at=100.0)

    assert breaker.allows(100.0 + after_s) is is_allowed


def test_only_one_trial_goes_out_at_a_time() -> None:
    breaker = an_open_breaker(at=100.0)
    later = 100.0 + OPEN_S_MIN

    assert [breaker.allows(later), breaker.allows(later)] == [True, False]


def test_a_trial_that_is_answered_closes_it() -> None:
    breaker = an_open_breaker(at=100.0)
    breaker.allows(100.0 + OPEN_S_MIN)

    breaker.succeeded()

    assert breaker.is_closed
    assert breaker.allows(100.0 + OPEN_S_MIN)


def test_each_failed_trial_doubles_the_pause_up_to_a_limit() -> None:
    breaker = an_open_breaker(at=0.0)
    pauses = []
    now = 0.0
    for _ in range(8):
        began = now
        while not breaker.allows(now):
            now += 0.01
        pauses.append(now - began)
        breaker.failed(now)

    assert pauses[:3] == pytest.approx([OPEN_S_MIN, 2 * OPEN_S_MIN, 4 * OPEN_S_MIN], abs=0.02)
    assert pauses[-1] == pytest.approx(OPEN_S_MAX, abs=0.02)


def test_after_it_closed_the_pause_is_short_again() -> None:
    breaker = an_open_breaker(at=0.0)
    for now in (10.0, 20.0, 30.0):
        breaker.allows(now)
        breaker.failed(now)

    breaker.succeeded()
    for _ in range(FAILURES_TO_OPEN):
        breaker.failed(100.0)

    assert not breaker.allows(100.0 + OPEN_S_MIN - 0.01)
    assert breaker.allows(100.0 + OPEN_S_MIN)
