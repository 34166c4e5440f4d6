"""One fault run: start, load, faults in turn, heal, wait for quiet, read, judge."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import msgspec

from payflow_dev.chaos.faults import Striker, told
from payflow_dev.chaos.history import Fault, Promise
from payflow_dev.chaos.kinds import KINDS
from payflow_dev.chaos.office import FOUR_EYES_ABOVE_MINOR
from payflow_dev.chaos.plan import OPTIONAL, Planned, in_turn, until_kills
from payflow_dev.chaos.summary import Summary, summarize
from payflow_dev.chaos.world import QUIET_WITHIN_S, Setup, World, own_instance, running_world

WARM_UP_S = 2.0
# Chunks of a file that a file has several of, and a limit that some parts of small payments pass.
_SETTINGS = {
    "PAYFLOW_BULK_CHUNK_ITEMS": "16",
    "PAYFLOW_RETURN_FOUR_EYES_ABOVE": str(FOUR_EYES_ABOVE_MINOR // 100),
}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: faults until both numbers are reached, or so many, or a script of them.

    `without`: faults that are excused where they cannot be done. `source`: see Setup. `is_held_against_model`: whether
    the payments are held against the model in spec/ at the end, which takes Java some minutes where one is refused.
    """

    seed: int
    kills: int = 0
    payments: int = 0
    customers: int = 64
    pause_s: float = 0.15
    faults_max: int | None = None
    script: tuple[Planned, ...] | None = None
    without: tuple[str, ...] = ()
    source: Path | None = None
    history: Path | None = None
    quiet_within_s: float = QUIET_WITHIN_S
    is_held_against_model: bool = True
    tell: Callable[[str], None] = print


def run_chaos(options: Options) -> Summary:
    """Start an instance of its own, run, and remove it. The history file stays."""
    with own_instance() as instance:

        async def play() -> Summary:
            async with running_world(instance, _setup_of(options)) as world:
                return await _Run(options, world).play()

        return asyncio.run(play())


def _setup_of(options: Options) -> Setup:
    means: tuple[str, ...] = tuple(name for name in OPTIONAL if name not in options.without)
    if options.script is not None:
        means = tuple(name for name in OPTIONAL if any(name in planned.needs for planned in options.script))
    return Setup(
        seed=options.seed,
        customers=options.customers,
        history=options.history or Path.cwd() / f"chaos-{options.seed}.jsonl",
        pause_s=options.pause_s,
        means=means,
        settings=_SETTINGS,
        has_office=True,
        source=options.source,
        tell=options.tell,
    )


class _Run:
    def __init__(self, options: Options, world: World) -> None:
        self._options = options
        self._world = world
        self._striker = Striker(world.tools)
        self._faults: list[Fault] = []

    async def play(self) -> Summary:
        began_at, world = time.monotonic(), self._world
        for name, reason in world.missing.items():
            self._options.tell(f"{name} is not run: {reason}")
        promise = self._promise()
        world.history.write(promise)
        world.clients.start()
        await asyncio.sleep(WARM_UP_S)
        await self._do_faults()
        quiet_after_s = await world.heal_and_read(
            quiet_within_s=self._options.quiet_within_s, faults=self._striker.done, since=self._striker.last_at
        )
        return await summarize(
            faults=self._faults,
            promised=promise.edges,
            kills=self._striker.kills,
            history=world.history.path,
            owner_url=world.tools.owner_url,
            data_dir=world.instance.data_dir,
            seed=self._options.seed,
            seconds=time.monotonic() - began_at,
            quiet_after_s=quiet_after_s,
            not_run=world.missing,
            is_held_against_model=self._options.is_held_against_model,
        )

    def _planned(self) -> Iterable[Planned]:
        """The script, or faults without an end, the same for the same seed."""
        options = self._options
        if options.script is not None:
            return options.script
        return in_turn(random.Random(options.seed), without=(*options.without, *self._world.missing))

    def _promise(self) -> Promise:
        """What this run does at the least, and so must be in its history."""
        options, faults = self._options, self._planned()
        if options.script is None:
            faults = (
                until_kills(faults, options.kills) if options.faults_max is None else islice(faults, options.faults_max)
            )
        planned = list(faults)
        is_until_both = options.script is None and options.faults_max is None
        return Promise(
            kinds=list(KINDS),
            four_eyes_above_minor=FOUR_EYES_ABOVE_MINOR,
            edges=sorted({fault.place for fault in planned}),
            faults=len(planned),
            kills=options.kills if is_until_both else 0,
            payments=options.payments if is_until_both else 0,
        )

    async def _do_faults(self) -> None:
        for planned in self._planned():
            if self._options.script is None and self._is_enough():
                return
            fault = await self._striker.do(planned)
            self._faults.append(fault)
            self._world.history.write(fault)
            figures = (len(self._faults), self._striker.kills, self._world.clients.acknowledged)
            self._options.tell("{:4d} faults, {:4d} kills, {:6d} payments: ".format(*figures) + told(fault))

    def _is_enough(self) -> bool:
        if self._options.faults_max is not None:
            return len(self._faults) >= self._options.faults_max
        return self._striker.kills >= self._options.kills and self._world.clients.acknowledged >= self._options.payments
