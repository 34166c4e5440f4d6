"""Logs: one JSON object per line on stdout, with ECS field names and the trace of the request in hand; never personal
data. docs/logs.md says which fields there are.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO, cast

import msgspec
import structlog
from prometheus_client import Counter

from payflow.platform.context import current_traceparent

ECS_VERSION: Final = "8.17.0"
# Our words for what the Elastic Common Schema has a name for. All others are ours, under `payflow.`.
_ECS_NAMES: Final = {
    "message": "message",
    "trace_id": "trace.id",
    "error": "error.message",
    "error_code": "error.code",
    "exception": "error.stack_trace",
    "logger": "log.logger",
    "pid": "process.pid",
    "method": "http.request.method",
    "path": "url.path",
    "status": "http.response.status_code",
    "duration_ns": "event.duration",
}
_encoder: Final = msgspec.json.Encoder(enc_hook=repr)


def ecs_name(name: str) -> str:
    """The field of a log line that a value of this name stands in."""
    return _ECS_NAMES.get(name) or f"payflow.{name}"


class Line(msgspec.Struct, kw_only=True, omit_defaults=True, rename=ecs_name):
    """A line that is written for every payment or call: encoded as it stands, at a tenth of what the others cost.

    Subclasses name their fields in our words and repeat `omit_defaults=True, rename=ecs_name`.
    """

    message: str
    trace_id: str = ""


_counted: Final = Counter("payflow_log_lines_total", "Log lines that complain, by level.", ["level"])
_complaints: Final = {level: _counted.labels(level) for level in ("warning", "error", "critical")}


class _Output:
    """Where this process's lines go, and what all of them say."""

    def __init__(self) -> None:
        self.lines = _Lines(sys.stdout)
        self.fixed = ""
        self.is_told = True


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


_output: Final = _Output()


def configure_logging(*, service: str, instance: str, level: str) -> None:
    """Send structlog's and the standard library's logs of this process to stdout as JSON lines."""
    severity = logging.getLevelNamesMapping()[level.upper()]
    identity = {"ecs.version": ECS_VERSION, "service.name": service, "service.node.name": instance}
    _output.lines = _Lines(sys.stdout)
    _output.fixed = f",{_encoder.encode(identity).decode()[1:-1]}"
    _output.is_told = severity <= logging.INFO
    structlog.configure(
        processors=[structlog.processors.format_exc_info, _as_line],
        wrapper_class=structlog.make_filtering_bound_logger(severity),
        # The class says `TextIO`, and uses `write` and `flush` only.
        logger_factory=structlog.WriteLoggerFactory(file=cast(TextIO, _output.lines)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_StandardLibraryAsJson())
    logging.basicConfig(handlers=[handler], level=max(severity, logging.WARNING), force=True)


def write_line(line: Line) -> None:
    """Write one line at level info."""
    if _output.is_told:
        _output.lines.write(_line("info", _encoder.encode(line).decode()) + "\n")
        _output.lines.flush()


def is_told() -> bool:
    """Whether lines at level info are written at all."""
    return _output.is_told


def _as_line(_: Any, level: str, event: MutableMapping[str, Any]) -> str:
    """structlog's last word: the line as it goes out. What was said in our words goes under its ECS name."""
    told: dict[str, Any] = {"message": event.pop("event", "")}
    event.pop("service", None)  # every line names it already
    traceparent = current_traceparent.get()
    if traceparent and "trace_id" not in event:
        told["trace.id"] = traceparent[3:35]
    for name, value in event.items():
        told[ecs_name(name)] = value
    return _line(level, _encoder.encode(told).decode())


def _line(level: str, told: str) -> str:
    counter = _complaints.get(level)
    if counter is not None:
        counter.inc()
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    return f'{{"@timestamp":"{now[:-6]}Z","log.level":"{level}",{told[1:-1]}{_output.fixed}}}'


class _StandardLibraryAsJson(logging.Formatter):
    """Gives library messages the same shape; their exceptions are named by type only, for they may quote data."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {"message": record.getMessage(), "log.logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            told["error.type"] = record.exc_info[0].__name__
        return _line(record.levelname.lower(), _encoder.encode(told).decode())
