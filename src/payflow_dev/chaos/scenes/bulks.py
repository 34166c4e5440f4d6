"""Files of payments over the same accounts in opposite orders, at the same time: all finish."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from payflow_dev.chaos.files import pay_by_file
from payflow_dev.chaos.mix import File, Order
from payflow_dev.chaos.scenes.stage import Act, Scene
from payflow_dev.chaos.world import World

ROUNDS: Final = 4
FINISHED_WITHIN_S: Final = 60.0


async def _act(world: World) -> Act:
    """Every customer sends a file that pays all others: half of the files go through them upwards, half downwards."""
    seconds, made, unfinished = [], 0, 0
    count = len(world.customers)
    for number in range(ROUNDS):
        files = [File(payer, f"round-{number}-{payer}", _orders(world, payer)) for payer in range(count)]
        world.clients.files += files
        began_at = time.monotonic()
        tasks = [asyncio.create_task(pay_by_file(clients=world.clients, file=file)) for file in files]
        done, late = await asyncio.wait(tasks, timeout=FINISHED_WITHIN_S)
        for task in late:
            task.cancel()
        for task in done:
            task.result()
        unfinished += len(late)
        seconds.append(time.monotonic() - began_at)
        made += sum(len(file.orders) for file in files)
        world.setup.tell(f"    round {number + 1}: {count - len(late)} of {count} files in {seconds[-1]:.1f} s")
    return Act(
        figure=f"{count * ROUNDS - unfinished} of {count * ROUNDS} files finished, {made} payments over {count} shared "
        f"accounts, at most {max(seconds):.1f} s for {count} files at once",
        figures={
            "files": count * ROUNDS,
            "unfinished": unfinished,
            "payments": made,
            "slowest_s": round(max(seconds), 2),
        },
        problems=[f"{unfinished} files did not finish within {FINISHED_WITHIN_S:g} s"] if unfinished else [],
    )


def _orders(world: World, payer: int) -> list[Order]:
    others = [other for other in range(len(world.customers)) if other != payer]
    if payer % 2:
        others.reverse()
    return [
        world.clients.new_order(payer=payer, creditor=world.customers[other].accounts[0], amount_minor=100 + other)
        for other in others
    ]


crossing_bulks: Final = Scene(
    words="files of payments share their accounts in opposite orders; all finish",
    act=_act,
    customers=32,
    only_direct=True,
)
