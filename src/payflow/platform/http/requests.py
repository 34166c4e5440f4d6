"""Rate, errors and duration of what comes in over HTTP, by route: never by path, which has ids in it."""

from __future__ import annotations

import re
from typing import Final

from prometheus_client import Counter, Histogram

from payflow.platform.http.asgi import Scope
from payflow.platform.measures import SECONDS

# Where an application that finds its routes by itself says which one it was; frameworks use the same key.
ROUTE: Final = "path_template"
UNMATCHED: Final = "unmatched"
_CONVERTER: Final = re.compile(r":[a-z]+\}")

_seconds: Final = Histogram(
    "payflow_http_request_seconds", "Time from a request's head to its answer.", ["method", "route"], buckets=SECONDS
)
_requests: Final = Counter("payflow_http_requests_total", "Requests answered.", ["method", "route", "status"])


class RequestMeasures:
    """Counts requests. One per process."""

    def __init__(self) -> None:
        self._routes: dict[str, str] = {}
        self._durations: dict[tuple[str, str], Histogram] = {}
        self._answers: dict[tuple[str, str, int], Counter] = {}

    def answered(
        self, method: str, route: str, *, status: int, seconds: float, exemplar: dict[str, str] | None = None
    ) -> None:
        """A request was answered, or (status 499) its client did not wait for that."""
        duration = self._durations.get((method, route))
        if duration is None:
            duration = self._durations[method, route] = _seconds.labels(method, route)
        duration.observe(seconds, exemplar)
        answer = self._answers.get((method, route, status))
        if answer is None:
            answer = self._answers[method, route, status] = _requests.labels(method, route, str(status))
        answer.inc()

    def route_of(self, scope: Scope) -> str:
        """The route's template, such as /payments/{transaction_id}."""
        template = scope.get(ROUTE)
        if template is None:
            return UNMATCHED
        route = self._routes.get(template)
        if route is None:
            route = self._routes[template] = _CONVERTER.sub("}", template)
        return route
