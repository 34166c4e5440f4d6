"""The instance under faults: a proxy before each service, its processes found by name and hit by signals."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from typing import Final

import aiohttp
import psutil
import redis.asyncio as redis

from payflow.run.instance import Instance
from payflow.run.registry import SERVICES
from payflow.run.supervisor.status import ProcessStatus, read_status
from payflow_dev.chaos.proxy import Director, Proxy

# No caller's patience is switched off; the customers' own limits are only out of reach.
SETTINGS: Final = {
    "PAYFLOW_OTP_ISSUE_PER_CUSTOMER": "1000000/15m",
    "PAYFLOW_OTP_ISSUE_PER_PAYMENT": "1000/15m",
}
BACK_WITHIN_S: Final = 20.0


async def start_proxies(instance: Instance, director: Director) -> tuple[list[Proxy], dict[str, str]]:
    """A proxy before every service but the gateways; the settings that send every call through them."""
    proxies, settings = [], dict(SETTINGS)
    for row in SERVICES:
        if row.is_gateway:
            continue
        proxy = Proxy(service=row.name, port=instance.service_port(row), director=director)
        settings[f"PAYFLOW_{row.service.upper()}_URL"] = f"http://127.0.0.1:{await proxy.start()}"
        proxies.append(proxy)
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

    def caller(self, name: str, port: int) -> str:
        """Of the two gateways the one whose connection comes from this port; any other name as it is."""
        if not name.startswith("gateway-"):
            return name
        for gateway in ("gateway-1", "gateway-2"):
            process = self.find(gateway)
            with suppress(psutil.Error):
                if process is not None and process.pid is not None:
                    connections = psutil.Process(process.pid).net_connections("tcp4")
                    if any(connection.laddr.port == port for connection in connections):
                        return gateway
        return name

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


async def _is_healthy(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/live") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
