"""Processes that die, stop and come back; and the links between them, which lose, double and delay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from random import Random
from typing import Any, Final
from uuid import UUID

from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from tests.simulation.loop import SimulatedLoop

BEGIN: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
LATE_S: Final = 20.0
_EPOCH_MS: Final = int(BEGIN.timestamp() * 1000)
_UNANSWERED: Final = object()


class Fate(Enum):
    """What becomes of a call."""

    FINE = auto()
    NOT_SENT = auto()
    REQUEST_LOST = auto()
    REPLY_LOST = auto()
    DOUBLED = auto()
    LATE = auto()


@dataclass(slots=True)
class Weather:
    """How likely each fault is; all zero: fair weather."""

    not_sent: float = 0.0
    request_lost: float = 0.0
    reply_lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    slow: float = 0.0
    store_unavailable: float = 0.0
    commit_lost: float = 0.0
    commit_untold: float = 0.0
    conflict: float = 0.0
    crash: float = 0.0
    stop: float = 0.0
    clock_step: float = 0.0
    bank_silent: float = 0.0

    @classmethod
    def drawn(cls, chance: Random) -> Weather:
        """Some faults are absent, some rare, some frequent: each run has its own mixture."""
        most = {"slow": 0.2, "crash": 1.0, "stop": 1.0, "clock_step": 1.0, "bank_silent": 0.6}
        severity = chance.choice((0.25, 0.5, 1.0))
        return cls(**{one.name: _rate(chance, severity * most.get(one.name, 0.08)) for one in fields(cls)})

    def clear(self) -> None:
        """No fault from now on."""
        for one in fields(self):
            setattr(self, one.name, 0.0)


def _rate(chance: Random, most: float) -> float:
    return 0.0 if chance.random() < 0.35 else most * chance.random() ** 2


class Trace:
    """What happened, in order. The items of each call are kept as they are, only looked at when one is asked for."""

    def __init__(self) -> None:
        self.lines: list[tuple[float, str, Sequence[Any]]] = []

    def about(self, payment_id: UUID) -> list[str]:
        """The lines about one payment, and those about no payment at all."""
        shown = []
        for at, text, items in self.lines:
            mine = [item for item in items if getattr(item, "payment_id", item) == payment_id]
            if mine or not items:
                shown.append(f"{at:10.3f} {text} {' '.join(_in_short(item) for item in mine)}")
        return shown


def _in_short(item: Any) -> str:
    token, state = getattr(item, "fencing_token", None), getattr(item, "state", None)
    return " ".join(text for text in (token and f"token {token}", state and f"{state}") if text)


@dataclass(slots=True)
class World:
    """What all processes of a run share: time, chance, weather and the record of what happened."""

    loop: SimulatedLoop
    chance: Random
    weather: Weather
    trace: Trace = field(default_factory=Trace)
    broken: list[str] = field(default_factory=list)

    def note(self, text: str, items: Sequence[Any] = ()) -> None:
        """Record a step."""
        self.trace.lines.append((self.loop.time(), text, items))

    def break_(self, text: str, payment_id: UUID | None = None) -> None:
        """A rule is broken."""
        self.broken.append(text if payment_id is None else f"payment {payment_id}: {text}")

    def latency_s(self) -> float:
        """How long a hop takes."""
        random = self.chance.random
        seconds = 0.0005 + 0.004 * random()
        return seconds if random() >= self.weather.slow else seconds + 3 * random()

    def fate(self) -> Fate:
        """What becomes of the next call."""
        weather, drawn = self.weather, self.chance.random()
        for fate, rate in (
            (Fate.NOT_SENT, weather.not_sent),
            (Fate.REQUEST_LOST, weather.request_lost),
            (Fate.REPLY_LOST, weather.reply_lost),
            (Fate.DOUBLED, weather.doubled),
            (Fate.LATE, weather.late),
        ):
            if drawn < rate:
                return fate
            drawn -= rate
        return Fate.FINE

    def happens(self, rate: float) -> bool:
        """Whether a fault of this likelihood happens now."""
        return rate > 0 and self.chance.random() < rate


class SimulatedIds:
    """UUIDv7s that come from the seed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def new(self) -> UUID:
        milliseconds = _EPOCH_MS + int(self._world.loop.time() * 1000)
        random_bits = self._world.chance.getrandbits(74)
        high, low = random_bits >> 62, random_bits & 0x3FFF_FFFF_FFFF_FFFF
        return UUID(int=milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low)


class Life:
    """One life of a process, from its start to its death. Whatever it waits for dies with it."""

    def __init__(self, node: Node, world: World) -> None:
        self.node, self.world = node, world
        self.is_dead = False
        self.service: Any = None
        self._awaited: dict[asyncio.Future[Any], None] = {}

    def promise(self) -> asyncio.Future[Any]:
        """Something to wait for. The dead wait for nothing: they are cancelled."""
        if self.is_dead:
            raise asyncio.CancelledError
        future = self.world.loop.create_future()
        self._awaited[future] = None
        return future

    def keep(self, future: asyncio.Future[Any], result: Any) -> None:
        """Keep a promise; a stopped process notices when it is continued."""
        if self.node.is_stopped and not self.is_dead:
            self.node.parked.append((self.keep, (future, result)))
            return
        self._awaited.pop(future, None)
        if not future.done():
            future.set_result(result)

    async def hop(self) -> None:
        """One way over a network."""
        future = self.promise()
        self.world.loop.call_later(self.world.latency_s(), self.keep, future, None)
        await future

    def spawn(self, work: Any, *, about: str) -> None:
        """Run a coroutine beside. What it raises outside of the four families is a bug."""
        self.world.loop.create_task(self._watch(work, about))

    async def _watch(self, work: Any, about: str) -> None:
        try:
            await work
        except PayflowError as error:
            self.world.note(f"{self.node.name} {about}: {error.code}")
        except Exception as error:
            self.world.break_(f"{self.node.name} {about} raised {error!r}")

    def die(self) -> None:
        self.is_dead = True
        for future in list(self._awaited):
            future.cancel()
        self._awaited.clear()


class Node:
    """A process of a service: it has a clock of its own, and a new life after each crash."""

    def __init__(self, name: str, world: World, build: Callable[[Life], Any]) -> None:
        self.name, self._world, self._build = name, world, build
        self.skew_s = 0.0
        self.is_stopped = False
        self.parked: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.life = Life(self, world)
        self.life.is_dead = True

    @property
    def is_down(self) -> bool:
        return self.life.is_dead

    def now(self) -> datetime:
        """The present instant by this process's clock."""
        return BEGIN + timedelta(seconds=self._world.loop.time() + self.skew_s)

    def start(self) -> None:
        self.life = Life(self, self._world)
        self.life.service = self._build(self.life)

    def crash(self) -> None:
        self._world.note(f"{self.name} dies")
        self.life.die()
        self.go_on()

    def stop(self) -> None:
        self._world.note(f"{self.name} is stopped")
        self.is_stopped = True

    def go_on(self) -> None:
        self.is_stopped = False
        parked, self.parked = self.parked, []
        for callback, args in parked:
            self._world.loop.call_soon(callback, *args)

    def receive(
        self, operation: str, items: list[Any], timeout_s: float, answer: Callable[[list[Any]], None] | None
    ) -> None:
        """A call has arrived."""
        if self.is_down:
            if answer is not None:
                answer([Unavailable(f"{self.name} is down") for _ in items])
        elif self.is_stopped:
            self.parked.append((self.receive, (operation, items, timeout_s, answer)))
        else:
            self._world.loop.create_task(self._serve(self.life, operation, items, timeout_s, answer))

    async def _serve(
        self,
        life: Life,
        operation: str,
        items: list[Any],
        timeout_s: float,
        answer: Callable[[list[Any]], None] | None,
    ) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                answers = await getattr(life.service, operation)(items)
        except PayflowError as error:
            answers = [error for _ in items]
        except TimeoutError:
            answers = [UnknownOutcome("It took too long.") for _ in items]
        except asyncio.CancelledError:
            return
        except Exception as error:
            self._world.break_(f"{self.name}.{operation} raised {error!r}")
            answers = [UnknownOutcome("The service failed.") for _ in items]
        if len(answers) != len(items):
            self._world.break_(f"{self.name}.{operation} gave {len(answers)} answers to {len(items)} items")
        elif answer is not None and not life.is_dead:
            answer(answers)


class Link:
    """The way from a process to a service: `await link.transfer(commands)` calls one of the service's processes."""

    def __init__(self, life: Life, servers: Sequence[Node], *, timeout_s: float) -> None:
        self._life, self._servers, self._timeout_s = life, servers, timeout_s

    def __getattr__(self, operation: str) -> Callable[[list[Any]], Any]:
        async def call(items: list[Any]) -> list[Any]:
            return (await self.call(operation, items))[0]

        return call

    async def call(self, operation: str, items: list[Any]) -> tuple[list[Any], Fate]:
        """The answers, and what became of the call."""
        life, world = self._life, self._life.world
        server = world.chance.choice(self._servers)
        fate = world.fate()
        # A stopped process sends what it had decided before when it is continued.
        await life.hop()
        world.note(f"{life.node.name} > {server.name}.{operation} x{len(items)} {fate.name}", items)
        if fate is Fate.NOT_SENT:
            return [Unavailable(f"{server.name} cannot be reached") for _ in items], fate
        reply = life.promise()
        world.loop.call_later(self._timeout_s, life.keep, reply, _UNANSWERED)

        def answer(answers: list[Any]) -> None:
            world.loop.call_later(world.latency_s(), life.keep, reply, answers)

        if fate is not Fate.REQUEST_LOST:
            on_the_way_s = LATE_S * world.chance.random() if fate is Fate.LATE else world.latency_s()
            told = None if fate is Fate.REPLY_LOST else answer
            world.loop.call_later(on_the_way_s, server.receive, operation, items, self._timeout_s, told)
            if fate is Fate.DOUBLED:
                again_s = LATE_S * world.chance.random()
                world.loop.call_later(again_s, server.receive, operation, items, self._timeout_s, None)
        answers = await reply
        if answers is _UNANSWERED:
            return [UnknownOutcome(f"{server.name} has not answered") for _ in items], fate
        return answers, fate
