"""Clients that go away in the middle of a request: their accounts must be usable at once by whoever comes next."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final
from urllib.parse import urlsplit

from payflow_dev.chaos.mix import Order
from payflow_dev.chaos.proxy import cut
from payflow_dev.chaos.scenes.stage import Act, Scene
from payflow_dev.chaos.world import World

AT_ONCE: Final = 16
# At once, that is: no later than usual, whatever usual is on this machine at this moment.
NEXT_WITHIN_S: Final = 2.0
TIMES_USUAL: Final = 2.0
ROUNDS: Final = 3
# How a client goes: with half of its request sent, with all of it, or some time later; by an end or by a reset.
_WAYS: Final = ((0.5, 0.0, False), (1.0, 0.0, False), (1.0, 0.0, True), (1.0, 0.005, False), (1.0, 0.02, True))


async def go_away(world: World, order: Order, *, share: float, after_s: float, resets: bool) -> None:
    """Send a share of the request and disconnect without waiting for an answer."""
    body = json.dumps(world.clients.body_of(order)).encode()
    head = (
        f"POST /payment/confirm HTTP/1.1\r\nHost: payflow\r\nAuthorization: Bearer {world.tokens[order.payer]}\r\n"
        f"Idempotency-Key: {order.key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    parts = urlsplit(world.clients.url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port)
    request = head + body
    writer.write(request[: int(len(request) * share)])
    await writer.drain()
    await asyncio.sleep(after_s)
    cut(writer, resets=resets)
    world.clients.note_silence(order)


async def leave_then_pay(world: World, payer: int) -> list[float]:
    """Disconnect in every way, all at once, then pay: the seconds until that next payment was made."""
    return [await _pay_after(world, payer, _leave) for _ in range(ROUNDS)]


async def stay_then_pay(world: World, payer: int) -> list[float]:
    """The same with clients who stay for their answers: what the next payment takes where nobody goes away."""
    return [await _pay_after(world, payer, _stay) for _ in range(ROUNDS)]


async def _pay_after(world: World, payer: int, ask: Callable[[World, list[Order]], Coroutine[Any, Any, None]]) -> float:
    neighbour = world.customers[(payer + 1) % len(world.customers)].accounts[0]
    asked = [world.clients.new_order(payer=payer, creditor=neighbour, amount_minor=100 + n) for n in range(len(_WAYS))]
    under_way = asyncio.create_task(ask(world, asked))
    if ask is _leave:
        await under_way
    following = world.clients.new_order(payer=payer, creditor=neighbour, amount_minor=500)
    began_at = time.monotonic()
    await world.clients.to_the_end(following)
    seconds = time.monotonic() - began_at
    await under_way
    # Nobody waits for those who left; here somebody comes back for each, so that its end is known.
    for order in asked:
        await world.clients.to_the_end(order)
    return seconds


async def _leave(world: World, orders: list[Order]) -> None:
    await asyncio.gather(
        *(
            go_away(world, order, share=share, after_s=after_s, resets=resets)
            for order, (share, after_s, resets) in zip(orders, _WAYS, strict=True)
        )
    )


async def _stay(world: World, orders: list[Order]) -> None:
    await asyncio.gather(*(world.clients.send(order) for order in orders))


async def _everybody(world: World, pay: Callable[[World, int], Awaitable[list[float]]]) -> list[float]:
    """All customers in groups; the seconds of all, sorted."""
    seconds: list[float] = []
    for first in range(0, len(world.customers), AT_ONCE):
        payers = range(first, min(first + AT_ONCE, len(world.customers)))
        for one in await asyncio.gather(*(pay(world, payer) for payer in payers)):
            seconds += one
    return sorted(seconds)


async def _act(world: World) -> Act:
    usual = await _everybody(world, stay_then_pay)
    after = await _everybody(world, leave_then_pay)
    limit_s = max(NEXT_WITHIN_S, TIMES_USUAL * usual[-1])
    late = sum(seconds > limit_s for seconds in after)
    left = len(after) * len(_WAYS)
    median, worst = after[len(after) // 2], after[-1]
    return Act(
        figure=f"{left} clients gone in mid-request from {len(world.customers)} accounts: the account's next payment "
        f"was made after {median * 1000:.0f} ms (median), {worst * 1000:.0f} ms (worst); where they stay, "
        f"{usual[len(usual) // 2] * 1000:.0f} ms and {usual[-1] * 1000:.0f} ms",
        figures={
            "gone": left,
            "next_s_median": round(median, 3),
            "next_s_max": round(worst, 3),
            "usual_s_median": round(usual[len(usual) // 2], 3),
            "usual_s_max": round(usual[-1], 3),
        },
        problems=[f"{late} accounts were not usable within {limit_s:.1f} s"] if late else [],
    )


clients_gone: Final = Scene(
    words="clients disconnect in the middle of a request; every account is usable at once",
    act=_act,
    customers=32,
    only_direct=True,
)
