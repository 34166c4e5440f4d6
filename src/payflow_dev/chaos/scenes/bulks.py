"""Lists of payments over the same accounts in opposite orders, at the same time: all finish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from payflow_dev.chaos.clients import Order
from payflow_dev.chaos.scenes.stage import Act, Scene
from payflow_dev.chaos.world import World

LISTS: Final = 8
ROUNDS: Final = 4
FINISHED_WITHIN_S: Final = 60.0


async def submit_list(world: World, orders: Sequence[Order]) -> None:
    """Have a list of payments made: one request each, in the list's order. A bulk request would go here."""
    await asyncio.gather(*(world.clients.to_the_end(order) for order in orders))


async def _act(world: World) -> Act:
    """Half of the lists go through the accounts upwards, half downwards; each account pays its neighbour."""
    count, seconds, made, unfinished = len(world.customers), [], 0, 0
    for number in range(ROUNDS):
        lists = []
        for which in range(LISTS):
            payers = range(count) if which % 2 == 0 else range(count - 1, -1, -1)
            step = 1 if which % 2 == 0 else -1
            lists.append(
                [
                    world.clients.new_order(
                        payer=payer,
                        creditor=world.customers[(payer + step) % count].accounts[0],
                        amount_minor=100 + which,
                    )
                    for payer in payers
                ]
            )
        began_at = time.monotonic()
        tasks = [asyncio.create_task(submit_list(world, orders)) for orders in lists]
        _, late = await asyncio.wait(tasks, timeout=FINISHED_WITHIN_S)
        for task in late:
            task.cancel()
        unfinished += len(late)
        seconds.append(time.monotonic() - began_at)
        made += sum(len(orders) for orders in lists)
        world.setup.tell(f"    round {number + 1}: {LISTS - len(late)} of {LISTS} lists in {seconds[-1]:.1f} s")
    return Act(
        figure=f"{LISTS * ROUNDS - unfinished} of {LISTS * ROUNDS} lists finished, {made} payments over {count} shared "
        f"accounts, at most {max(seconds):.1f} s for {LISTS} lists at once",
        figures={
            "lists": LISTS * ROUNDS,
            "unfinished": unfinished,
            "payments": made,
            "slowest_s": round(max(seconds), 2),
        },
        problems=[f"{unfinished} lists did not finish within {FINISHED_WITHIN_S:g} s"] if unfinished else [],
    )


crossing_bulks: Final = Scene(
    words="lists of payments share their accounts in opposite orders; all finish",
    act=_act,
    customers=32,
    only_direct=True,
)
