"""Files of payments as a customer sends them: uploaded under one key, watched to the end, each line repeated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from payflow.kernel.money import format_minor
from payflow_dev.bench.population import CURRENCY
from payflow_dev.chaos.clients import Clients, Order

PATH: Final = "/payments/bulk"
_LOOK_S: Final = 0.1
_ENDED: Final = frozenset({"COMPLETED", "CANCELLED", "EXPIRED"})


async def pay_by_file(*, clients: Clients, token: str, key: str, orders: Sequence[Order]) -> None:
    """Have the orders of one customer made by a file, and hear of each as its customer does: by repeating it.

    Raises RuntimeError where the file is refused, and aiohttp's errors.
    """
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(clients.url, headers=headers) as session:
        upload = {"Idempotency-Key": key, "Content-Type": "application/x-ndjson"}
        file = b"\n".join(json.dumps(_line_of(order)).encode() for order in orders)
        async with session.post(PATH, data=file, headers=upload) as response:
            bulk: dict[str, Any] = await response.json(content_type=None)
            if response.status not in (200, 202):
                raise RuntimeError(f"the file {key} was refused: {response.status} {bulk.get('error')}")
        place = f"{PATH}/{bulk['bulk_id']}"
        while bulk["status"] not in _ENDED:
            await asyncio.sleep(_LOOK_S)
            bulk = await _get(session, place)
        await _take_keys(session, place, orders)
    for order in orders:
        await clients.to_the_end(order)


def _line_of(order: Order) -> dict[str, str]:
    return {
        "transaction_id": order.key,
        "amount": format_minor(order.amount_minor, CURRENCY),
        "from_account": order.debtor,
        "to_account": order.creditor,
    }


async def _take_keys(session: aiohttp.ClientSession, place: str, orders: Sequence[Order]) -> None:
    """Every line is a payment of its own, under a key of its own."""
    cursor: int | None = 0
    while cursor is not None:
        page = await _get(session, f"{place}/items?limit=1000&cursor={cursor}")
        for item in page["data"]:
            orders[item["line"] - 1].idempotency_key = item["idempotency_key"]
        cursor = page["next_cursor"]


async def _get(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with session.get(path) as response:
        answer: dict[str, Any] = await response.json(content_type=None)
        if response.status != 200:
            raise RuntimeError(f"GET {path}: {response.status} {answer.get('error')}")
        return answer
