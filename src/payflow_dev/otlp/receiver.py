"""The receiver: OTLP over HTTP on a port of loopback, in threads of its own, with what came kept in memory."""

from __future__ import annotations

import gzip
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from google.protobuf.message import DecodeError

from payflow_dev.otlp.received import SeenPoint, SeenSpan, points_in, spans_in

SPANS_MAX: Final = 100_000
_TRACES: Final = "/v1/traces"
_METRICS: Final = "/v1/metrics"


class Receiver:
    """Listens from `start` to `stop`; a context manager. `on_span` is called for each span, in a receiving thread."""

    def __init__(self, *, port: int = 0, on_span: Callable[[SeenSpan], None] | None = None) -> None:
        self._on_span = on_span
        self._spans: deque[SeenSpan] = deque(maxlen=SPANS_MAX)
        self._points: dict[tuple[object, ...], SeenPoint] = {}
        self._news = threading.Condition()
        self.refuses_with = 0
        self.requests = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="otlp-receiver", daemon=True)

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What PAYFLOW_OTLP_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, path: str, body: bytes) -> int:
        """Take one message; returns the status to answer with."""
        self.requests += 1
        if self.refuses_with:
            return self.refuses_with
        try:
            spans = list(spans_in(body)) if path == _TRACES else []
            points = list(points_in(body)) if path == _METRICS else []
        except DecodeError:
            return 400
        with self._news:
            self._spans.extend(spans)
            for point in points:
                self._points[point.name, point.instance, *sorted(point.labels.items())] = point
            self._news.notify_all()
        if self._on_span is not None:
            for span in spans:
                self._on_span(span)
        return 200 if path in (_TRACES, _METRICS) else 404

    def spans(self, trace_id: str = "") -> list[SeenSpan]:
        """What came, of one trace or of all, by the time of its beginning."""
        with self._news:
            found = [span for span in self._spans if not trace_id or span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.started_ns)

    def points(self, name: str) -> list[SeenPoint]:
        """The newest values of a metric, of every process."""
        with self._news:
            return [point for point in self._points.values() if point.name == name]

    def wait_until(self, condition: Callable[[], Any], *, seconds: float) -> Any:
        """What `condition` says once it says something true. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"it did not come within {seconds} s")
            with self._news:
                self._news.wait(min(left, 0.5))


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            self.send_response(receiver.take(self.path, body))
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
