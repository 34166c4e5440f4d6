"""More requests than there are connections, and more than the machine can do: nothing stands still or slows down."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise
from typing import Final

from payflow.run.registry import SERVICES
from payflow_dev.chaos.scenes.stage import Act, Scene
from payflow_dev.chaos.world import World

TIMES: Final = 20
STANDSTILL_S: Final = 5.0
STEP_S: Final = 8.0
RATE_FALLS_TO: Final = 0.8
# Both gateways let so many in: who is told to come again would be no backlog.
ONCE: Final = 32
BACKLOG: Final = 640


async def _act_connections(world: World) -> Act:
    """So many customers' requests at once, again and again, that every pool is asked for far more than it has."""
    connections = len(SERVICES)
    at_once = TIMES * connections
    load = Load(world, at_once=at_once)
    await load.run(seconds=STEP_S * 2)
    longest_s = load.longest_pause_s()
    problems = [f"no payment was made for {longest_s:.1f} s"] if longest_s > STANDSTILL_S else []
    if load.unanswered:
        problems.append(f"{load.unanswered} requests were never answered")
    return Act(
        figure=f"{at_once} requests at once on {connections} processes with a pool of 1 each: "
        f"{len(load.paid_at)} paid, {load.rate():.0f}/s, longest pause between two payments {longest_s:.2f} s",
        figures={
            "at_once": at_once,
            "connections": connections,
            "payments_per_s": round(load.rate(), 1),
            "longest_pause_s": round(longest_s, 3),
        },
        problems=problems,
    )


async def _act_overload(world: World) -> Act:
    """The rate with some requests under way, then with twenty times as many, in the first and the last part of it."""
    warm = Load(world, at_once=ONCE)
    await warm.run(seconds=STEP_S / 2)
    once = Load(world, at_once=ONCE)
    await once.run(seconds=STEP_S)
    over = Load(world, at_once=BACKLOG)
    await over.run(seconds=STEP_S * 2)
    first, last = over.rate(until=0.5), over.rate(since=0.5)
    ratio = min(first, last) / once.rate()
    problems = [f"the rate falls to {ratio:.2f} under overload"] if ratio < RATE_FALLS_TO else []
    return Act(
        figure=f"{once.rate():.0f}/s with {ONCE} requests under way, "
        f"{first:.0f}/s and then {last:.0f}/s with {BACKLOG}",
        figures={
            "once_per_s": round(once.rate(), 1),
            "overload_first_half_per_s": round(first, 1),
            "overload_second_half_per_s": round(last, 1),
            "ratio": round(ratio, 3),
        },
        problems=problems,
    )


class Load:
    """So many payments under way at any moment, from everybody to everybody; each is seen through to its end."""

    def __init__(self, world: World, *, at_once: int) -> None:
        self._world = world
        self._at_once = at_once
        self._began_at = self._ended_at = 0.0
        self.paid_at: list[float] = []
        self.unanswered = 0

    async def run(self, *, seconds: float) -> None:
        """Pay for so long; returns when the last one that was begun has ended."""
        self._began_at = time.monotonic()
        self._ended_at = self._began_at + seconds
        await asyncio.gather(*(self._pay_on(number) for number in range(self._at_once)))

    async def _pay_on(self, number: int) -> None:
        world = self._world
        count = len(world.customers)
        while time.monotonic() < self._ended_at:
            number += self._at_once
            payer = number % count
            creditor = world.customers[(payer + 1 + number // count % (count - 1)) % count].accounts[0]
            order = world.clients.new_order(payer=payer, creditor=creditor, amount_minor=100 + number % 50)
            try:
                async with asyncio.timeout(60):
                    await world.clients.to_the_end(order)
            except TimeoutError:
                self.unanswered += 1
                continue
            self.paid_at.append(time.monotonic())

    def rate(self, *, since: float = 0.0, until: float = 1.0) -> float:
        """Payments a second within this part of the time."""
        length = self._ended_at - self._began_at
        first, last = self._began_at + since * length, self._began_at + until * length
        return sum(first <= at < last for at in self.paid_at) / (last - first)

    def longest_pause_s(self) -> float:
        """The longest time within the run without a payment."""
        instants = [self._began_at, *sorted(at for at in self.paid_at if at < self._ended_at), self._ended_at]
        return max(later - earlier for earlier, later in pairwise(instants))


more_requests_than_connections: Final = Scene(
    words="20 requests for every connection, and a single connection in every pool; nothing stands still",
    act=_act_connections,
    customers=64,
    settings={"PAYFLOW_POSTGRES_POOL_SIZE": "1"},
    only_direct=True,
)
overload: Final = Scene(
    words="20 times the load, and a backlog that lasts; the settled rate does not fall",
    act=_act_overload,
    customers=64,
    only_direct=True,
)
