"""When a dead process is started again: soon at first, later and later while it keeps dying."""

from __future__ import annotations

from pathlib import Path

from payflow.run.supervisor.children import Child, Stage


def make_child(*, port: int | None = 1) -> Child:
    return Child(
        name="risk", service="risk", stage=Stage.SERVICE, url="", log=Path("/dev/null"), run=lambda: None, port=port
    )


def test_the_wait_doubles_from_death_to_death_up_to_five_seconds() -> None:
    child = make_child()

    waits = []
    for _ in range(8):
        child.began(pid=1, now=0.0)
        waits.append(child.ended(now=0.05))

    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert child.restarts == 8


def test_three_healthy_seconds_begin_the_wait_anew() -> None:
    child = make_child()
    child.began(pid=1, now=0.0)
    child.ended(now=0.0)
    child.began(pid=2, now=1.0)
    child.healthy_at = 1.5

    wait_s = child.ended(now=4.5)

    assert wait_s == 0.1


def test_a_short_healthy_life_does_not_begin_the_wait_anew() -> None:
    child = make_child()
    child.began(pid=1, now=0.0)
    child.ended(now=0.0)
    child.began(pid=2, now=1.0)
    child.healthy_at = 1.5

    wait_s = child.ended(now=4.4)

    assert wait_s == 0.2


def test_a_process_says_what_it_is_doing() -> None:
    child = make_child()

    states = [child.state]
    child.began(pid=1, now=0.0)
    states.append(child.state)
    child.healthy_at = 0.5
    states.append(child.state)
    child.ended(now=1.0)
    states.append(child.state)

    assert states == ["waiting", "starting", "healthy", "waiting"]
    assert child.restart_at == 1.1


def test_the_silence_of_a_hung_process_does_not_count_as_health() -> None:
    child = make_child()
    child.began(pid=2**30, now=0.0)
    child.ended(now=0.0)
    child.began(pid=2**30, now=1.0)
    child.healthy_at = 1.5

    child.kill_as_hung(silent_since=3.0)
    state = child.state
    wait_s = child.ended(now=9.0)

    assert state == "hung"
    assert wait_s == 0.2
