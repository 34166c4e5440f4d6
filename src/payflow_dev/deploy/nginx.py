"""The files of deploy/nginx/payflow/ that follow from the code: gateways, published addresses, problems."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from payflow.contracts.problems import problem_for
from payflow.platform.http import headers as security
from payflow.platform.http.asgi import BODY_MAX_BYTES
from payflow.platform.http.edge import METHODS
from payflow.platform.http.health import HEALTH_PATHS
from payflow.platform.http.problem import PROBLEM_JSON
from payflow.run.registry import SERVICES
from payflow.services.gateway.routes import all_handlers
from payflow.services.gateway.routes.bulk import BULK_PATH
from payflow.services.gateway.routes.bulk_upload import FILE_MAX_BYTES, UPLOAD_S_MAX
from payflow.services.gateway.routes.openapi import openapi_document
from payflow_dev.deploy.names import GENERATED, address_of

# Each process answers these too, and outside they are nobody's business.
_INTERNAL: Final = frozenset({"/metrics"})
_PARAMETER: Final = re.compile(r"\{[^}]+\}")
# The framework's way to write a parameter: {name:str}.
_TYPE: Final = re.compile(r":\w+\}")
_EVENT_STREAM: Final = "text/event-stream"

# What NGINX itself may answer, and the problem that says so. Those without a problem of their own are malformed.
_STATUSES: Final = (
    ((400, 411, 412, 414, 416, 421, 495, 496, 497, 501, 505), "MALFORMED_REQUEST"),
    ((404, 403), "NOT_FOUND"),
    ((405,), "METHOD_NOT_ALLOWED"),
    ((408,), "REQUEST_TIMEOUT"),
    ((413,), "PAYLOAD_TOO_LARGE"),
    ((429,), "RATE_LIMITED"),
    ((431, 494), "HEADERS_TOO_LARGE"),
    ((500,), "INTERNAL_ERROR"),
    ((503,), "OVERLOADED"),
)
_FROM_GATEWAYS: Final = (502, 504)


def upstream_conf(servers: Sequence[str] | None = None) -> str:
    """The gateways behind the edge; `servers` ("host:port") in place of those of the registry."""
    chosen = [address_of(row) for row in SERVICES if row.is_gateway] if servers is None else servers
    lines = "\n".join(f"    server {server} max_fails=5 fail_timeout=1s;" for server in chosen)
    return f"""\
{GENERATED}
upstream gateways {{
    # Counted over all workers: connections of each gateway, and whether it fails.
    zone gateways 128k;
    least_conn;
    # Five failures within a second keep a gateway out for a second. No longer: it is started again as soon, and a
    # request that meets a dead one is handed to the other at once.
{lines}
    # Ended here before the gateways end it (after 75 s), so that no request meets a connection that is being closed.
    keepalive 64;
    keepalive_timeout 30s;
    keepalive_requests 10000;
}}
"""


def routes_conf() -> str:
    """The log's name of a request's address: the published path with its parameters' names for their values."""
    lines = "\n".join(f'    "~^{_pattern_of(path)}(\\?|$)" "{path}";' for path in _by_specificity(published_paths()))
    return f"""\
{GENERATED}
map $request_uri $edge_route {{
    default other;
{lines}
}}
"""


def public_conf() -> str:
    """The locations: what the gateway publishes goes on to it, everything else is 404."""
    paths = published_paths()
    streams = "|".join(_pattern_of(path) for path in _by_specificity(_streams()))
    parts = sorted({path.split("/")[1] for path in paths} - {""})
    first = "|".join(re.escape(part).replace(r"\-", "-") for part in parts)
    bulk_mb = FILE_MAX_BYTES // (1024 * 1024)
    return f"""\
{GENERATED}
client_max_body_size {BODY_MAX_BYTES // 1024}k;

# A file of payments: handed on as it comes, and never sent twice. Beyond {bulk_mb} MB the gateway says so itself.
location = {BULK_PATH} {{
    include payflow/proxy.conf;
    client_max_body_size {bulk_mb + 1}m;
    client_body_timeout 30s;
    proxy_request_buffering off;
    proxy_send_timeout 60s;
    proxy_read_timeout {int(UPLOAD_S_MAX)}s;
    proxy_next_upstream off;
}}

# Server-sent events: each goes on at once. A gateway sends a sign of life every ten seconds.
location ~ ^(?:{streams})$ {{
    include payflow/proxy.conf;
    proxy_buffering off;
    send_timeout 60s;
}}

location = / {{
    include payflow/proxy.conf;
}}

location ~ ^/(?:{first})(?:/|$) {{
    include payflow/proxy.conf;
}}

# Everything else does not exist: private operations, metrics, and whatever a later release serves inside.
location / {{
    return 404;
}}
"""


def problems_conf() -> str:
    """What NGINX answers itself, in the shape of every refusal (RFC 9457)."""
    blocks = []
    for statuses, code in _STATUSES:
        status = problem_for(code).status
        codes = " ".join(map(str, statuses))
        blocks.append(
            f"error_page {codes} = /_problem/{status};\n"
            f"location = /_problem/{status} {{\n"
            "    internal;\n"
            "    include payflow/problem_headers.conf;\n"
            f"{_extra_headers(status)}"
            f"    return {status} '{problem_text(code)}';\n"
            "}\n"
        )
    blocks += [_gateway_problem(status) for status in _FROM_GATEWAYS]
    return f"{GENERATED}\n" + "\n".join(blocks)


def problem_headers_conf() -> str:
    """The header fields of NGINX's own answers: those that a gateway's answer has."""
    lines = [f'add_header {_title(name.decode())} "{value.decode()}" always;' for name, value in security.PUBLIC]
    return "\n".join(
        [
            GENERATED,
            f"default_type {PROBLEM_JSON.decode()};",
            *lines,
            "add_header X-Request-Id $edge_request_id always;",
            "add_header traceresponse $edge_traceparent always;",
            "",
        ]
    )


def problem_text(code: str, *, status: int | None = None) -> str:
    """A problem's JSON as the value of `return`, with NGINX's variables for the path and the trace."""
    problem = problem_for(code)
    members: dict[str, Any] = {
        "type": problem.type,
        "title": problem.title,
        "status": status or problem.status,
        "detail": problem.detail,
        "instance": "$edge_instance",
        "error": problem.code,
        "trace_id": "$edge_trace_id",
    }
    return msgspec.json.encode(members).decode().replace("\\", "\\\\").replace("'", "\\'")


def published_paths() -> list[str]:
    """Every path of the public API, parameters in braces, and the checks that a load balancer asks for."""
    handled = {_TYPE.sub("}", path) for handler in all_handlers() for path in handler.paths}
    return sorted({*_document()["paths"], *handled, *(HEALTH_PATHS - _INTERNAL)})


def _streams() -> list[str]:
    """The published paths that answer with server-sent events."""
    found = []
    for path, operations in _document()["paths"].items():
        answers = [answer for operation in operations.values() for answer in operation.get("responses", {}).values()]
        if any(_EVENT_STREAM in answer.get("content", {}) for answer in answers):
            found.append(path)
    return found


def _document() -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(openapi_document()[0])
    return document


def _gateway_problem(status: int) -> str:
    """No answer came from a gateway: that nothing happened is said only where that is known."""
    return (
        f"error_page {status} = /_problem/{status};\n"
        f"location = /_problem/{status} {{\n"
        "    internal;\n"
        "    include payflow/problem_headers.conf;\n"
        "    add_header Retry-After 1 always;\n"
        "    if ($edge_nothing_happened) {\n"
        f"        return 503 '{problem_text('SERVICE_UNAVAILABLE')}';\n"
        "    }\n"
        f"    return {status} '{problem_text('UNKNOWN_OUTCOME', status=status)}';\n"
        "}\n"
    )


def _extra_headers(status: int) -> str:
    if status == 405:
        return f'    add_header Allow "{", ".join(sorted(METHODS))}" always;\n'
    return "    add_header Retry-After 1 always;\n" if status in (429, 503) else ""


def _pattern_of(path: str) -> str:
    """A path as a regular expression; a parameter is anything between two slashes."""
    return _PARAMETER.sub("[^/?]+", path.replace(".", r"\."))


def _by_specificity(paths: Iterable[str]) -> list[str]:
    """Of two paths that could be meant, the one with fewer parameters first."""
    return sorted(paths, key=lambda path: (path.count("{"), path))


def _title(name: str) -> str:
    return "-".join(part.capitalize() for part in name.split("-"))
