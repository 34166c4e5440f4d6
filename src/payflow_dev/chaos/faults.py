"""Does one planned fault after the other to a running instance, and notes whether it struck and what it took."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final

from payflow.run.embedded.postgres import wait_until_ready
from payflow.run.supervisor.liveness import HUNG_AFTER_S
from payflow_dev.chaos.clients import Clients
from payflow_dev.chaos.clock import Clocks
from payflow_dev.chaos.disk import SmallDisk
from payflow_dev.chaos.history import Fault, now_ns
from payflow_dev.chaos.instance import Processes, take_all_connections
from payflow_dev.chaos.pgwire import PostgresLink, role_of
from payflow_dev.chaos.plan import (
    CLOCK_SHIFT,
    DISK_FULL,
    FILE_OPERATIONS,
    LEASE_S,
    NEVER_KILLED,
    POSTGRES,
    REVIEWED_ABROAD_OPERATIONS,
    Planned,
)
from payflow_dev.chaos.proxy import Deed, Director
from payflow_dev.chaos.stand_in import StandIns

STRIKE_WITHIN_S: Final = 60.0
# What is rare is asked for so often, where a fault waits for it.
ASK_FOR_RARE_S: Final = 6.0
PAYING_WITHIN_S: Final = 20.0
# A process reads the database's clock every five seconds, and tells then how far its own is from it.
SHIFT_SEEN_WITHIN_S: Final = 15.0
SHIFT_SEEN_TO_S: Final = 1.0
# After a fault somebody new asks for a payment so often, where nobody else does.
ASK_ANEW_S: Final = 0.5
POSTGRES_WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Tools:
    """What faults are done with."""

    processes: Processes
    director: Director
    clients: Clients
    postgres: PostgresLink
    owner_url: str
    clocks: Clocks
    disk: SmallDisk
    stand_ins: StandIns


class Striker:
    """Does faults, one at a time. `done` counts them, `kills` the processes that were killed.

    `last_at` is when the last one struck, or when what it did was over.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.done = self.kills = 0
        self.last_at = time.monotonic()

    async def do(self, planned: Planned) -> Fault:
        """Do one fault, and wait until its victim is back and payments are made again."""
        blow = _Blow(planned, self._tools.processes)
        began_ns = now_ns()
        is_hit, detail = await self._strike(planned, blow)
        # Where nobody was there to be killed, the kill did not happen.
        is_hit = is_hit and (not planned.is_kill or blow.pid is not None)
        self.done, self.last_at = self.done + 1, blow.at if is_hit else time.monotonic()
        back = None
        if blow.pid is not None:
            self.kills += 1
            back = await self._tools.processes.wait_back(blow.victim, former_pid=blow.pid, since=blow.at)
            if blow.victim == POSTGRES:
                await wait_until_ready(url=self._tools.owner_url, seconds=POSTGRES_WITHIN_S)
                back = time.monotonic() - blow.at
        return Fault(
            name=planned.name,
            victim=blow.victim or planned.victim,
            edge=planned.edge.name if planned.edge else None,
            position=planned.position.value if planned.position else None,
            began_ns=began_ns,
            is_hit=is_hit,
            back_after_s=back,
            paying_after_s=await self._paying_again(
                blow.at, within_s=POSTGRES_WITHIN_S if blow.victim == POSTGRES else PAYING_WITHIN_S
            ),
            detail=detail,
        )

    async def _strike(self, planned: Planned, blow: _Blow) -> tuple[bool, str]:
        """Whether it struck, and what is to be said of it."""
        if planned.edge is not None:
            return await self._at_edge(planned, blow), ""
        do = {
            "kill": self._kill,
            "freeze": self._freeze,
            "hang": self._hang,
            "flush": self._flush,
            "connections-exhausted": self._exhaust,
            DISK_FULL: self._fill_disk,
            CLOCK_SHIFT: self._shift_clock,
            "same-request-50": self._same_request,
            "crossing": self._crossing,
            "last-cent": self._last_cent,
        }[planned.name]
        outcome = await do(planned, blow)
        if not planned.is_kill:
            # What counts from here is the return to normal.
            blow.strike()
        return outcome

    async def _at_edge(self, planned: Planned, blow: _Blow) -> bool:
        assert planned.edge is not None
        assert planned.position is not None
        edge, tools = planned.edge, self._tools
        deed = Deed(
            service=role_of(edge.caller) if edge.is_write else edge.callee,
            operation=edge.operation,
            position=planned.position,
            caller=None if edge.is_write or edge.caller in NEVER_KILLED else edge.caller,
            resets=planned.name == "reset",
            strike=blow.strike,
            delay_s=planned.seconds,
        )
        async with AsyncExitStack() as stack:
            tools.director.arm(deed)
            if edge.is_write:
                await stack.enter_async_context(tools.postgres.interposed(role_of(edge.caller)))
            if not await self._has_struck(deed):
                tools.director.disarm()
                return False
            await asyncio.sleep(planned.seconds)
        return True

    async def _has_struck(self, deed: Deed) -> bool:
        """Wait until a call that fits has come, and have somebody ask for one that is rare; false where none has."""
        until = time.monotonic() + STRIKE_WITHIN_S
        while (left_s := until - time.monotonic()) > 0:
            if deed.operation in FILE_OPERATIONS:
                self._tools.clients.send_file()
            elif deed.operation in REVIEWED_ABROAD_OPERATIONS:
                self._tools.clients.pay_listed_abroad()
            with suppress(TimeoutError):
                await asyncio.wait_for(deed.struck.wait(), min(left_s, ASK_FOR_RARE_S))
                return True
        return False

    async def _kill(self, planned: Planned, blow: _Blow) -> tuple[bool, str]:
        blow.strike()
        return blow.pid is not None, ""

    async def _freeze(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        """Stopped and continued: it struck where the process that goes on is the one that was stopped."""
        if planned.seconds < HUNG_AFTER_S:
            return await self._stop_and_continue(planned), f"{planned.seconds:g} s"
        processes = self._tools.processes
        async with self._tools.stand_ins.beside(planned.victim or ""):
            # The supervisor would kill a process that is silent for so long, and who is dead writes nothing late.
            processes.signal_supervisor(signal.SIGSTOP)
            try:
                is_hit = await self._stop_and_continue(planned)
            finally:
                processes.signal_supervisor(signal.SIGCONT)
        return is_hit, f"{planned.seconds:g} s, beside another process; a payment's lease is {LEASE_S:g} s"

    async def _stop_and_continue(self, planned: Planned) -> bool:
        processes, victim = self._tools.processes, planned.victim or ""
        pid = processes.signal(victim, signal.SIGSTOP)
        await asyncio.sleep(planned.seconds)
        continued = processes.signal(victim, signal.SIGCONT)
        return pid is not None and continued == pid

    async def _hang(self, planned: Planned, blow: _Blow) -> tuple[bool, str]:
        """Stopped for good: it struck where the supervisor has put another process in its place."""
        victim = planned.victim or ""
        pid = self._tools.processes.signal(victim, signal.SIGSTOP)
        back = await self._tools.processes.wait_back(victim, former_pid=pid, since=blow.at)
        if back is None:
            self._tools.processes.signal(victim, signal.SIGCONT)
            return False, ""
        return pid is not None, f"killed by the supervisor, another one answers after {back:.1f} s"

    async def _flush(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        await self._tools.processes.flush_valkey()
        return True, ""

    async def _exhaust(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        return await take_all_connections(self._tools.owner_url, seconds=planned.seconds), f"{planned.seconds:g} s"

    async def _fill_disk(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        succeeded = self._tools.clients.last_success_ns
        self._tools.disk.fill()
        try:
            await asyncio.sleep(planned.seconds)
        finally:
            self._tools.disk.free()
        await wait_until_ready(url=self._tools.owner_url, seconds=POSTGRES_WITHIN_S)
        quiet_s = (now_ns() - max(succeeded, self._tools.clients.last_success_ns)) / 1e9
        return True, f"{planned.seconds:g} s, the last {quiet_s:.1f} s of it without a payment"

    async def _shift_clock(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        """The victim's clock is wrong for a while: it struck where the process itself says that it is."""
        processes, victim = self._tools.processes, planned.victim or ""
        process = processes.find(victim)
        if process is None or process.pid is None:
            return False, ""
        self._tools.clocks.shift(process.pid, planned.shift_s)
        try:
            seen = await self._seen_shift(victim, planned.shift_s)
            await asyncio.sleep(planned.seconds)
        finally:
            self._tools.clocks.heal()
        if seen is None:
            return False, f"{planned.shift_s:+g} s"
        return True, f"{planned.shift_s:+g} s, seen by the process as {seen:+.1f} s"

    async def _seen_shift(self, victim: str, shift_s: float) -> float | None:
        """How far its clock is from the database's, as it tells itself; None: it has not noticed in time."""
        until = time.monotonic() + SHIFT_SEEN_WITHIN_S
        while time.monotonic() < until:
            difference = await self._tools.processes.clock_difference(victim)
            if difference is not None and abs(difference - shift_s) < SHIFT_SEEN_TO_S:
                return difference
            await asyncio.sleep(0.25)
        return None

    async def _same_request(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        answered = await self._tools.clients.same_request_at_once()
        return answered > 1, f"{answered} answers"

    async def _crossing(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        return await self._tools.clients.crossing() > 0, ""

    async def _last_cent(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        paid = await self._tools.clients.last_cent()
        return paid > 0, f"{paid} paid"

    async def _paying_again(self, since: float, *, within_s: float) -> float | None:
        """Seconds from the fault until a payment has been made that was asked for after it."""
        # Also looked for where the victim took longer than that to be back.
        until = max(since + within_s, time.monotonic() + 1.0)
        asks_at = since + ASK_ANEW_S
        while (paid_at_ns := self._tools.clients.first_paid_after(int(since * 1e9))) is None:
            if time.monotonic() >= until:
                return None
            if time.monotonic() >= asks_at:
                # All customers may have had a payment under way, which ends only when somebody takes it over.
                self._tools.clients.pay_anew()
                asks_at = time.monotonic() + ASK_ANEW_S
            await asyncio.sleep(0.02)
        return paid_at_ns / 1e9 - since


class _Blow:
    """What a fault did: when, and whom it killed."""

    def __init__(self, planned: Planned, processes: Processes) -> None:
        self._planned = planned
        self._processes = processes
        self.at = time.monotonic()
        self.victim = ""
        self.pid: int | None = None

    def strike(self) -> None:
        """The moment has come."""
        self.at = time.monotonic()
        if self._planned.is_kill and self._planned.victim is not None:
            self.victim = self._planned.victim
            self.pid = self._processes.signal(self.victim, signal.SIGKILL)


def told(fault: Fault) -> str:
    """A fault in a line."""
    where = f"{fault.edge} {fault.position}" if fault.edge else fault.victim or ""
    outcome = "struck" if fault.is_hit else "NEVER STRUCK"
    detail = f" ({fault.detail})" if fault.detail else ""
    return f"{fault.name} {where}: {outcome}{detail}, back {_s(fault.back_after_s)}, paying {_s(fault.paying_after_s)}"


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
