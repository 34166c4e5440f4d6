"""Between the services and PostgreSQL: a proxy on its Unix socket that loses commits, or the replies to them.

PostgreSQL's socket is renamed and the proxy listens in its place, only while a fault needs it. It reads just enough of
the protocol to know which transaction writes which tables, and when its commit has been answered.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from payflow.run.embedded.postgres import wait_until_ready
from payflow_dev.chaos.proxy import Deed, Director, Position, cut

_REAL: Final = ".s.PGSQL.5432"
# asyncpg finds a socket by its folder and a port's number.
_BEHIND_PORT: Final = 5433
_PROTOCOL_3: Final = 3
_WRITES: Final = re.compile(r"\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+(?:[a-z_]+\.)?([a-z_]+)")
_READY_S: Final = 60.0
_LIMIT: Final = 1 << 20


class PostgresLink:
    """The way to an embedded PostgreSQL. `deeds` are taken from the director: service is the caller's role."""

    def __init__(self, *, server_url: str, owner_url: str, director: Director) -> None:
        (folder,) = parse_qs(urlsplit(server_url).query)["host"]
        self._real = Path(folder) / _REAL
        self._behind = Path(folder) / f".s.PGSQL.{_BEHIND_PORT}"
        self._owner_url = owner_url
        self._director = director
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def interposed(self, role: str) -> AsyncIterator[None]:
        """Stand between one role and the server; its connections are ended so that new ones come through here."""
        await wait_until_ready(url=self._owner_url, seconds=_READY_S)
        self._real.rename(self._behind)
        server = await asyncio.start_unix_server(self._begin, path=self._real, limit=_LIMIT)
        mine = self._real.stat().st_ino
        try:
            await end_connections(self._owner_url, role=role, port=_BEHIND_PORT)
            yield
        finally:
            server.close()
            self._step_aside(mine)
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _step_aside(self, mine: int) -> None:
        """Give the server its socket back, unless it was started again meanwhile and has made itself a new one."""
        with suppress(FileNotFoundError):
            if not self._real.exists() or self._real.stat().st_ino == mine:
                self._behind.rename(self._real)
            else:
                self._behind.unlink()

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._accepted(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                server_reader, server = await asyncio.open_unix_connection(self._behind, limit=_LIMIT)
                try:
                    await _Session(self._director, (reader, writer), (server_reader, server)).run()
                finally:
                    cut(server)
        finally:
            # However this ends: a client that waits for an answer must learn that none will come.
            cut(writer)


class _Session:
    """One connection: what is prepared, what the open transaction has written, and the deed that struck it."""

    def __init__(
        self,
        director: Director,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._director = director
        self._client_reader, self._client = client
        self._server_reader, self._server = server
        self._role = ""
        self._prepared: dict[bytes, str] = {}
        self._written: set[str] = set()
        self._is_in_block = False
        self._deed: Deed | None = None

    async def run(self) -> None:
        """Pass everything on until either side ends, or a deed ends both."""
        await self._pass_startup()
        ways = [asyncio.create_task(self._pass_requests()), asyncio.create_task(self._pass_replies())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_startup(self) -> None:
        head = await self._client_reader.readexactly(8)
        length, code = struct.unpack("!II", head)
        rest = await self._client_reader.readexactly(length - 8)
        if code >> 16 == _PROTOCOL_3:
            words = rest.split(b"\0")
            self._role = dict(zip(words[::2], words[1::2], strict=False)).get(b"user", b"").decode()
        self._server.write(head + rest)

    async def _pass_requests(self) -> None:
        while True:
            kind, message = await _read(self._client_reader)
            deed = self._deed_of(kind, message)
            if deed is not None and deed.position is Position.BEFORE_DELIVERY:
                deed.do()
                return
            self._deed = deed or self._deed
            self._server.write(message)

    def _deed_of(self, kind: bytes, message: bytes) -> Deed | None:
        """The deed that waits for what this message commits, if any."""
        commits = False
        if kind == b"P":
            name, query = message[5:].split(b"\0", 2)[:2]
            self._prepared[name] = query.decode("utf-8", "replace")
        elif kind == b"B":
            _, name = message[5:].split(b"\0", 2)[:2]
            self._written |= set(_WRITES.findall(self._prepared.get(name, "")))
            commits = not self._is_in_block
        elif kind == b"Q":
            commits = message[5:].upper().startswith(b"COMMIT")
        armed = self._director.armed
        if not commits or armed is None or armed.service != self._role or armed.operation not in self._written:
            return None
        return self._director.take(armed.service, armed.operation)

    async def _pass_replies(self) -> None:
        held = b""
        while True:
            kind, message = await _read(self._server_reader, is_server=True)
            held += message
            if kind == b"Z":
                self._is_in_block = message[5:6] != b"I"
                if not self._is_in_block:
                    self._written.clear()
            if self._deed is None:
                self._client.write(held)
                held = b""
            elif kind == b"Z":
                if self._deed.position is Position.AFTER_ANSWER:
                    self._client.write(held)
                    await self._client.drain()
                deed, self._deed, held = self._deed, None, b""
                deed.do()
                if deed.position is not Position.AFTER_ANSWER:
                    return


async def _read(reader: asyncio.StreamReader, *, is_server: bool = False) -> tuple[bytes, bytes]:
    """A message: its kind, and all of it."""
    head = await reader.readexactly(5)
    (length,) = struct.unpack("!I", head[1:])
    if length < 4 and not is_server:
        raise ValueError("no message of PostgreSQL's")
    return head[:1], head + await reader.readexactly(length - 4)


async def end_connections(owner_url: str, *, role: str | None = None, port: int | None = None) -> int:
    """End the connections of one role, or of all the services' roles; returns how many there were."""
    further: dict[str, Any] = {} if port is None else {"port": port}
    connection = await asyncpg.connect(owner_url, timeout=10, **further)
    try:
        return await end_connections_with(connection, role=role)
    finally:
        await connection.close()


async def end_connections_with(connection: asyncpg.Connection[Any], *, role: str | None = None) -> int:
    """As `end_connections`, over a connection of the owner's."""
    ended = await connection.fetchval(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename LIKE $1", role or "payflow\\_%"
    )
    return int(ended or 0)


def role_of(process: str) -> str:
    """The database role of a process's service."""
    return f"payflow_{process.removesuffix('-1').removesuffix('-2').replace('-', '_')}"
