"""A client that sends any bytes, from any address of this machine, and reads what HTTP/1.1 says comes back."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

WAIT_S: Final = 15.0


@dataclass(frozen=True)
class RawAnswer:
    """One answer. `fields`: every header field in order, names in lower case."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def all_of(self, name: str) -> list[str]:
        """Every value of a header field."""
        return [value for other, value in self.fields if other == name]

    def one(self, name: str) -> str:
        """The value of a field that must be there exactly once."""
        (value,) = self.all_of(name)
        return value

    @property
    def problem(self) -> dict[str, Any]:
        """The problem that this answer is; its status must be the answer's."""
        assert self.one("content-type") == "application/problem+json", self
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status, self
        return document

    @property
    def error(self) -> str:
        """The code of the problem that this answer is."""
        return str(self.problem["error"])


class Connection:
    """One connection to a server on this machine."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._rest = b""

    def send(self, data: bytes) -> None:
        """Send; a server that has closed already is found out by reading."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.sock.sendall(data)

    def read(self, *, has_body: bool = True) -> RawAnswer | None:
        """The next answer; None where the connection ends instead. Raises TimeoutError."""
        head = self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        pairs = [line.split(":", 1) for line in lines]
        fields = tuple((name.lower(), value.strip()) for name, value in pairs)
        answer = RawAnswer(int(first.split(" ")[1]), fields, b"")
        return RawAnswer(answer.status, fields, self._body(answer) if has_body else b"")

    def is_closed(self) -> bool:
        """Whether nothing more comes. Raises TimeoutError where the server keeps the connection."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _body(self, answer: RawAnswer) -> bytes:
        if answer.all_of("transfer-encoding"):
            body = b""
            while size := int((self._until(b"\r\n") or b"0").split(b";")[0], 16):
                body += self._exactly(size + 2)[:-2]
            self._until(b"\r\n")
            return body
        return self._exactly(int((answer.all_of("content-length") or ["0"])[0]))

    def _until(self, mark: bytes) -> bytes | None:
        while mark not in self._rest:
            if not self._more():
                return None
        end = self._rest.index(mark) + len(mark)
        found, self._rest = self._rest[:end], self._rest[end:]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._rest) < size:
            if not self._more():
                raise EOFError(self._rest)
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def _more(self) -> bool:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            return False
        self._rest += data
        return bool(data)


@contextmanager
def connection(port: int, *, source: str = "127.0.0.1") -> Iterator[Connection]:
    """A connection from an address of this machine's loopback network."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S, source_address=(source, 0)) as sock:
        yield Connection(sock)


def ask(port: int, data: bytes, *, source: str = "127.0.0.1", has_body: bool = True) -> RawAnswer:
    """Send bytes on a fresh connection and read one answer. Raises AssertionError where none comes."""
    with connection(port, source=source) as link:
        link.send(data)
        answer = link.read(has_body=has_body)
    assert answer is not None, "the connection was closed without an answer"
    return answer


def request(method: str, path: str, *fields: str, body: bytes = b"", host: str = "localhost") -> bytes:
    """A well-formed request; its length is told where it has a body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
