"""Files of payments as customers send them, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import aiohttp

from tests.support.api import Answer, Customer, eventually

BULK: Final = "/payments/bulk"
NDJSON: Final = "application/x-ndjson"
ENDED: Final = ("COMPLETED", "CANCELLED", "EXPIRED")


def lines_of(bodies: Sequence[dict[str, Any]]) -> bytes:
    """A file of JSON lines."""
    return b"".join(json.dumps(body).encode() + b"\n" for body in bodies)


async def upload(customer: Customer, file: bytes, *, key: str, kind: str = NDJSON, line: int | None = None) -> Answer:
    """Send a file, or the rest of one from `line` on."""
    headers = {"Idempotency-Key": key, "Content-Type": kind}
    if line is not None:
        headers["Upload-Line"] = str(line)
    client = customer.client
    return await client.api.send("POST", BULK, token=client.token, body=file, headers=headers)


async def order(customer: Customer, bulk_id: str) -> dict[str, Any]:
    """How a bulk order stands."""
    answer = await customer.client.get(f"{BULK}/{bulk_id}")
    assert answer.status == 200, answer
    return dict(answer.json)


async def ended(customer: Customer, bulk_id: str, *, seconds: float = 60) -> dict[str, Any]:
    """The order once it has ended; answers that a fault explains are passed over."""

    async def look() -> Any:
        try:
            answer = await customer.client.get(f"{BULK}/{bulk_id}")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        return answer.json if answer.status == 200 and answer.json["status"] in ENDED else None

    return dict(await eventually(look, seconds=seconds, pause_s=0.2))


async def results(customer: Customer, bulk_id: str, *, status: str | None = None) -> list[dict[str, Any]]:
    """All results of an order, in file order."""
    found: list[dict[str, Any]] = []
    cursor = "0"
    while True:
        query = f"limit=1000&cursor={cursor}" + (f"&status={status}" if status else "")
        answer = await customer.client.get(f"{BULK}/{bulk_id}/items?{query}")
        assert answer.status == 200, answer
        found += answer.json["data"]
        if answer.json["next_cursor"] is None:
            return found
        cursor = answer.json["next_cursor"]
