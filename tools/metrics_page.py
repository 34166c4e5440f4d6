"""docs/metrics.md: every metric with its labels and meaning, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
# How the name of each metric begins.
PREFIX: Final = "payflow_"
_KINDS: Final = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram", "LiveGauge": "gauge"}

HEAD: Final = """\
# Metrics

Every process tells these on `/metrics` of its own port (3001 to 3011), in Prometheus' text format, or in OpenMetrics
where `Accept` asks for `application/openmetrics-text`: that one has exemplars, which name a trace. Where
`PAYFLOW_OTLP_ENDPOINT` is set, the same figures are sent there as OTLP metrics, too ([watching](howto/watch.md)).

A metric appears on the processes of the service that counts it; those of `platform` appear on all. Labels have few
values, all known beforehand: states, codes, operations, currencies. No label holds an id, a name or a text that
somebody typed. Beside them are the library's own `process_*` and `python_*`.

Rates that people ask for are quotients of these. Payments completed of payments received:
`sum(rate(payflow_payments_total{state="COMPLETED"}[5m])) / sum(rate(payflow_payments_total{state="RECEIVED"}[5m]))`.
With `APPROVED` in place of `COMPLETED` it is the share that was approved, with `AWAITING_OTP` the share that needs a
one-time password, with `UNDER_REVIEW` the share that somebody has to look at.

Generated from the source by `python tools/generate_docs.py`.
"""


class Metric(NamedTuple):
    """A metric as its definition says. `counted_by`: platform, or the service."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    counted_by: str


def metrics(root: Path = ROOT) -> list[Metric]:
    """Every metric of the product, by name."""
    found: list[Metric] = []
    for path in sorted((root / "src" / "payflow").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if PREFIX not in text:
            continue
        tree = ast.parse(text)
        constants = _constants(tree)
        counted_by = path.parts[path.parts.index("services") + 1] if "services" in path.parts else "platform"
        for call in _definitions(tree):
            name, meaning, *more = [_value(argument, constants) for argument in call.args]
            found.append(Metric(name, _KINDS[_callee(call)], tuple(more[0]) if more else (), meaning, counted_by))
    return sorted(found)


def metrics_page() -> str:
    """The page."""
    lines = [HEAD, "| metric | kind | labels | counted by | meaning |", "|---|---|---|---|---|"]
    for metric in metrics():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        meaning = metric.meaning.replace("|", "\\|")
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.counted_by} | {meaning} |")
    return "\n".join(lines) + "\n"


def _definitions(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls that define a metric: at the top of a module, with a name that begins with payflow_."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _callee(node) in _KINDS and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and str(first.value).startswith(PREFIX):
                yield node


def _callee(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """What a module's own names stand for, since several metrics may share their labels."""
    named: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            named[node.target.id] = node.value
    return named


def _value(node: ast.expr, constants: dict[str, ast.expr]) -> str | list[str]:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return _value(constants[node.id], constants)
    if isinstance(node, ast.List | ast.Tuple):
        values: list[str] = []
        for element in node.elts:
            inner = _value(element.value if isinstance(element, ast.Starred) else element, constants)
            values.extend(inner if isinstance(inner, list) else [inner])
        return values
    raise ValueError(f"line {node.lineno}: a metric's name, meaning and labels are written out")
