"""Logs: one JSON object per line on stdout, with the trace id of the request in hand; never personal data."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO, cast

import msgspec
import structlog

from payflow.platform.context import current_traceparent

_encoder = msgspec.json.Encoder(enc_hook=repr)


def configure_logging(*, service: str, instance: str, level: str) -> None:
    """Send structlog's and the standard library's logs of this process to stdout as JSON lines."""

    def add_context(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        event["instance"] = instance
        traceparent = current_traceparent.get()
        if traceparent:
            event.setdefault("trace_id", traceparent[3:35])
        return event

    severity = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            add_context,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_as_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        # The class says `TextIO`, and uses `write` and `flush` only.
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _Lines(sys.stdout))),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_StandardLibraryAsJson(service, instance))
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING), force=True)


class _Lines:
    """Writes what was logged in one turn of the event loop together: a line per payment costs no system call each."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []

    def write(self, text: str) -> None:
        """Add to what goes out next."""
        self._lines.append(text)

    def flush(self) -> None:
        """Let it go out at the end of this turn; at once where no loop runs."""
        if len(self._lines) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._go_out)
            except RuntimeError:
                self._go_out()

    def _go_out(self) -> None:
        lines, self._lines = self._lines, []
        self._stream.write("".join(lines))
        self._stream.flush()


def _as_json(event: Any, **_: Any) -> str:
    return _encoder.encode(event).decode()


class _StandardLibraryAsJson(logging.Formatter):
    """Gives library messages the same shape; their exceptions are named by type only, for they may quote data."""

    def __init__(self, service: str, instance: str) -> None:
        super().__init__()
        self._context = {"service": service, "instance": instance}

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            **self._context,
        }
        if record.exc_info and record.exc_info[0] is not None:
            event["error"] = record.exc_info[0].__name__
        return _as_json(event)
