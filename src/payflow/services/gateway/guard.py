"""Rate limits and revocation, asked of Valkey in one round trip for all requests in flight.

The `limits` library counts one key a call and asks Valkey each time; a payment needs two counters and two revocation
marks, so a script of our own takes lists: hundreds of requests share one call.

Valkey holds nothing that may not be lost. When it is gone, requests are counted in this process, and revocation is
asked of PostgreSQL. Whether its revocations are complete it says by a mark: the number of the last revocation that it
has heard of. No mark (flushed, restarted) or one below what this process knows (a replica took over): not believed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib import resources
from typing import Final, NamedTuple
from uuid import uuid4

import structlog
from prometheus_client import Counter

from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.platform.measures import LiveGauge
from payflow.platform.rpc.breaker import Breaker
from payflow.platform.rpc.coalescer import Coalescer
from payflow.platform.tracing import step
from payflow.platform.valkey import Valkey, valkey_errors
from payflow.services.gateway.domain.limits import Limit, SlidingCounters, Standing, standing_of
from payflow.services.gateway.domain.sessions import Revocation
from payflow.services.gateway.ports import Store

log = structlog.get_logger(__name__)

VALKEY_TIMEOUT_S: Final = 0.25
ASK_TIMEOUT_S: Final = 3.0
# How often each gateway compares the cache's mark with the truth.
LOOK_EVERY_S: Final = 1.0
_CHUNK: Final = 1000
_waiting: Final = LiveGauge("payflow_guard_waiting", "Requests whose limits and token wait to be looked up.")
_fallbacks: Final = Counter("payflow_guard_fallbacks_total", "Batches answered without the cache.", ["part"])


class Ask(NamedTuple):
    """What must be known of one request: counters (key, limit) to take one from each, and the ids (token, session)
    none of which may be revoked."""

    counters: tuple[tuple[str, Limit], ...]
    token_ids: tuple[str, ...]


class Verdict(NamedTuple):
    """How each counter stands, in the order asked, and whether any of the ids is revoked."""

    standings: list[Standing]
    is_revoked: bool


class Guard:
    """Answers asks, and keeps the cache true (see also ports.Revocations).

    `generation` names the database whose revocations these are: two of them may share one Valkey. A cache that is
    silent for `valkey_timeout_s` is done without.
    """

    def __init__(
        self,
        *,
        valkey: Valkey,
        store: Store,
        generation: str,
        now: Callable[[], datetime],
        queue_max: int = 5000,
        look_every_s: float = LOOK_EVERY_S,
        valkey_timeout_s: float = VALKEY_TIMEOUT_S,
    ) -> None:
        self._valkey = valkey
        self._valkey_timeout_s = valkey_timeout_s
        self._store = store
        self._now = now
        self._look_every_s = look_every_s
        # One hash tag: a script may touch all of these keys, in a cluster too.
        self._prefix = f"{{payflow:{generation}}}:"
        self._mark = self._prefix + "revocations"
        self._check = valkey.register_script(_script("check.lua"))
        self._publish = valkey.register_script(_script("publish.lua"))
        self._finish = valkey.register_script(_script("finish_rebuild.lua"))
        self._breaker = Breaker()
        self._counters = SlidingCounters()
        self._known_number = 0
        self._asks: Coalescer[Ask, Verdict | PayflowError] = Coalescer(
            self._answer, calls_in_flight=2, batch_max=500, queue_max=queue_max
        )
        _waiting.watch(self._asks, lambda asks: asks.waiting)

    async def ask(self, ask: Ask) -> Verdict:
        """Count a request and tell whether its token is revoked. Raises Unavailable when nobody can tell."""
        deadline = asyncio.get_running_loop().time() + ASK_TIMEOUT_S
        try:
            (verdict,) = await self._asks.ask([ask], deadline=deadline)
        except UnknownOutcome as error:
            raise Unavailable("The session could not be checked in time.") from error
        if isinstance(verdict, PayflowError):
            raise verdict
        return verdict

    async def publish(self, revocations: Sequence[Revocation], *, number: int) -> None:
        """See ports.Revocations. Where Valkey cannot be told, the other gateways learn of the number when they look at
        the truth; the wait makes that happen before the caller tells anybody that the token is revoked."""
        self._known_number = max(self._known_number, number)
        keys = [self._mark, *(self._revoked_key(revocation.id) for revocation in revocations)]
        ends = [_milliseconds(revocation.ends_at) for revocation in revocations]
        try:
            async with asyncio.timeout(self._valkey_timeout_s), valkey_errors():
                await self._publish(keys=keys, args=[number, *ends])
        except (Unavailable, TimeoutError) as error:
            log.warning("guard.publish_failed", number=number, error=type(error).__name__)
            await asyncio.sleep(self._look_every_s + self._valkey_timeout_s)

    async def look(self) -> None:
        """Compare the cache's mark with the truth and rebuild the cache where it has missed something."""
        try:
            self._known_number = max(self._known_number, await self._store.revocation_number())
            async with asyncio.timeout(self._valkey_timeout_s), valkey_errors():
                mark = await self._valkey.get(self._mark)
            if self._is_stale(mark):
                await self._rebuild()
        except (PayflowError, TimeoutError) as error:
            log.debug("guard.look_failed", error=type(error).__name__)

    async def look_always(self) -> None:
        """The background duty: look, again and again."""
        while True:
            await self.look()
            await asyncio.sleep(self._look_every_s)

    async def _rebuild(self) -> None:
        """Write all revocations into the cache, then the mark: unless it was emptied meanwhile, which a key of this
        rebuild's own tells."""
        known = await self._store.revocations(self._now())
        ours = f"{self._prefix}rebuild:{uuid4().hex}"
        async with asyncio.timeout(30), valkey_errors():
            await self._valkey.set(ours, 1, px=60_000)
            items = list(known.ends.items())
            for start in range(0, len(items), _CHUNK):
                pipeline = self._valkey.pipeline(transaction=False)
                for id_, ends_at in items[start : start + _CHUNK]:
                    pipeline.set(self._revoked_key(id_), 1, pxat=_milliseconds(ends_at))
                await pipeline.execute()
            is_marked = await self._finish(keys=[self._mark, ours], args=[known.number])
        log.info("guard.rebuilt", revocations=len(known.ends), number=known.number, is_marked=bool(is_marked))

    async def _answer(self, asks: list[Ask], _deadline: float) -> list[Verdict | PayflowError]:
        with step("limits and token"):
            return await self._verdicts_of(asks)

    async def _verdicts_of(self, asks: list[Ask]) -> list[Verdict | PayflowError]:
        wanted, ids = _gather(asks)
        loop = asyncio.get_running_loop()
        if self._breaker.allows(loop.time()):
            try:
                async with asyncio.timeout(self._valkey_timeout_s), valkey_errors():
                    counted, revoked, is_stale = await self._ask_valkey(wanted, ids)
                self._breaker.succeeded()
                if not is_stale or not ids:
                    return _verdicts(asks, counted, revoked)
                _fallbacks.labels("mark").inc()
                return await self._with_truth(asks, counted, ids)
            except (Unavailable, TimeoutError):
                self._breaker.failed(loop.time())
        _fallbacks.labels("cache").inc()
        return await self._with_truth(asks, self._count_here(wanted), ids)

    async def _ask_valkey(
        self, wanted: dict[str, tuple[Limit, int]], ids: list[str]
    ) -> tuple[dict[str, list[Standing]], set[str], bool]:
        keys = [self._mark, *(f"{self._prefix}limit:{key}" for key in wanted), *map(self._revoked_key, ids)]
        args: list[int] = [len(wanted)]
        for limit, count in wanted.values():
            args += (limit.window_s * 1000, limit.count, count)
        mark, numbers, flags = await self._check(keys=keys, args=args)
        counted: dict[str, list[Standing]] = {}
        for position, (key, (limit, count)) in enumerate(wanted.items()):
            counted[key] = _standings(limit, count, numbers[position * 4 : position * 4 + 4])
        revoked = {id_ for id_, flag in zip(ids, flags, strict=True) if flag}
        return counted, revoked, self._is_stale(mark)

    def _count_here(self, wanted: dict[str, tuple[Limit, int]]) -> dict[str, list[Standing]]:
        now = time.time()
        return {
            key: [self._counters.take(key=key, limit=limit, now=now) for _ in range(count)]
            for key, (limit, count) in wanted.items()
        }

    async def _with_truth(
        self, asks: list[Ask], counted: dict[str, list[Standing]], ids: list[str]
    ) -> list[Verdict | PayflowError]:
        """Verdicts with revocation asked of PostgreSQL; where that is gone too, nobody with a token gets through."""
        if not ids:
            return _verdicts(asks, counted, set())
        try:
            revoked = await self._store.revoked_among(ids)
        except PayflowError as error:
            verdicts = _verdicts(asks, counted, set())
            return [error if ask.token_ids else verdict for ask, verdict in zip(asks, verdicts, strict=True)]
        return _verdicts(asks, counted, revoked)

    def _is_stale(self, mark: object) -> bool:
        number = int(mark) if isinstance(mark, bytes) and mark.isdigit() else -1
        is_stale = number < self._known_number
        # A mark that is ever lower than this one was set by a server that has forgotten something.
        self._known_number = max(self._known_number, number)
        return is_stale

    def _revoked_key(self, id_: str) -> str:
        return f"{self._prefix}revoked:{id_}"


def _gather(asks: Sequence[Ask]) -> tuple[dict[str, tuple[Limit, int]], list[str]]:
    """Each counter once, with how often it is wanted, and each id once."""
    wanted: dict[str, tuple[Limit, int]] = {}
    ids: dict[str, None] = {}
    for ask in asks:
        for key, limit in ask.counters:
            known = wanted.get(key)
            wanted[key] = (limit, 1 if known is None else known[1] + 1)
        for id_ in ask.token_ids:
            ids[id_] = None
    return wanted, list(ids)


def _standings(limit: Limit, wanted: int, numbers: Sequence[int]) -> list[Standing]:
    """The standings of requests that took from one counter in one call, first come first served."""
    before, previous, elapsed_ms, granted = numbers
    weighted = previous * (limit.window_s * 1000 - elapsed_ms) / (limit.window_s * 1000)
    standings = []
    for position in range(1, wanted + 1):
        current = before + min(position, granted)
        standings.append(
            standing_of(
                limit=limit,
                is_allowed=position <= granted,
                used=current + weighted,
                current=current,
                previous=previous,
                elapsed_s=elapsed_ms / 1000,
            )
        )
    return standings


def _verdicts(
    asks: Sequence[Ask], counted: dict[str, list[Standing]], revoked: set[str]
) -> list[Verdict | PayflowError]:
    """Hand the standings out in the order of asking."""
    turns = {key: iter(standings) for key, standings in counted.items()}
    return [
        Verdict([next(turns[key]) for key, _ in ask.counters], any(id_ in revoked for id_ in ask.token_ids))
        for ask in asks
    ]


def _milliseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1000)


def _script(name: str) -> str:
    package = __package__ or "payflow.services.gateway"
    return resources.files(package).joinpath("lua").joinpath(name).read_text(encoding="utf-8")
