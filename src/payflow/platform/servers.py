"""Connecting to whichever of several PostgreSQL servers answers, and noticing soon when one has vanished.

asyncpg tries the servers of an address one after the other with one timeout over all: a first one that is gone without
a word (its machine has no power, its network no way) would keep everybody from the second for ever.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlunsplit

import asyncpg

from payflow.platform.addresses import split_address

ANSWER_WITHIN_S: Final = 0.9
# Data that nobody acknowledges for so long ends a connection; so do questions on an idle one that nobody answers.
UNACKNOWLEDGED_MAX_S: Final = 10
_QUESTIONS: Final = 2
_ANOTHER_MAY_DO: Final = (OSError, TimeoutError, asyncpg.InternalClientError, asyncpg.CannotConnectNowError)


def addresses_of(url: str) -> list[str]:
    """One address for each server that an address names: `postgresql://u@a:1,b:2/d` gives `...@a:1/d`, `...@b:2/d`."""
    parts = split_address(url)
    login, at, places = parts.netloc.rpartition("@")
    if "," not in places:
        return [url]
    return [urlunsplit(parts._replace(netloc=f"{login}{at}{place}")) for place in places.split(",")]


class Connector:
    """Makes connections to the server that answered last, or to the next one that does."""

    def __init__(self, url: str) -> None:
        self._urls = addresses_of(url)

    async def __call__(self, *_: object, **options: Any) -> asyncpg.Connection[Any]:
        """A connection; `options` are asyncpg.connect's, without the address. Raises what the last server raised."""
        if len(self._urls) > 1:
            options["timeout"] = ANSWER_WITHIN_S
        last: Exception = OSError("no server is named")
        for url in list(self._urls):
            # Behind the others before it is tried: whoever gives up meanwhile begins with the next one.
            self._urls.remove(url)
            self._urls.append(url)
            try:
                connection: asyncpg.Connection[Any] = await asyncpg.connect(url, **options)
            except _ANOTHER_MAY_DO as error:
                last = error
                continue
            self._urls.remove(url)
            self._urls.insert(0, url)
            _notice_soon(connection)
            return connection
        raise last


def wire_of(connection: asyncpg.Connection[Any]) -> socket.socket | None:
    """The socket of a connection; asyncpg has no word for it. None where it is not to be had."""
    wire = getattr(connection, "_transport", None)
    found: socket.socket | None = None if wire is None else wire.get_extra_info("socket")
    return found


def _notice_soon(connection: asyncpg.Connection[Any]) -> None:
    """Have the kernel give a connection up when its other end has vanished; where it can (Linux) and is asked (TCP)."""
    # asyncpg sets no such options; a descriptor of the same socket takes them as well.
    found = wire_of(connection)
    if found is None or not hasattr(socket, "TCP_USER_TIMEOUT"):
        return
    with suppress(OSError), socket.socket(fileno=os.dup(found.fileno())) as same:
        if same.family not in (socket.AF_INET, socket.AF_INET6):
            return
        every_s = UNACKNOWLEDGED_MAX_S // _QUESTIONS
        same.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, every_s)
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, every_s)
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _QUESTIONS)
        same.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MAX_S * 1000)
