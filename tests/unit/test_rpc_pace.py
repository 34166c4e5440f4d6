"""How long a call waits for company: not at all when idle, for those who come back when busy, never for long."""

from __future__ import annotations

import pytest

from payflow.platform.rpc.pace import (
    GAP_S,
    PATIENCE_BUSY,
    PATIENCE_BUSY_MAX_S,
    RETURN_WINDOW,
    RETURN_WINDOW_MAX_S,
    Pace,
)

CALL_S = 0.02


def a_pace(*, asks: int, returning: bool, calls: int = 30, call_s: float = CALL_S) -> tuple[Pace, float]:
    """A link whose calls carried so many asks, of which all came back at once, or none; and the present instant."""
    pace, now = Pace(), 100.0
    for _ in range(calls):
        now += call_s
        pace.ended(now=now, sent_at=now - call_s, asks=asks, waiting=0)
        for _ in range(asks if returning else 0):
            pace.arrived(now)
    return pace, now


def test_the_first_ask_of_an_idle_link_goes_at_once() -> None:
    assert Pace().wait_s(now=100.0, waiting=1, oldest=100.0, is_busy=False) <= 0


def test_one_client_that_asks_again_and_again_never_waits() -> None:
    pace, now = a_pace(asks=1, returning=True)

    assert pace.wait_s(now=now, waiting=1, oldest=now, is_busy=False) <= 0


def test_a_few_clients_are_not_made_to_wait_for_a_call_under_way() -> None:
    pace, now = a_pace(asks=1, returning=True)

    assert pace.wait_s(now=now, waiting=1, oldest=now, is_busy=True) <= 0


def test_a_call_waits_for_those_who_were_answered_while_they_keep_coming() -> None:
    pace, now = a_pace(asks=30, returning=True)
    pace.ended(now=now, sent_at=now - CALL_S, asks=30, waiting=10)
    pace.arrived(now + 0.001)

    waits = pace.wait_s(now=now + 0.001, waiting=11, oldest=now, is_busy=False)
    after_a_gap = pace.wait_s(now=now + 0.001 + GAP_S, waiting=11, oldest=now, is_busy=False)
    with_all = pace.wait_s(now=now + 0.001, waiting=38, oldest=now, is_busy=False)

    assert waits == pytest.approx(GAP_S)
    assert after_a_gap <= 0
    assert with_all <= 0


@pytest.mark.parametrize("call_s", [0.02, 5.0])
def test_nobody_is_waited_for_longer_than_the_window(call_s: float) -> None:
    pace, now = a_pace(asks=30, returning=True, call_s=call_s)
    window_s = min(call_s * RETURN_WINDOW, RETURN_WINDOW_MAX_S)
    pace.arrived(now + window_s)

    assert pace.wait_s(now=now + window_s, waiting=1, oldest=now, is_busy=False) <= 0


def test_clients_that_do_not_come_back_are_not_waited_for() -> None:
    pace, now = a_pace(asks=30, returning=False)

    assert pace.wait_s(now=now, waiting=1, oldest=now, is_busy=False) <= 0


@pytest.mark.parametrize("call_s", [0.02, 5.0])
def test_a_further_call_goes_out_beside_one_that_is_stuck(call_s: float) -> None:
    pace, now = a_pace(asks=30, returning=True, call_s=call_s)
    patience_s = min(call_s * PATIENCE_BUSY, PATIENCE_BUSY_MAX_S)

    waits = pace.wait_s(now=now, waiting=30, oldest=now, is_busy=True)
    is_patient_no_longer = pace.wait_s(now=now + patience_s + 1e-6, waiting=30, oldest=now, is_busy=True)

    assert waits == pytest.approx(patience_s, rel=0.05)
    assert is_patient_no_longer <= 0
