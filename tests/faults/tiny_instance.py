"""A small instance for the supervisor's tests: real servers, real forks, and services that only answer /health.

Run as `python tiny_instance.py DATA_DIR PORT_BASE PORT [--detach]`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg

from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.registry import Deployable
from payflow.run.supervisor.console import Progress, fail, make_console
from payflow.run.supervisor.daemon import run_in_background
from payflow.run.supervisor.start import Plan, up

ROWS = tuple(
    Deployable(name=name, service=service, module="json", port_offset=offset)
    for offset, (name, service) in enumerate(
        [("gateway-1", "gateway"), ("gateway-2", "gateway"), ("alpha", "alpha"), ("beta", "beta")], start=1
    )
)


def serve(
    *, service: str, instance: str, module: str, sockets: list[socket.socket], on_ready: Callable[[], None]
) -> None:
    """Answer every request with 200 and this process's name and pid, until SIGTERM."""
    broken = Path(os.environ["PAYFLOW_DATA_DIR"]) / f"broken-{instance}"
    if os.environ.get("TINY_BROKEN") == instance or broken.exists():
        print(f"{instance}: PAYFLOW_LIMT is no setting", file=sys.stderr)
        raise SystemExit(2)
    print(f"{instance} serves {service} from {module} with {sorted(k for k in os.environ if k.startswith('PAYFLOW_'))}")
    asyncio.run(_serve(instance, sockets, on_ready))


async def _serve(name: str, sockets: list[socket.socket], on_ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    under_way: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        await reader.readuntil(b"\r\n\r\n")
        body = f"{name} {os.getpid()}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    servers = [await asyncio.start_server(answer, sock=listener) for listener in sockets]
    if os.environ.get("TINY_DEAF") == name:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: None)
    on_ready()
    await stop.wait()
    for server in servers:
        server.close()
    # Who was let in before that is answered.
    await asyncio.sleep(0.2)
    if under_way:
        await asyncio.wait(under_way, timeout=2)


async def migrate(*, admin_url: str, services: tuple[str, ...], password_files: dict[str, Path]) -> bool:
    """Leave a row, so that a test can see that data survives; whether there was none."""
    assert set(password_files) == set(services)
    connection = await asyncpg.connect(admin_url)
    try:
        await connection.execute("CREATE TABLE IF NOT EXISTS tiny (started_at timestamptz DEFAULT now())")
        count = await connection.fetchval("SELECT count(*) FROM tiny")
        await connection.execute("INSERT INTO tiny DEFAULT VALUES")
    finally:
        await connection.close()
    return bool(count == 0)


def main() -> int:
    data_dir, port_base, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    plan = Plan(rows=ROWS, serve=serve, migrate=migrate, load_demo=lambda _: print("demo data loaded"))
    try:
        instance = make_instance(data_dir=data_dir, port_base=port_base, port=port)
        progress = Progress(make_console())
        if "--detach" in sys.argv:
            return run_in_background(
                lambda on_ready: up(instance=instance, plan=plan, progress=progress, on_ready=on_ready),
                log=instance.log_file("supervisor"),
            )
        up(instance=instance, plan=plan, progress=progress, on_ready=lambda: print("READY", flush=True))
    except StartError as error:
        fail(error.message)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
