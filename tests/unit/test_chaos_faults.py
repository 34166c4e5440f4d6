"""A fault counts as struck only on evidence: who was stopped goes on, a wrong clock is seen by its own process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from signal import Signals
from types import SimpleNamespace
from typing import Any

import pytest

from payflow_dev.chaos import faults as module
from payflow_dev.chaos.faults import Striker, Tools
from payflow_dev.chaos.plan import CLOCK_SHIFT, Planned


class FakeProcesses:
    """One process; `pids` are what each signal finds, `differences` what the process says of its clock."""

    def __init__(
        self, *, pids: Sequence[int | None] = (), differences: Sequence[float | None] = (), back: float | None = 1.0
    ) -> None:
        self.pids, self.differences, self.back = list(pids), list(differences), back
        self.signals: list[str] = []

    def find(self, name: str) -> Any:
        return SimpleNamespace(name=name, pid=7)

    def signal(self, name: str, number: Signals) -> int | None:
        self.signals.append(f"{name} {number.name}")
        return self.pids.pop(0)

    def signal_supervisor(self, number: Signals) -> None:
        self.signals.append(f"supervisor {number.name}")

    async def clock_difference(self, _: str) -> float | None:
        return self.differences.pop(0) if len(self.differences) > 1 else self.differences[0]

    async def wait_back(self, _: str, *, former_pid: int | None, since: float) -> float | None:
        return self.back


class FakeClocks:
    def __init__(self) -> None:
        self.shifts: list[float] = []

    def shift(self, _: int, seconds: float) -> None:
        self.shifts.append(seconds)

    def heal(self) -> None:
        self.shifts.append(0.0)


class FakeClients:
    def first_paid_after(self, instant_ns: int) -> int:
        return instant_ns + 1_000_000


class FakeStandIns:
    def __init__(self, processes: FakeProcesses) -> None:
        self._processes = processes

    @asynccontextmanager
    async def beside(self, name: str) -> AsyncIterator[None]:
        self._processes.signals.append(f"another {name} begins")
        yield
        self._processes.signals.append(f"another {name} ends")


def a_striker(processes: FakeProcesses, clocks: FakeClocks | None = None) -> Striker:
    stand_ins = FakeStandIns(processes)
    tools: Any = Tools(processes, None, FakeClients(), None, "", clocks, None, stand_ins)
    return Striker(tools)


@pytest.mark.parametrize(
    ("differences", "is_hit"),
    [([0.0, None, 29.6], True), ([0.0], False), ([None], False), ([-30.0], False)],
    ids=["seen after a while", "never seen", "nobody answers", "the other way"],
)
async def test_a_shifted_clock_has_struck_when_its_own_process_has_seen_it(
    differences: list[float | None], is_hit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHIFT_SEEN_WITHIN_S", 0.8)
    clocks = FakeClocks()

    fault = await a_striker(FakeProcesses(differences=differences), clocks).do(
        Planned(CLOCK_SHIFT, "confirm", shift_s=30.0)
    )

    assert fault.is_hit is is_hit
    assert ("seen by the process as +29.6 s" in fault.detail) is is_hit
    assert clocks.shifts == [30.0, 0.0]


@pytest.mark.parametrize(("pids", "is_hit"), [([7, 7], True), ([7, 8], False), ([None, None], False)])
async def test_a_freeze_has_struck_when_who_goes_on_is_who_was_stopped(pids: list[int | None], is_hit: bool) -> None:
    processes = FakeProcesses(pids=pids)

    fault = await a_striker(processes).do(Planned("freeze", "otp", seconds=0.01))

    assert fault.is_hit is is_hit
    assert processes.signals == ["otp SIGSTOP", "otp SIGCONT"]


async def test_beside_who_is_stopped_for_long_another_goes_on_and_the_supervisor_that_would_end_it_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HUNG_AFTER_S", 0.01)
    processes = FakeProcesses(pids=[7, 7])

    fault = await a_striker(processes).do(Planned("freeze", "confirm", seconds=0.02))

    assert processes.signals == [
        "another confirm begins",
        "supervisor SIGSTOP",
        "confirm SIGSTOP",
        "confirm SIGCONT",
        "supervisor SIGCONT",
        "another confirm ends",
    ]
    assert (fault.is_hit, fault.detail) == (True, "0.02 s, beside another process; a payment's lease is 10 s")


@pytest.mark.parametrize(("back", "is_hit"), [(7.0, True), (None, False)])
async def test_a_hang_has_struck_when_another_process_is_in_its_place(back: float | None, is_hit: bool) -> None:
    processes = FakeProcesses(pids=[7, 7], back=back)

    fault = await a_striker(processes).do(Planned("hang", "account"))

    assert fault.is_hit is is_hit
    assert processes.signals == ["account SIGSTOP"] + ([] if is_hit else ["account SIGCONT"])


async def test_a_kill_where_nobody_was_there_has_not_struck_and_each_fault_is_counted() -> None:
    striker = a_striker(FakeProcesses(pids=[None, 7]))

    missed, struck = [await striker.do(Planned("kill", "kyc")) for _ in range(2)]

    assert (missed.is_hit, struck.is_hit) == (False, True)
    assert (striker.done, striker.kills) == (2, 1)
