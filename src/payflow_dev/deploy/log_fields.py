"""Which fields the log lines of a deployment can have, and of which type: read from the code that writes them.

A log line's fields are the keywords of the calls of `log` and the members of the subclasses of `Line`
(payflow.platform.telemetry); the edge's are in its log format; the collector adds its own. deploy/elastic/template.json
is made from this, and takes no other field.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import payflow
from payflow.platform.telemetry import ecs_name

LOG_FORMAT: Final = "deploy/nginx/payflow/log.conf"
_CODE: Final = Path(payflow.__file__).parent
_ROOT: Final = _CODE.parents[1]
_LEVELS: Final = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
# What a level of a logger is called where it is chosen first: `tell = log.info if ... else log.debug`.
_TELL: Final = "tell"
_LINE: Final = "Line"
# Told by every line's `service.name` already.
_LEFT_OUT: Final = frozenset({"service"})
_EDGE_FIELD: Final = re.compile(r'"([@a-z][a-z_.]*)":')

# What telemetry writes into every line, and what it makes of an exception and of a library's line.
ALWAYS: Final = (
    "@timestamp",
    "log.level",
    "message",
    "ecs.version",
    "service.name",
    "service.node.name",
    "trace.id",
    "error.stack_trace",
    "error.type",
    "log.logger",
)
# What the collector says of a line (deploy/otel/logs.yaml).
COLLECTED: Final = ("@timestamp", "container.name", "log.iostream", "message")

_KEYWORD: Final = {"type": "keyword", "ignore_above": 1024}
_LONG: Final = {"type": "long"}
_FLOAT: Final = {"type": "float"}
_BOOLEAN: Final = {"type": "boolean"}
# Counts by a code or a state: kept in the document and shown, not searched; each would be a field of its own.
_COUNTS: Final = {"type": "object", "enabled": False}
_TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "@timestamp": {"type": "date"},
    # Searched by its beginning (`payment.*`), and counted by its whole.
    "message": {"type": "text", "fields": {"keyword": {"type": "keyword", "ignore_above": 256}}},
    "error.stack_trace": {"type": "keyword", "index": False, "doc_values": False},
    "client.ip": {"type": "ip"},
    "payflow.messages": {"properties": dict.fromkeys(("customer_id", "kind", "message_id"), _KEYWORD)},
    **dict.fromkeys(("payflow.counts", "payflow.failures"), _COUNTS),
    **dict.fromkeys(("payflow.machine_minus_database_s", "payflow.seconds"), _FLOAT),
    **dict.fromkeys(("payflow.is_marked", "payflow.is_on_us"), _BOOLEAN),
    **dict.fromkeys(
        (
            "event.duration",
            "http.request.bytes",
            "http.response.bytes",
            "http.response.status_code",
            "process.pid",
            *(
                f"payflow.{name}"
                for name in (
                    *("after", "count", "events", "first_line", "items", "lines", "not_sent", "number", "partitions"),
                    *("payments", "processes", "revocations", "rows", "sent", "takeovers", "transactions", "tries"),
                    "version",
                )
            ),
        ),
        _LONG,
    ),
}


class UnnamedFields(Exception):
    """A call of `log` whose fields cannot be read from the code; the message says where it is."""


def fields() -> dict[str, Mapping[str, Any]]:
    """Every field that a document in the store of logs can have, by name, with its type for the store."""
    names = {*service_fields(), *edge_fields(), *COLLECTED}
    return {name: _TYPES.get(name, _KEYWORD) for name in sorted(names)}


@cache
def service_fields() -> frozenset[str]:
    """The fields of our services' lines, read once: the code does not change while we run. Raises UnnamedFields."""
    found = set(ALWAYS)
    for path in sorted(_CODE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        for node in ast.walk(tree):
            found |= {ecs_name(name) for name in _said_by(node, path) if name not in _LEFT_OUT}
    return frozenset(found)


def edge_fields() -> set[str]:
    """The fields of the edge's lines."""
    return set(_EDGE_FIELD.findall((_ROOT / LOG_FORMAT).read_text(encoding="utf-8")))


def unused_types() -> set[str]:
    """Fields with a type that nothing writes."""
    return set(_TYPES) - set(fields())


def _said_by(node: ast.AST, path: Path) -> Iterator[str]:
    """The names, in our words, that a node gives to values of a line."""
    if isinstance(node, ast.Call) and _is_of_log(node.func):
        for keyword in node.keywords:
            if keyword.arg is None:
                raise UnnamedFields(f"{path}:{node.lineno}: name the fields of a log line; `**` hides them.")
            yield keyword.arg
    elif isinstance(node, ast.ClassDef) and _is_line(node):
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                yield statement.target.id


def _is_of_log(function: ast.expr) -> bool:
    """Whether it is `log.info`, `log.bind` and the like, or a level that was chosen before."""
    if isinstance(function, ast.Attribute):
        return (
            isinstance(function.value, ast.Name) and function.value.id == "log" and function.attr in {*_LEVELS, "bind"}
        )
    return isinstance(function, ast.Name) and function.id == _TELL


def _is_line(node: ast.ClassDef) -> bool:
    return node.name == _LINE or any(isinstance(base, ast.Name) and base.id == _LINE for base in node.bases)
