"""What scenes have in common: an instance of their own, a history, a judge, and a figure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import msgspec

from payflow.run.invariants.check import check_database
from payflow_dev.chaos.history import Promise
from payflow_dev.chaos.judge import judge
from payflow_dev.chaos.world import Setup, World, own_instance, running_world

QUIET_WITHIN_S = 60.0


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What a scene came to. `figures` are its own; `problems` is empty where it was good."""

    scene: str
    words: str
    figure: str
    figures: dict[str, float]
    acknowledged: int
    seconds: float
    problems: list[str]

    @property
    def is_good(self) -> bool:
        """Whether the scene ended as it should, and the judge found nothing."""
        return not self.problems


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What a scene tells: its figure in words, the numbers, what was not as it should be; `faults`: how many it did."""

    figure: str
    figures: dict[str, float]
    problems: list[str] = field(default_factory=list)
    faults: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A scene: `act` plays it. `pauses`: the customers' load runs beside it, with so long pauses."""

    words: str
    act: Callable[[World], Awaitable[Act]]
    customers: int = 64
    pause_s: float | None = None
    settings: dict[str, str] = field(default_factory=dict)
    only_direct: bool = False


def play_on(scene: Scene, *, name: str, seed: int, history: Path, tell: Callable[[str], None]) -> Result:
    """Start an instance, play the scene, let everything end, and judge."""
    began_at = time.monotonic()
    setup = Setup(
        seed=seed,
        customers=scene.customers,
        history=history,
        pause_s=scene.pause_s or 0.0,
        settings=scene.settings,
        only_direct=scene.only_direct,
        tell=tell,
    )
    with own_instance() as instance:

        async def perform() -> Result:
            async with running_world(instance, setup) as world:
                world.history.write(Promise(kinds=["payment"]))
                if scene.pause_s is None:
                    world.clients.open()
                else:
                    world.clients.start()
                act = await scene.act(world)
                await world.heal_and_read(quiet_within_s=QUIET_WITHIN_S, faults=act.faults)
                findings = await check_database(world.tools.owner_url, quiet_within=timedelta(seconds=1))
                broken = [f"{one.words}: {', '.join(one.examples)}" for one in findings if not one.is_kept]
                verdict = judge(history)
                return Result(
                    scene=name,
                    words=scene.words,
                    figure=f"{act.figure}; {_money(verdict.by_rule)}",
                    figures=act.figures,
                    acknowledged=verdict.acknowledged,
                    seconds=round(time.monotonic() - began_at, 1),
                    problems=[*act.problems, *verdict.violations, *broken],
                )

        return asyncio.run(perform())


def _money(by_rule: dict[str, int]) -> str:
    return f"{by_rule.get('lost', 0)} lost, {by_rule.get('doubled', 0)} doubled"
