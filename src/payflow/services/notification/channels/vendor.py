"""What all channels with a vendor behind them have in common: bounded calls, time-outs, a breaker, and silence about
whom and what.

Every message is a call of its own, so that one slow number keeps no other waiting. Codes have places of their own: ten
thousand messages about payments must not keep one code waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, Protocol

import structlog
from prometheus_client import Counter, Histogram

from payflow.kernel.errors import PayflowError
from payflow.platform.rpc.breaker import Breaker
from payflow.services.notification.domain import (
    NO_ADDRESS,
    NO_ANSWER,
    NO_DEVICE,
    NO_TIME_LEFT,
    NOT_REACHED,
    UNREADABLE_ANSWER,
    VENDOR_OUT,
    Accepted,
    Outgoing,
    PermanentFailure,
    SendResult,
    Sent,
    TemporaryFailure,
)

log = structlog.get_logger(__name__)

# Together below the lease of a claimed message (RetryPolicy.lease, 30 s), with time to look up its customer, so that
# none is sent by two processes: how long a message waits for a place, and how long one call may take at most.
TURN_S: Final = 12.0
TIMEOUT_S_MAX: Final = 10.0
# So many rounds of calls are one batch: the last of them begins before its turn is over, however slow the vendor is.
ROUNDS_PER_BATCH: Final = 2
CODE_CALLS_MAX: Final = 64
# A call whose time is up is cancelled again after this long, if it has not ended.
_CANCEL_AGAIN_S: Final = 0.05
_CANCELLED_AT_MOST: Final = 40
# A vendor that does not answer is asked again after this long, and after twice as long each time, up to the second.
OPEN_S_MIN: Final = 1.0
OPEN_S_MAX: Final = 30.0
# A vendor may ask for a pause; a wish for hours is not a wish about the next message.
PAUSE_MAX: Final = timedelta(minutes=5)

_messages: Final = Counter(
    "payflow_channel_messages_total", "Messages handed to vendors by what they came to.", ["channel", "outcome"]
)
_seconds: Final = Histogram(
    "payflow_channel_seconds",
    "How long a vendor took to answer.",
    ["channel"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 1.5, 2.5, 5, 10),
)


class NotReached(Exception):
    """No connection could be made: nothing was sent."""


class NoAnswer(Exception):
    """The call was made, at least in part, and its answer has not come."""


class UnreadableAnswer(Exception):
    """What came is not in the vendor's format. Who says so carries no word of it on: it may quote the message."""


class Vendor(Protocol):
    """One vendor's wire format."""

    needs_contact: bool

    async def deliver(self, message: Outgoing) -> SendResult:
        """Hand over one message. Raises NotReached, NoAnswer or UnreadableAnswer; is cancelled when time is up."""
        ...


class VendorChannel:
    """A channel over a vendor (see ports.Channel). `timeout_s`: of one call; `calls_max`: calls under way."""

    reaches_customers = True
    keeps_messages = False

    def __init__(self, *, name: str, vendor: Vendor, carries_codes: bool, timeout_s: float, calls_max: int) -> None:
        self.name = name
        self.carries_codes = carries_codes
        self.needs_contact = vendor.needs_contact
        self.batch_max = ROUNDS_PER_BATCH * calls_max
        self._vendor = vendor
        self._timeout_s = min(timeout_s, TIMEOUT_S_MAX)
        self._places = asyncio.Semaphore(calls_max)
        self._code_places = asyncio.Semaphore(CODE_CALLS_MAX)
        self._breaker = Breaker(open_s_min=OPEN_S_MIN, open_s_max=OPEN_S_MAX)
        self._paused_until = 0.0

    async def send(self, messages: Sequence[Outgoing], *, within_s: float | None = None) -> list[SendResult]:
        return list(await asyncio.gather(*(self._send(message, within_s) for message in messages)))

    async def _send(self, message: Outgoing, within_s: float | None) -> SendResult:
        loop = asyncio.get_running_loop()
        places = self._places if message.code is None else self._code_places
        gives_up_at = loop.time() + (TURN_S if within_s is None else within_s)
        try:
            async with asyncio.timeout_at(gives_up_at):
                await places.acquire()
        except TimeoutError:
            return TemporaryFailure(NO_TIME_LEFT)
        try:
            timeout_s = self._timeout_s
            if within_s is not None:
                timeout_s = min(timeout_s, gives_up_at - loop.time())
            result = self._skipped(loop.time()) or await self._call(message, timeout_s)
        finally:
            places.release()
        _messages.labels(self.name, _outcome(result)).inc()
        return result

    def _skipped(self, now: float) -> TemporaryFailure | None:
        """Why the vendor is not asked at all at present, if so."""
        if now < self._paused_until:
            wait = timedelta(seconds=self._paused_until - now)
            return TemporaryFailure(VENDOR_OUT, retry_after=wait, is_outage=True)
        return None if self._breaker.allows(now) else TemporaryFailure(VENDOR_OUT, is_outage=True)

    async def _call(self, message: Outgoing, timeout_s: float) -> SendResult:
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        result = await answered(lambda: self._vendor.deliver(message), timeout_s=timeout_s)
        _seconds.labels(self.name).observe(loop.time() - began_at)
        self._note(result, loop.time())
        return result

    def _note(self, result: SendResult, now: float) -> None:
        was_closed = self._breaker.is_closed
        if isinstance(result, TemporaryFailure) and result.is_outage:
            self._breaker.failed(now)
            if result.retry_after is not None:
                self._paused_until = now + min(result.retry_after, PAUSE_MAX).total_seconds()
            if was_closed and not self._breaker.is_closed:
                log.warning("notification.vendor_out", channel=self.name, reason=result.reason)
            return
        if _says_nothing_of_the_vendor(result):
            return
        self._breaker.succeeded()
        if not was_closed:
            log.info("notification.vendor_back", channel=self.name)


async def answered(call: Callable[[], Awaitable[SendResult]], *, timeout_s: float) -> SendResult:
    """What a call came to, also where nothing came of it."""
    try:
        return await _in_time(call(), timeout_s)
    except (TimeoutError, NoAnswer):
        return TemporaryFailure(NO_ANSWER, is_outage=True, is_unanswered=True)
    except NotReached:
        return TemporaryFailure(NOT_REACHED, is_outage=True)
    except UnreadableAnswer:
        return TemporaryFailure(UNREADABLE_ANSWER, is_outage=True, is_unanswered=True)
    except PayflowError as error:
        return TemporaryFailure(error.code)  # ours, such as the database; the vendor was not asked
    except Exception as error:
        # A bug about one message must not keep its neighbours, and what it says may quote one.
        log.error("notification.channel_failed", error=type(error).__name__)
        return TemporaryFailure(type(error).__name__, is_unanswered=True)


async def _in_time(call: Awaitable[SendResult], timeout_s: float) -> SendResult:
    """What a call came to. Raises TimeoutError, having ended the call, or having tried to for two seconds.

    Cancelled again and again: Python 3.11's `wait_for`, which libraries use, forgets a cancellation that comes together
    with what it waits for, and the call would go on until the library's own time-out.
    """
    task = asyncio.ensure_future(call)
    # Read whatever becomes of it, or asyncio would log what it says, which may quote the message.
    task.add_done_callback(_read)
    try:
        await asyncio.wait({task}, timeout=timeout_s)
    finally:
        for _ in range(_CANCELLED_AT_MOST):
            if task.done():
                break
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_AGAIN_S)
    if not task.done():
        log.error("notification.call_does_not_end")
        raise TimeoutError
    if task.cancelled():
        raise TimeoutError
    return task.result()


def _read(task: asyncio.Future[SendResult]) -> None:
    if not task.cancelled():
        task.exception()


def _says_nothing_of_the_vendor(result: SendResult) -> bool:
    """Whether a result came about without an answer of the vendor's."""
    is_ours = isinstance(result, PermanentFailure) and result.reason in (NO_ADDRESS, NO_DEVICE)
    return is_ours or isinstance(result, TemporaryFailure)


def _outcome(result: SendResult) -> str:
    match result:
        case Accepted() | Sent():
            return "sent"
        case PermanentFailure():
            return "refused"
        case TemporaryFailure(reason=reason) if reason in (VENDOR_OUT, NO_TIME_LEFT):
            return "skipped"
        case TemporaryFailure(is_unanswered=True):
            return "unanswered"
        case _:
            return "put_off"
