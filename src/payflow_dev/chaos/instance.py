"""The instance under faults: a proxy before each process, its processes found by name and hit by signals."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import redis.asyncio as redis

from payflow.run.instance import Instance
from payflow.run.registry import OTHER_BANK, SERVICES
from payflow.run.supervisor.status import ProcessStatus, read_status
from payflow_dev.chaos.pgwire import end_connections_with
from payflow_dev.chaos.proxy import Director, Proxy

# No caller's patience is switched off; the customers' own limits are only out of reach.
SETTINGS: Final = {
    "PAYFLOW_OTP_ISSUE_PER_CUSTOMER": "1000000/15m",
    "PAYFLOW_OTP_ISSUE_PER_PAYMENT": "1000/15m",
}
BACK_WITHIN_S: Final = 20.0
CONNECTIONS_MAX: Final = 1000
_DIFFERENCE: Final = "payflow_clock_difference_seconds"


async def start_proxies(
    instance: Instance, director: Director, processes: Processes
) -> tuple[dict[str, Proxy], dict[str, str]]:
    """A proxy before every process, by its name; the settings that send every call between them through these.

    Those before the gateways are for the run's own clients.
    """
    proxies, settings = {}, dict(SETTINGS)
    for row in (*SERVICES, OTHER_BANK):
        proxy = Proxy(
            service=row.name, port=instance.service_port(row), director=director, caller_of=processes.owner_of
        )
        port = await proxy.start()
        proxies[row.name] = proxy
        if not row.is_gateway:
            settings[f"PAYFLOW_{row.service.upper()}_URL"] = f"http://127.0.0.1:{port}"
    return proxies, settings


class Processes:
    """The processes of a running instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance

    def find(self, name: str) -> ProcessStatus | None:
        """The process as it is now."""
        status = read_status(self._instance)
        if status is None:
            return None
        return next((process for process in status.processes if process.name == name), None)

    def signal_supervisor(self, number: signal.Signals) -> None:
        """Send a signal to who starts and watches all others."""
        status = read_status(self._instance)
        assert status is not None
        os.kill(status.pid, number)

    async def clock_difference(self, name: str) -> float | None:
        """By how many seconds a process finds its own clock to be ahead of the database's; None: it does not say."""
        process = self.find(name)
        if process is None:
            return None
        with suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session,
                session.get(f"{process.url}/metrics") as answer,
            ):
                for line in (await answer.text()).splitlines():
                    if line.startswith(f"{_DIFFERENCE} "):
                        return float(line.split()[1])
        return None

    def owner_of(self, port: int, to: int) -> str | None:
        """The process whose connection goes from this port of the loopback to that one; None: none of ours."""
        inode = _socket_between(port, to)
        status = read_status(self._instance)
        for process in status.processes if inode and status else ():
            if process.pid is not None and _has_open(process.pid, f"socket:[{inode}]"):
                return process.name
        return None

    def signal(self, name: str, number: signal.Signals) -> int | None:
        """Send a signal; the pid that got it, None where there was none."""
        process = self.find(name)
        if process is None or process.pid is None:
            return None
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
            return process.pid
        return None

    async def wait_back(self, name: str, *, former_pid: int | None, since: float) -> float | None:
        """Seconds until a new process of this name answers /health (a server: is running); None: not in time."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
            while time.monotonic() - since < BACK_WITHIN_S:
                process = self.find(name)
                if process is not None and process.pid not in (None, former_pid):
                    if process.kind == "server" and process.state == "healthy":
                        return time.monotonic() - since
                    if process.kind != "server" and await _is_healthy(session, process.url):
                        return time.monotonic() - since
                await asyncio.sleep(0.05)
        return None

    async def flush_valkey(self) -> None:
        """Make Valkey forget everything."""
        process = self.find("valkey")
        assert process is not None
        path = process.url.removeprefix("unix://")
        client = redis.Redis(unix_socket_path=path)
        try:
            await client.flushall()
        finally:
            await client.aclose()


async def take_all_connections(owner_url: str, *, seconds: float) -> bool:
    """Be the clients who take every connection that PostgreSQL has, the services' own too; whether it had no more.

    They are held for so many seconds and then given back.
    """
    mine: list[asyncpg.Connection[Any]] = [await asyncpg.connect(owner_url, timeout=10)]
    is_full, until = False, None
    try:
        while len(mine) < CONNECTIONS_MAX and (until is None or time.monotonic() < until):
            try:
                mine.append(await asyncpg.connect(owner_url, timeout=10))
            except asyncpg.TooManyConnectionsError:
                # What the services still have is taken from them; who asks first then gets the place.
                is_full, until = True, until or time.monotonic() + seconds
                if await end_connections_with(mine[0]) == 0:
                    await asyncio.sleep(0.1)
    finally:
        for connection in mine:
            connection.terminate()
    return is_full


def _socket_between(port: int, to: int) -> str | None:
    """The inode of the TCP socket with these two ports: one port of ours may be in use towards several others."""
    ends = f":{port:04X}", f":{to:04X}"
    with suppress(OSError):
        for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
            words = line.split()
            if words[1].endswith(ends[0]) and words[2].endswith(ends[1]) and words[9] != "0":
                return words[9]
    return None


def _has_open(pid: int, target: str) -> bool:
    with suppress(OSError):
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder):
            with suppress(OSError):
                if os.readlink(f"{folder}/{name}") == target:
                    return True
    return False


async def _is_healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/live") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
