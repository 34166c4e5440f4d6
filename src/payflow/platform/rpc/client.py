"""The calling side: a contract's Protocol as an object whose operations travel coalesced over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, TypeVar, cast

import msgspec
import stamina
import structlog
from prometheus_client import Counter, Histogram

from payflow.contracts.operation import OperationSpec, operations_of
from payflow.kernel.errors import DeadlineExceeded, Overloaded, PayflowError, Unavailable, UnknownOutcome
from payflow.platform.context import current_deadline, current_traceparent, deadline_within
from payflow.platform.lines import CallLines
from payflow.platform.measures import SECONDS, LiveGauge
from payflow.platform.rpc.breaker import Breaker
from payflow.platform.rpc.coalescer import Coalescer
from payflow.platform.rpc.connections import Connections, NoAnswer, NotConnected
from payflow.platform.rpc.identity import Signer
from payflow.platform.rpc.wire import Codec, WireError
from payflow.platform.tracing.calls import CallSpans
from payflow.platform.tracing.span import exemplar_of

log = structlog.get_logger(__name__)

C = TypeVar("C")

ATTEMPTS_MAX: Final = 4
WAIT_INITIAL_S: Final = 0.02
DEADLINE_HEADER: Final = "payflow-deadline-ms"
_LINK: Final = ["callee", "operation"]
_batch_sizes: Final = Histogram(
    "payflow_rpc_batch_items", "Items per call.", _LINK, buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)
_seconds: Final = Histogram(
    "payflow_rpc_client_seconds", "Time per call as its caller sees it, retries included.", _LINK, buckets=SECONDS
)
_failures: Final = Counter(
    "payflow_rpc_client_failures_total", "Calls that brought no answers, by the error's code.", [*_LINK, "code"]
)
_retries: Final = Counter("payflow_rpc_client_retries_total", "Calls that were sent again.", _LINK)
_queued: Final = LiveGauge("payflow_rpc_queue_items", "Items that no call has taken yet.", _LINK)
_in_flight: Final = LiveGauge("payflow_rpc_calls_in_flight", "Calls under way.", _LINK)
_open: Final = LiveGauge("payflow_breaker_open", "1: the service does not answer, and is left alone.", ["callee"])


class _NotSent(Unavailable):
    """The request did not reach the peer: safe to repeat, whatever the operation."""


class _NoAnswer(UnknownOutcome):
    """The request may have reached the peer."""


class RefusedByContract(RuntimeError):
    """The peer refused the call in a way that no release does. A bug of ours."""


class NotInContract(Unavailable):
    """The peer does not know the operation, this caller of it, or the form of its items: nothing happened.

    So it is while an update runs, for as long as the peer is of another release. At any other time it is a bug of
    ours: the log has it as an error.
    """


class _Problem(msgspec.Struct):
    error: str = ""


_problem: Final = msgspec.json.Decoder(_Problem)


class HttpLink:
    """Calls one operation of one service over HTTP: identity, deadline, trace, retry, breaker."""

    def __init__(
        self, *, connections: Connections, codec: Codec, signer: Signer, breaker: Breaker, writes_lines: bool = False
    ) -> None:
        self._connections = connections
        self._codec = codec
        self._signer = signer
        self._breaker = breaker
        self._path = f"/rpc/{codec.spec.service}/{codec.spec.name}"
        self._labels = (codec.spec.service, codec.spec.name)
        self._batch_sizes = _batch_sizes.labels(*self._labels)
        self._seconds = _seconds.labels(*self._labels)
        self._retries = _retries.labels(*self._labels)
        self._spans = CallSpans(codec.spec)
        self._lines = CallLines(codec.spec, "call.made") if writes_lines else None

    async def send(self, items: list[Any], deadline: float) -> list[Any]:
        """Send one batch, repeating where that is safe and there is time. Raises Unavailable or UnknownOutcome."""
        self._batch_sizes.observe(len(items))
        span = self._spans.begin_client()
        began_at = perf_counter()
        try:
            answers = await self._send(items, deadline)
        except BaseException as error:
            if isinstance(error, PayflowError):
                _failures.labels(*self._labels, error.code).inc()
            if span is not None:
                self._spans.end_client(span, items, error)
            raise
        finally:
            seconds = perf_counter() - began_at
            self._seconds.observe(seconds, exemplar_of(span))
        if self._lines is not None:
            self._lines.write(items, answers, seconds=seconds)
        if span is not None:
            self._spans.end_client(span, items, answers)
        return answers

    async def _send(self, items: list[Any], deadline: float) -> list[Any]:
        body = self._codec.encode_items(items)
        retryable: tuple[type[Exception], ...] = (_NotSent,)
        if self._codec.spec.options.repeatable:
            retryable = (_NotSent, _NoAnswer)
        unanswered: _NoAnswer | None = None
        try:
            # The first attempt nearly always does it, and needs none of the machinery below.
            return await self._send_once(body, len(items), deadline)
        except retryable as error:
            if isinstance(error, _NoAnswer):
                unanswered = error
        remaining = deadline - asyncio.get_running_loop().time()
        await asyncio.sleep(min(WAIT_INITIAL_S, max(remaining, 0)))
        try:
            async for attempt in stamina.retry_context(
                on=retryable,
                attempts=ATTEMPTS_MAX - 1,
                timeout=max(remaining - WAIT_INITIAL_S, 0.001),
                wait_initial=2 * WAIT_INITIAL_S,
                wait_max=0.5,
                wait_jitter=0.05,
            ):
                with attempt:
                    self._retries.inc()
                    try:
                        return await self._send_once(body, len(items), deadline)
                    except _NoAnswer as error:
                        unanswered = error
                        raise
        except Unavailable:
            # An earlier attempt may have arrived: that this one did not says nothing of what that one did.
            if unanswered is not None:
                raise unanswered from None
            raise
        raise AssertionError("unreachable: the retry either returns or raises")

    async def _send_once(self, body: bytes, count: int, deadline: float) -> list[Any]:
        now = asyncio.get_running_loop().time()
        remaining = deadline - now
        service = self._codec.spec.service
        if remaining <= 0:
            raise DeadlineExceeded(f"The deadline passed before {service} was called.")
        if not self._breaker.allows(now):
            raise Unavailable(f"{service} does not answer at present.")
        try:
            async with asyncio.timeout(remaining):
                status, answer = await self._post(body, remaining)
        except NotConnected as error:
            self._breaker.failed(now)
            raise _NotSent(f"{service} cannot be reached.") from error
        except (NoAnswer, TimeoutError) as error:
            self._breaker.failed(asyncio.get_running_loop().time())
            raise _NoAnswer(f"{service} did not answer.") from error
        self._breaker.succeeded()
        return self._read_answer(status, answer, count)

    async def _post(self, body: bytes, remaining: float) -> tuple[int, bytes]:
        headers = {
            "authorization": f"Bearer {self._signer.token_for(self._codec.spec.service)}",
            "content-type": "application/msgpack",
            DEADLINE_HEADER: str(int(remaining * 1000)),
        }
        traceparent = current_traceparent.get()
        if traceparent:
            headers["traceparent"] = traceparent
        return await self._connections.post(self._path, headers=headers, body=body)

    def _read_answer(self, status: int, answer: bytes, count: int) -> list[Any]:
        service = self._codec.spec.service
        if status == 200:
            try:
                return self._codec.decode_answers(answer, count)
            except WireError as error:
                raise UnknownOutcome(f"{service} answered something unreadable.") from error
        if status == 503 and _code_of(answer) == Overloaded.code:
            raise Overloaded(f"{service} is overloaded.")
        if status == 503:
            # Cut off by the end of the service's process, or by something before it: the work may have been done.
            raise _NoAnswer(f"{service} stopped before it answered.")
        if status >= 500:
            raise UnknownOutcome(f"{service} failed while it was working on this.")
        if status == 401:
            log.error("rpc.identity_refused", callee=service, answer=answer[:300])
            raise Unavailable(f"{service} does not accept this service's identity.")
        if status in (400, 403, 404):
            log.error("rpc.not_in_contract", callee=service, operation=self._path, status=status, answer=answer[:300])
            raise NotInContract(f"{service} does not know this call.")
        raise RefusedByContract(f"{self._path} answered {status}: {answer[:300]!r}")


def _code_of(answer: bytes) -> str:
    """The error code of a problem document; empty where the answer is something else."""
    try:
        return _problem.decode(answer).error
    except msgspec.DecodeError:
        return ""


def _make_method(coalescer: Coalescer[Any, Any], spec: OperationSpec) -> Callable[..., Any]:
    batch_max = spec.options.batch_max

    async def ask(items: list[Any], deadline: float) -> list[Any]:
        """Every item gets an answer: a failure of the call becomes the answer of each item that was in it."""
        try:
            return await coalescer.ask(items, deadline=deadline)
        except PayflowError as error:
            return [error for _ in items]

    async def call(items: list[Any]) -> list[Any]:
        deadline = deadline_within(spec.options.timeout_s)
        if len(items) <= batch_max:
            return await ask(items, deadline)
        chunks = [items[start : start + batch_max] for start in range(0, len(items), batch_max)]
        answers = await asyncio.gather(*(ask(chunk, deadline) for chunk in chunks))
        return [answer for chunk in answers for answer in chunk]

    call.__name__ = spec.name
    return call


def client_for(
    contract: type[C],
    *,
    send_of: Callable[[Codec], Callable[[list[Any], float], Any]],
    queue_max: int,
) -> C:
    """An object with the contract's operations; each is coalesced and sent by `send_of(codec)`."""
    methods: dict[str, Any] = {}
    for name, spec in operations_of(contract).items():
        coalescer: Coalescer[Any, Any] = Coalescer(
            send_of(Codec(spec)),
            calls_in_flight=spec.options.calls_in_flight,
            batch_max=spec.options.batch_max,
            queue_max=queue_max,
        )
        _queued.watch(coalescer, lambda link: link.waiting, spec.service, name)
        _in_flight.watch(coalescer, lambda link: link.in_flight, spec.service, name)
        methods[name] = staticmethod(_make_method(coalescer, spec))
    return cast(C, type(f"{contract.__name__}Client", (), methods)())


class RpcClients:
    """Makes HTTP clients of contracts for one process: one set of connections and one breaker per callee.

    `writes_lines`: whether each call is a line in the log; the callee writes one in any case.
    """

    def __init__(self, *, signer: Signer, queue_max: int, writes_lines: bool = False) -> None:
        self._signer = signer
        self._writes_lines = writes_lines
        self._queue_max = queue_max
        self._connections: dict[str, Connections] = {}
        self._breakers: dict[str, Breaker] = {}

    def connect(self, contract: type[C], base_url: str) -> C:
        """A client of the service at `base_url`."""
        connections = self._connections.get(base_url)
        if connections is None:
            connections = self._connections[base_url] = Connections(base_url)
        breaker = self._breakers.get(base_url)
        if breaker is None:
            breaker = self._breakers[base_url] = Breaker()
            # Every contract names its service; a Protocol as a type argument hides that from the checker.
            _open.watch(breaker, lambda one: not one.is_closed, contract.service)  # type: ignore[attr-defined]

        def send_of(codec: Codec) -> Callable[[list[Any], float], Any]:
            return HttpLink(
                connections=connections,
                codec=codec,
                signer=self._signer,
                breaker=breaker,
                writes_lines=self._writes_lines,
            ).send

        return client_for(contract, send_of=send_of, queue_max=self._queue_max)

    def open_breakers(self) -> list[str]:
        """The base URLs of services that do not answer at present."""
        return [url for url, breaker in self._breakers.items() if not breaker.is_closed]

    async def close(self) -> None:
        """Close all connections."""
        for connections in self._connections.values():
            connections.close()


def detach_from_caller() -> None:
    """Forget the caller's deadline, for work that goes on after its answer."""
    current_deadline.set(None)
