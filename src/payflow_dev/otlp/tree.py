"""A trace as text: who called whom, how long it took, and what was decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from payflow_dev.otlp.received import SeenSpan

_SHOWN: Final = ("payflow.", "http.response.status_code", "rpc.retries")


def tree_of(spans: Sequence[SeenSpan]) -> list[str]:
    """The lines of one trace. A span whose parent is not among them stands at the top."""
    known = {span.span_id for span in spans}
    below: dict[str, list[SeenSpan]] = {}
    for span in sorted(spans, key=lambda one: one.started_ns):
        below.setdefault(span.parent_id if span.parent_id in known else "", []).append(span)
    lines = [f"trace {spans[0].trace_id}"] if spans else []

    def add(span: SeenSpan, depth: int) -> None:
        lines.append(f"{'  ' * depth}{_line(span)}")
        for name, attributes in span.events:
            lines.append(f"{'  ' * (depth + 1)}* {name} {_told(attributes)}")
        for trace_id, span_id in span.links:
            lines.append(f"{'  ' * (depth + 1)}~ together with trace {trace_id} span {span_id}")
        for child in below.get(span.span_id, ()):
            add(child, depth + 1)

    for root in below.get("", ()):
        add(root, 1)
    return lines


def _line(span: SeenSpan) -> str:
    error = f" ERROR {span.error}" if span.error else ""
    return f"{span.service} {span.name} [{span.kind}] {span.seconds * 1000:.1f} ms{error} {_told(span.attributes)}"


def _told(attributes: dict[str, object]) -> str:
    told = {name.removeprefix("payflow."): value for name, value in attributes.items() if name.startswith(_SHOWN)}
    return " ".join(f"{name}={value}" for name, value in sorted(told.items())).rstrip()
