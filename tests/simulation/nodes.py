"""Processes that die, stop and come back; and the links between them, which lose, double and delay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

# What the database gives, and several times faster than the standard library's as a key.
from asyncpg.pgproto.pgproto import UUID

from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from tests.simulation.weather import Fate, World

BEGIN: Final = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
# The most that a message is late; most of the late ones are much less so.
LATE_MAX_S: Final = 100.0
# The most that a process's clock is ahead or behind.
SKEW_MAX_S: Final = 30.0
_EPOCH_MS: Final = int(BEGIN.timestamp() * 1000)
_UNANSWERED: Final = object()


class SimulatedIds:
    """UUIDv7s that come from the seed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def new(self) -> UUID:
        milliseconds = _EPOCH_MS + int(self._world.loop.now_s * 1000)
        random_bits = self._world.chance.getrandbits(74)
        high, low = random_bits >> 62, random_bits & 0x3FFF_FFFF_FFFF_FFFF
        return UUID((milliseconds << 80 | 0x7 << 76 | high << 64 | 0b10 << 62 | low).to_bytes(16, "big"))


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
        await self.pause(self.world.latency_s())

    async def pause(self, seconds: float) -> None:
        """Let time pass."""
        future = self.promise()
        self.world.loop.after(seconds, self.keep, future, None)
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
        # Asked for several times within a step: the clock as it was last read.
        self._read_s, self._read = 0.0, BEGIN
        self.is_stopped = False
        self.parked: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self.life = Life(self, world)
        self.life.is_dead = True

    @property
    def is_down(self) -> bool:
        return self.life.is_dead

    def now(self) -> datetime:
        """The present instant by this process's clock."""
        seconds = self._world.loop.now_s + self.skew_s
        if seconds != self._read_s:
            self._read_s, self._read = seconds, BEGIN + timedelta(seconds=seconds)
        return self._read

    def start(self) -> None:
        self._world.note(f"{self.name} starts")
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
        if self.is_stopped:
            self._world.note(f"{self.name} goes on")
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
            task = self._world.loop.create_task(self._serve(self.life, operation, items, answer))
            self._world.loop.after(timeout_s, self._give_up, task)

    def _give_up(self, task: asyncio.Task[None]) -> None:
        """It took too long; a stopped process notices when it is continued."""
        if self.is_stopped and not task.done():
            self.parked.append((self._give_up, (task,)))
        else:
            task.cancel()

    async def _serve(
        self, life: Life, operation: str, items: list[Any], answer: Callable[[list[Any]], None] | None
    ) -> None:
        try:
            answers = await getattr(life.service, operation)(items)
        except PayflowError as error:
            answers = [error for _ in items]
        except asyncio.CancelledError:
            answers = [UnknownOutcome("It took too long.") for _ in items]
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
        if not items:
            return [], Fate.FINE
        life, world = self._life, self._life.world
        server = world.chance.choice(self._servers)
        fate = world.fate()
        # A stopped process sends what it had decided before when it is continued.
        await life.hop()
        world.note(f"{life.node.name} > {server.name}.{operation} x{len(items)} {fate.name}", items)
        if fate is Fate.NOT_SENT:
            return [Unavailable(f"{server.name} cannot be reached") for _ in items], fate
        reply = life.promise()
        world.loop.after(self._timeout_s, life.keep, reply, _UNANSWERED)

        def answer(answers: list[Any]) -> None:
            world.loop.after(world.latency_s(), life.keep, reply, answers)

        if fate is not Fate.REQUEST_LOST:
            on_the_way_s = _late_s(world) if fate is Fate.LATE else world.latency_s()
            told = None if fate is Fate.REPLY_LOST else answer
            world.loop.after(on_the_way_s, server.receive, operation, items, self._timeout_s, told)
            if fate is Fate.DOUBLED:
                again_s = _late_s(world)
                world.loop.after(again_s, server.receive, operation, items, self._timeout_s, None)
        answers = await reply
        if answers is _UNANSWERED:
            answers = [UnknownOutcome(f"{server.name} has not answered") for _ in items]
        world.note(f"{life.node.name} < {server.name}.{operation} x{len(items)}", items, answers)
        return answers, fate


def _late_s(world: World) -> float:
    return LATE_MAX_S * world.chance.random() ** 3
