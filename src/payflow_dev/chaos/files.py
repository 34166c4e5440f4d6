"""Files of payments as a customer sends them: under one key, resumed when the connection was lost, heard by line."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from payflow_dev.chaos.history import FileCall, FileLine, History
from payflow_dev.chaos.mix import File, Order
from payflow_dev.chaos.wire import Answer

PATH: Final = "/payments/bulk"
_LOOK_S: Final = 0.1
_RETRY_S: Final = 0.15
_TRIES_MAX: Final = 400
_ENDED: Final = frozenset({"COMPLETED", "CANCELLED", "EXPIRED"})


class Senders(Protocol):
    """The customers of a run, as far as a file needs them (`Clients`)."""

    url: str
    history: History

    def customer_id(self, payer: int) -> str:
        """The id of the customer with this number."""
        ...

    def url_of(self, payer: int) -> str:
        """The address that this customer's next request goes to."""
        ...

    async def to_the_end(self, order: Order) -> None:
        """Ask for an order until it has its final answer."""
        ...

    async def ask(self, payer: int, method: str, url: str, **more: Any) -> Answer:
        """Ask once, as this customer."""
        ...

    async def read(self, payer: int, path: str) -> Any:
        """Read what is there, as this customer."""
        ...


async def pay_by_file(*, clients: Senders, file: File, chance: random.Random | None = None) -> None:
    """Have the file's orders made, and hear of each as its customer does: by repeating it under its line's key.

    With a `chance` to draw from, the connection is lost in the middle of some uploads, and the same file, or its rest,
    is sent again under its key, sometimes at both gateways at once. Raises RuntimeError where the file is refused.
    """
    upload = _Upload(clients, file)
    drawn = chance.random() if chance is not None else 1.0
    if drawn < 0.6:
        await upload.send(is_cut=True)
    if drawn < 0.2:
        await asyncio.gather(upload.send(), upload.send())
    elif drawn < 0.4:
        await upload.send_rest()
    bulk = await upload.until_taken()
    file.bulk_id = str(bulk["bulk_id"])
    while bulk["status"] not in _ENDED:
        await asyncio.sleep(_LOOK_S)
        bulk = await clients.read(file.payer, f"{PATH}/{file.bulk_id}")
    file.has_ended = True
    for item in await items_of(clients, file):
        # Every line is a payment of its own, under a key of its own.
        file.orders[item["line"] - 1].idempotency_key = item["idempotency_key"]
    for order in file.orders:
        await clients.to_the_end(order)


async def items_of(clients: Senders, file: File) -> list[dict[str, Any]]:
    """What the file tells of its lines. Raises TimeoutError."""
    items: list[dict[str, Any]] = []
    cursor: str | None = "0"
    while cursor is not None:
        page = await clients.read(file.payer, f"{PATH}/{file.bulk_id}/items?limit=1000&cursor={cursor}")
        items += page["data"]
        cursor = page["next_cursor"]
    return items


class _Upload:
    """One file on its way, in as many requests as it takes."""

    def __init__(self, clients: Senders, file: File) -> None:
        self._clients, self._file = clients, file
        customer_id = clients.customer_id(file.payer)
        self._lines = [json.dumps(order.body(customer_id)).encode() + b"\n" for order in file.orders]
        self._sent = 0

    async def until_taken(self) -> dict[str, Any]:
        """Send the whole file until it is taken; the order that it has become. Raises RuntimeError, TimeoutError."""
        for _ in range(_TRIES_MAX):
            answer = await self.send()
            if answer.status in (200, 202):
                bulk: dict[str, Any] = answer.json
                return bulk
            if answer.status not in (None, 409, 429, 500, 503):
                raise RuntimeError(f"the file {self._file.key} was refused: {answer.status} {answer.text}")
            await asyncio.sleep(_RETRY_S)
        raise TimeoutError(f"the file {self._file.key} was never taken")

    async def send_rest(self) -> Answer:
        """Ask where the file goes on, by its last line, and send what is missing from there."""
        answer = await self.send(first_line=len(self._lines))
        if answer.status == 409 and b"UPLOAD_GAP" in answer.body:
            return await self.send(first_line=answer.json["next_line"])
        return answer

    async def send(self, *, first_line: int = 1, is_cut: bool = False) -> Answer:
        """Send the file from a line on; `is_cut`: hang up in the middle of it."""
        clients, payer = self._clients, self._file.payer
        lines = self._lines[first_line - 1 :]
        self._sent += 1
        headers = {
            "Idempotency_Key": self._file.key,
            "Content_Type": "application/x-ndjson",
            "Content_Length": str(sum(len(line) for line in lines)),
        }
        if first_line > 1:
            headers["Upload_Line"] = str(first_line)
        # The proxies before the gateways pass whole requests on: half a file goes to the public port.
        url = clients.url if is_cut else clients.url_of(payer + self._sent)
        data: Any = _half(lines) if is_cut else b"".join(lines)
        answer = await clients.ask(payer, "POST", f"{url}{PATH}", data=data, **headers)
        clients.history.write(
            FileCall(
                customer=clients.customer_id(payer),
                key=self._file.key,
                first_line=first_line,
                lines=[_line(order) for order in self._file.orders[first_line - 1 :]],
                is_cut=is_cut,
                invoked_ns=answer.invoked_ns,
                answered_ns=answer.answered_ns,
                status=answer.status,
                body=answer.text,
            )
        )
        return answer


async def _half(lines: list[bytes]) -> AsyncIterator[bytes]:
    """Half of the lines and a piece of the next one, and then the connection is lost."""
    half = len(lines) // 2
    yield b"".join(lines[:half]) + lines[half][:20]
    # Let it arrive: what is lost with the connection was never sent.
    await asyncio.sleep(_LOOK_S)
    raise ConnectionResetError("the customer hangs up")


def _line(order: Order) -> FileLine:
    return FileLine(
        order.key,
        order.debtor,
        order.creditor,
        order.amount_minor,
        order.is_listed,
        order.execute_at,
        order.due_ns,
    )
