"""The log of a process, in a string for one test."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import structlog

from payflow.platform.context import current_traceparent
from payflow.platform.telemetry import configure_logging

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Written:
    """What was written to stdout."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def lines(self) -> list[dict[str, Any]]:
        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            assert len({name for name, _ in pairs}) == len(pairs), pairs
            return dict(pairs)

        return [json.loads(line, object_pairs_hook=once) for line in self._stream.getvalue().splitlines()]


@contextmanager
def logging_to(monkeypatch: pytest.MonkeyPatch, *, level: str = "info") -> Iterator[Written]:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    root = logging.getLogger()
    handlers, severity = root.handlers[:], root.level
    configure_logging(service="confirm", instance="confirm-1", level=level)
    current_traceparent.set(TRACEPARENT)
    try:
        yield Written(stream)
    finally:
        current_traceparent.set("")
        monkeypatch.undo()
        configure_logging(service="tests", instance="tests", level="info")
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(severity)
