"""A second process of a service beside one that is stopped: it takes over what that has left, as on another machine.

It is started by `payflow serve`, with the settings of the instance, and is called by nobody: it does what is due.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp

from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.registry import deployables, find, service_names
from payflow.run.secrets import ensure_secrets
from payflow.run.supervisor.environment import Backends, service_environment
from payflow_dev.bench.target import LOOPBACK

READY_WITHIN_S: Final = 20.0
GONE_WITHIN_S: Final = 20.0
# So long both are there when the stopped one goes on: whoever comes too late meets who has come before.
STAYS_S: Final = 3.0


class StandIns:
    """Starts a process beside another of its service. `folder` gets their logs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environs: dict[str, dict[str, str]] = {}

    def learn(self, names: Sequence[str], *, instance: Instance, postgres_url: str, redis_url: str) -> None:
        """Note what processes of these names are started with: to be called where the instance is started."""
        rows = deployables(is_production=False)
        secrets = ensure_secrets(instance, service_names(rows))
        backends = Backends(postgres_owner_url=postgres_url, redis_url=redis_url)
        for name in names:
            row = find(name)
            assert row is not None
            self._environs[name] = service_environment(
                instance=instance, row=row, rows=rows, backends=backends, secrets=secrets
            )

    @asynccontextmanager
    async def beside(self, name: str) -> AsyncIterator[None]:
        """Have another process of this service, from now until a little after the block. Raises StartError."""
        port = _free_port()
        command = [
            sys.executable,
            "-m",
            "payflow.run.main",
            "serve",
            name,
            "--port",
            str(port),
            "--instance",
            f"{name}-2",
        ]
        with (self._folder / f"{name}-2.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *command, env=self._environs[name] | {"PAYFLOW_PORT": str(port)}, stdout=log, stderr=log
            )
            try:
                await _wait_ready(process, name, port)
                yield
                await asyncio.sleep(STAYS_S)
            finally:
                await _end(process)


async def _wait_ready(process: asyncio.subprocess.Process, name: str, port: int) -> None:
    until = time.monotonic() + READY_WITHIN_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session:
        while time.monotonic() < until and process.returncode is None:
            try:
                async with session.get(f"http://{LOOPBACK}:{port}/ready") as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError, OSError):
                pass
            await asyncio.sleep(0.1)
    raise StartError(f"A second process of {name} does not start (exit code {process.returncode}).")


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), GONE_WITHIN_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
