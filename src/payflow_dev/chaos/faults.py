"""Does one planned fault after the other to a running instance, and notes whether it struck and what it took."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final

from payflow.run.embedded.postgres import wait_until_ready
from payflow_dev.chaos.clients import Clients
from payflow_dev.chaos.clock import Clocks
from payflow_dev.chaos.disk import SmallDisk
from payflow_dev.chaos.history import Fault, now_ns
from payflow_dev.chaos.instance import Processes, take_all_connections
from payflow_dev.chaos.pgwire import PostgresLink, role_of
from payflow_dev.chaos.plan import CLOCK_SHIFT, DISK_FULL, FILE_OPERATIONS, NEVER_KILLED, POSTGRES, Planned
from payflow_dev.chaos.proxy import Deed, Director

STRIKE_WITHIN_S: Final = 60.0
FILE_EVERY_S: Final = 6.0
PAYING_WITHIN_S: Final = 20.0
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


class Striker:
    """Does faults, one at a time. `kills` counts the processes that were killed."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self.kills = 0

    async def do(self, planned: Planned) -> Fault:
        """Do one fault, and wait until its victim is back and payments are made again."""
        blow = _Blow(planned, self._tools.processes)
        began_ns = now_ns()
        is_hit, detail = await self._strike(planned, blow)
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
            paying_after_s=await self._paying_again(blow.at),
            detail=detail,
            shift_s=planned.shift_s,
            seconds=planned.seconds,
        )

    async def _strike(self, planned: Planned, blow: _Blow) -> tuple[bool, str]:
        """Whether it struck, and what is to be said of it."""
        if planned.edge is not None:
            return await self._at_edge(planned, blow), ""
        do = {
            "kill": self._kill,
            "freeze": self._freeze,
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
            if not await self._has_struck(deed, needs_file=edge.operation in FILE_OPERATIONS):
                tools.director.disarm()
                return False
            if planned.shift_s:
                return await self._with_shift(planned)
            await asyncio.sleep(planned.seconds)
        return True

    async def _has_struck(self, deed: Deed, *, needs_file: bool) -> bool:
        """Wait until a call that fits has come; false where none has in time."""
        until = time.monotonic() + STRIKE_WITHIN_S
        while (left_s := until - time.monotonic()) > 0:
            if needs_file:
                self._tools.clients.send_file()
            with suppress(TimeoutError):
                await asyncio.wait_for(deed.struck.wait(), min(left_s, FILE_EVERY_S) if needs_file else left_s)
                return True
        return False

    async def _kill(self, planned: Planned, blow: _Blow) -> tuple[bool, str]:
        blow.strike()
        return blow.pid is not None, ""

    async def _freeze(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        victim = planned.victim or ""
        pid = self._tools.processes.signal(victim, signal.SIGSTOP)
        await asyncio.sleep(planned.seconds)
        with suppress(ProcessLookupError):
            self._tools.processes.signal(victim, signal.SIGCONT)
        return pid is not None, f"{planned.seconds:g} s"

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
        return await self._with_shift(planned), f"{planned.shift_s:+g} s for {planned.seconds:g} s"

    async def _with_shift(self, planned: Planned) -> bool:
        """Have the victim's clock be wrong for a while; whether there is such a process."""
        process = self._tools.processes.find(planned.victim or "")
        if process is None or process.pid is None:
            return False
        self._tools.clocks.shift(process.pid, planned.shift_s)
        try:
            await asyncio.sleep(planned.seconds)
        finally:
            self._tools.clocks.heal()
        return True

    async def _same_request(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        answered = await self._tools.clients.same_request_at_once()
        return answered > 1, f"{answered} answers"

    async def _crossing(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        return await self._tools.clients.crossing() > 0, ""

    async def _last_cent(self, planned: Planned, _: _Blow) -> tuple[bool, str]:
        paid = await self._tools.clients.last_cent()
        return paid > 0, f"{paid} paid"

    async def _paying_again(self, since: float) -> float | None:
        """Seconds from the fault until a payment has been made that was asked for after it."""
        # Also looked for where the victim took longer than that to be back.
        until = max(since + PAYING_WITHIN_S, time.monotonic() + 1.0)
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
