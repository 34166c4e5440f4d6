"""Looking at a running instance: is each process alive and healthy now, and how much memory does it take?"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import psutil

from payflow.run.control import require_running, running
from payflow.run.datadir import ensure_secret
from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.supervisor.environment import external_postgres, kafka_client_settings, setting, with_user
from payflow.run.supervisor.status import InstanceStatus, ProcessStatus

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")
_TIMEOUT_S: Final = 2.0
# Beginning, and reading the catalogue and the statements of its service, takes a connection of PostgreSQL less.
_HAS_WORKED_CPU_S: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReport:
    """One process as `payflow status` shows it. `health` is healthy, unhealthy, starting or stopped.

    `pss_kb` is the proportional set size in KiB, a server's own children included; None where it cannot be read.
    """

    name: str
    kind: str
    service: str
    pid: int | None
    url: str
    health: str
    restarts: int
    pss_kb: int | None


def inspect_instance(status: InstanceStatus) -> list[ProcessReport]:
    """Ask every process now, all at once; at most two seconds. The supervisor itself comes first."""
    healths = asyncio.run(_ask_all(status))
    supervisor = ProcessReport(
        name="supervisor",
        kind="supervisor",
        service="supervisor",
        pid=status.pid,
        url="",
        health="healthy" if status.state == "ready" else status.state,
        restarts=0,
        pss_kb=_memory_kb([status.pid], "Pss"),
    )
    return [supervisor, *(_report(process, healths[process.name]) for process in status.processes)]


def pss_kb_by_process(status: InstanceStatus) -> dict[str, int]:
    """The memory of every process, without asking any of them: proportional set size in KiB.

    A server's children are included; a process that cannot be read is left out.
    """
    found = {"supervisor": _memory_kb([status.pid], "Pss")}
    found |= {process.name: _memory_kb(_pids_of(process), "Pss") for process in status.processes}
    return {name: kb for name, kb in found.items() if kb is not None}


def heap_kb_by_process(status: InstanceStatus) -> dict[str, int]:
    """What every process has written itself, in KiB: no files, nothing shared with other programs.

    Unlike the proportional set size it stays as it is when another process stops sharing a page with this one: what
    grows here is kept by this process. A server's children come by themselves, as "postgres/PID", since some of them
    come and go with a connection or the vacuum of a table, and only once they have worked: a connection that was never
    used takes some megabytes when it first is. Who cannot be read is left out.
    """
    kinds = ("Anonymous", "Swap")
    found = {"supervisor": _memory_kb([status.pid], *kinds)}
    for process in status.processes:
        found |= {
            process.name if pid == process.pid else f"{process.name}/{pid}": _memory_kb([pid], *kinds)
            for pid in _pids_of(process)
            if pid == process.pid or _has_worked(pid)
        }
    return {name: kb for name, kb in found.items() if kb is not None}


def as_json(status: InstanceStatus, reports: list[ProcessReport]) -> dict[str, Any]:
    """What `payflow status --json` prints."""
    known = [report.pss_kb for report in reports if report.pss_kb is not None]
    return {
        "state": status.state,
        "pid": status.pid,
        "started_at": status.started_at,
        "data_dir": status.data_dir,
        "public_url": status.public_url,
        "pss_kb": sum(known) if len(known) == len(reports) else None,
        "processes": [asdict(report) for report in reports],
    }


def _pids_of(process: ProcessStatus) -> list[int]:
    pids = [] if process.pid is None else [process.pid]
    if process.pid is not None and process.kind == "server":
        with suppress(psutil.Error):
            pids += [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    return pids


def _report(process: ProcessStatus, health: str) -> ProcessReport:
    return ProcessReport(
        name=process.name,
        kind=process.kind,
        service=process.service,
        pid=process.pid,
        url=process.url,
        health=health,
        restarts=process.restarts,
        pss_kb=_memory_kb(_pids_of(process), "Pss"),
    )


async def _ask_all(status: InstanceStatus) -> dict[str, str]:
    asked = [asyncio.wait_for(_ask(process, status), _TIMEOUT_S) for process in status.processes]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    return {
        process.name: answer if isinstance(answer, str) else "unhealthy"
        for process, answer in zip(status.processes, answers, strict=True)
    }


async def _ask(process: ProcessStatus, status: InstanceStatus) -> str:
    if process.pid is None:
        return "stopped"
    if process.name == "postgres":
        return await _ask_postgres(process.url, status)
    if process.name == "valkey":
        return await _ask_valkey(urlsplit(process.url).path)
    if process.name == "kafka":
        return await _ask_kafka(process.url)
    if process.state == "starting":
        return "starting"
    return await _ask_service(process.url)


async def _ask_service(url: str) -> str:
    """One `GET /health` by hand: an HTTP client's import would take longer than everything else here."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await writer.drain()
        return "healthy" if (await reader.readline()).startswith(b"HTTP/1.1 200") else "unhealthy"
    finally:
        writer.close()


async def _ask_postgres(url: str, status: InstanceStatus) -> str:
    import asyncpg

    password = ensure_secret(status.instance.secrets_dir / "postgres_owner")
    connection = await asyncpg.connect(with_user(url, "postgres", password))
    try:
        return "healthy" if await connection.fetchval("SELECT 1") == 1 else "unhealthy"
    finally:
        await connection.close()


async def _ask_valkey(path: str) -> str:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(b"PING\r\n")
        await writer.drain()
        return "healthy" if (await reader.readline()).startswith(b"+PONG") else "unhealthy"
    finally:
        writer.close()


async def _ask_kafka(url: str) -> str:
    """One ApiVersions request by hand: what every client asks first, before it logs in."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        # Length, then the header: key 18 (ApiVersions), version 0, correlation id 1, no client id.
        writer.write(struct.pack(">ihhih", 10, 18, 0, 1, -1))
        await writer.drain()
        _, correlation, error = struct.unpack(">iih", await reader.readexactly(10))
        return "healthy" if (correlation, error) == (1, 0) else "unhealthy"
    finally:
        writer.close()


def _has_worked(pid: int) -> bool:
    with suppress(psutil.Error):
        used = psutil.Process(pid).cpu_times()
        return bool(used.user + used.system >= _HAS_WORKED_CPU_S)
    return False


def _memory_kb(pids: Iterable[int], *kinds: str) -> int | None:
    """Memory of kinds that proc(5) names under `smaps_rollup`, of all these processes; None where none is readable."""
    total, is_known = 0, False
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.partition(":")[0] in kinds:
                    total, is_known = total + int(line.split()[1]), True
    return total if is_known else None


def kafka_settings(data_dir: Path | None) -> dict[str, str] | None:
    """The settings by which events are read from Kafka: the user's, or for the instance's own; None without Kafka."""
    if setting("KAFKA_BROKERS") is not None:
        return dict(os.environ)
    instance = make_instance(data_dir=data_dir)
    status = running(instance)
    for process in status.processes if status is not None else ():
        if process.name == "kafka":
            brokers = urlsplit(process.url).netloc
            return kafka_client_settings(brokers=brokers, password_file=instance.kafka_password_file)
    return None


def owner_url(data_dir: Path | None) -> str:
    """The database's address as its owner, password included. Raises StartError when there is none to be had."""
    url = external_postgres()
    if url is not None:
        return url
    instance = make_instance(data_dir=data_dir)
    for process in require_running(instance).processes:
        if process.name == "postgres":
            return with_user(process.url, "postgres", ensure_secret(instance.secrets_dir / "postgres_owner"))
    raise StartError("Set PAYFLOW_POSTGRES_URL to the database's address as its owner.")


def as_owner(data_dir: Path | None, ask: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
    """Run `ask` with a connection as the database's owner. Raises StartError when there is none."""
    import asyncpg

    from payflow.kernel.errors import PayflowError
    from payflow.platform.servers import Connector

    url = owner_url(data_dir)

    async def run() -> T:
        connection = await Connector(url)(timeout=10)
        try:
            return await ask(connection)
        finally:
            await connection.close()

    try:
        return asyncio.run(run())
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, PayflowError) as error:
        raise StartError(f"The event log cannot be reached: {error}") from error
