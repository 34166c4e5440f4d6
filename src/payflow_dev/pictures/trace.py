"""Draw one trace as a waterfall: `python -m payflow_dev.pictures.trace TRACE_ID --jaeger http://localhost:16686`.

The spans come from Jaeger's query API, which is what its own page draws from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from payflow_dev.pictures.asking import data_of
from payflow_dev.pictures.panels import ticks_of
from payflow_dev.pictures.svg import COLOURS, FAINT, INK, PAPER, RULE, Drawing, shortened, width_of

_WIDTH, _TREE, _MARGIN, _ROW, _HEAD = 1200, 430, 16, 22, 76
_BARS: Final = _WIDTH - _TREE - _MARGIN
_FAILED: Final = "#b5483a"


class Span(NamedTuple):
    """One span: times in microseconds, the start from that of the trace; `depth` from the root."""

    service: str
    name: str
    began_us: int
    took_us: int
    depth: int
    has_failed: bool


def spans_of(trace: dict[str, Any]) -> list[Span]:
    """The spans of a trace as Jaeger tells it, each before its children, these as they began."""
    by_parent: dict[str, list[dict[str, Any]]] = {}
    known = {span["spanID"] for span in trace["spans"]}
    for span in sorted(trace["spans"], key=lambda span: int(span["startTime"])):
        by_parent.setdefault(_parent(span, known), []).append(span)
    began_us = min(int(span["startTime"]) for span in trace["spans"])

    def walk(parent: str, depth: int) -> Iterator[Span]:
        for span in by_parent.get(parent, []):
            service = trace["processes"][span["processID"]]["serviceName"]
            failed = any(tag["key"] == "error" and tag["value"] in (True, "true") for tag in span["tags"])
            yield Span(
                service, span["operationName"], int(span["startTime"]) - began_us, int(span["duration"]), depth, failed
            )
            yield from walk(span["spanID"], depth + 1)

    return list(walk("", 0))


def _parent(span: dict[str, Any], known: set[str]) -> str:
    """The id of a span's parent; empty for a root, and where the parent is not there."""
    for reference in span.get("references", ()):
        if reference["refType"] == "CHILD_OF" and reference["spanID"] in known:
            return str(reference["spanID"])
    return ""


def waterfall(trace_id: str, spans: Sequence[Span]) -> str:
    """The picture, as SVG."""
    total_us = max(span.began_us + span.took_us for span in spans)
    services = list(dict.fromkeys(span.service for span in spans))
    colours = {service: COLOURS[number % len(COLOURS)] for number, service in enumerate(services)}
    height = _HEAD + _ROW * len(spans) + _MARGIN
    drawing = Drawing(_WIDTH, height, title=f"Trace {trace_id}")
    told = f"{len(spans)} spans of {len(services)} services, {duration(total_us)}"
    drawing.text(_MARGIN, 28, f"{spans[0].service}: {spans[0].name}", size=17, is_bold=True)
    drawing.text(_MARGIN, 50, f"trace {trace_id}", size=12, colour=FAINT)
    drawing.text(_WIDTH - _MARGIN, 28, told, size=13, colour=FAINT, anchor="end")
    for tick in (tick for tick in ticks_of(0, total_us) if tick <= total_us):
        x = _TREE + _BARS * tick / total_us
        drawing.line([(x, _HEAD - 8), (x, height - _MARGIN)], colour=RULE)
        anchor = "end" if x > _WIDTH - 60 else "middle" if tick else "start"
        drawing.text(x, _HEAD - 14, duration(int(tick)), size=11, colour=FAINT, anchor=anchor)
    for number, span in enumerate(spans):
        _draw(drawing, span, _HEAD + _ROW * number, total_us, colours[span.service])
    return drawing.svg()


def _draw(drawing: Drawing, span: Span, top: float, total_us: int, colour: str) -> None:
    """One row: whose it is and what, then when."""
    left = _MARGIN + 14 * span.depth
    middle = top + _ROW / 2
    drawing.rectangle(left, top + 3, 4, _ROW - 6, fill=colour)
    name_at = left + 10 + width_of(span.service, 13) + 6
    drawing.text(left + 10, middle + 4, span.service, size=12, is_bold=True)
    drawing.text(name_at, middle + 4, shortened(span.name, 12, _TREE - name_at - 8), size=12, colour=FAINT)
    x = _TREE + _BARS * span.began_us / total_us
    width = max(_BARS * span.took_us / total_us, 2)
    drawing.rectangle(x, top + 5, width, _ROW - 10, fill=_FAILED if span.has_failed else colour, round_by=2)
    told = duration(span.took_us)
    needed = width_of(told, 11) + 6
    if x + width + needed < _WIDTH - _MARGIN:
        drawing.text(x + width + 5, middle + 4, told, size=11, colour=INK)
    elif needed < width:
        drawing.text(x + width - 5, middle + 4, told, size=11, colour=PAPER, anchor="end")
    else:
        drawing.text(x - 5, middle + 4, told, size=11, colour=INK, anchor="end")


def duration(us: int) -> str:
    """Microseconds as a person says them."""
    if us == 0:
        return "0"
    if us < 1_000:
        return f"{us} µs"
    return f"{us / 1_000:.1f} ms" if us < 1_000_000 else f"{us / 1_000_000:.2f} s"


def fetch(jaeger: str, trace_id: str) -> dict[str, Any]:
    """A trace by Jaeger's API. Raises SystemExit where there is none of that id."""
    found: list[dict[str, Any]] = data_of(f"{jaeger}/api/traces/{trace_id}")
    return found[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch, draw, write."""
    parser = argparse.ArgumentParser(prog="python -m payflow_dev.pictures.trace", description=__doc__)
    parser.add_argument("trace_id", help="as `traceresponse` tells it")
    parser.add_argument("--jaeger", default="http://localhost:16686", help="where Jaeger answers")
    parser.add_argument("--out", type=Path, default=Path("trace.svg"), help="the picture")
    given = parser.parse_args(arguments)
    spans = spans_of(fetch(given.jaeger, given.trace_id))
    given.out.write_text(waterfall(given.trace_id, spans), encoding="utf-8")
    print(f"{given.out}: {len(spans)} spans")


if __name__ == "__main__":
    main()
