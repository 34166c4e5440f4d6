"""Asking processes whether they are healthy, without a thread or an event loop in the supervisor."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass, field
from typing import Final

_ASK_AGAIN_S: Final = 0.03
_TIMEOUT_S: Final = 3.0
_REQUEST: Final = "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Probe:
    """One question, `GET /health` unless told otherwise, under way on a non-blocking connection."""

    def __init__(self, *, host: str, port: int, now: float, path: str = "/health") -> None:
        self.asked_at = now
        self.deadline = now + _TIMEOUT_S
        self._request = _REQUEST.format(path=path).encode("ascii")
        self._answer = b""
        self._is_sent = False
        self.is_over = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        with contextlib.suppress(OSError):  # a refusal shows at the first send
            self.socket.connect((host, port))

    @property
    def waits_to_write(self) -> bool:
        """Whether the connection must become writable next (else readable)."""
        return not self._is_sent

    @property
    def has_answer(self) -> bool:
        """Whether anything at all came back."""
        return bool(self._answer)

    def advance(self) -> bool | None:
        """Go on as far as possible: True for a 200, False for anything else, None while the answer is awaited."""
        try:
            if not self._is_sent:
                self.socket.send(self._request)
                self._is_sent = True
            received = self.socket.recv(256)
        except BlockingIOError:
            return None
        except OSError as error:
            self.is_over = error.errno != errno.ENOTCONN
            return False if self.is_over else None
        self._answer += received
        self.is_over = not received
        if len(self._answer) < len(b"HTTP/1.1 200") and received:
            return None
        return self._answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200"))

    def close(self) -> None:
        self.socket.close()


@dataclass(slots=True)
class HealthWatch:
    """Asks each awaited process again and again until it answers 200."""

    host: str
    _awaited: dict[str, int] = field(default_factory=dict)
    _under_way: dict[str, Probe] = field(default_factory=dict)
    _ask_at: dict[str, float] = field(default_factory=dict)

    def await_health(self, *, name: str, port: int) -> None:
        """Begin to ask; the name comes out of `healthy_now` once."""
        self.forget(name)
        self._awaited[name] = port

    def forget(self, name: str) -> None:
        """Stop asking, for instance because the process ended."""
        probe = self._under_way.pop(name, None)
        if probe is not None:
            probe.close()
        self._awaited.pop(name, None)
        self._ask_at.pop(name, None)

    def close(self) -> None:
        """Stop asking everybody; also in a forked child, which inherits the connections."""
        for name in list(self._awaited):
            self.forget(name)

    @property
    def is_waiting(self) -> bool:
        return bool(self._awaited)

    @property
    def awaited(self) -> list[str]:
        return list(self._awaited)

    def waits_for(self) -> list[tuple[socket.socket, bool]]:
        """The connections to select on, with whether each waits to write."""
        return [(probe.socket, probe.waits_to_write) for probe in self._under_way.values()]

    def healthy_now(self, *, now: float) -> list[str]:
        """Advance every question; the names that have just answered 200."""
        healthy = []
        for name, port in list(self._awaited.items()):
            probe = self._under_way.get(name)
            if probe is None:
                if now < self._ask_at.get(name, 0.0):
                    continue
                probe = self._under_way[name] = Probe(host=self.host, port=port, now=now)
            answer = probe.advance()
            if answer is None and now < probe.deadline:
                continue
            probe.close()
            del self._under_way[name]
            self._ask_at[name] = now + _ASK_AGAIN_S
            if answer:
                self.forget(name)
                healthy.append(name)
        return healthy
