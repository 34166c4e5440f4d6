"""Customers who pay all the time, repeat under the same key what they got no final answer to, and note every word."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from payflow.contracts.notification import FindDemoCode, Notification
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import format_minor
from payflow.run.local_rpc import LocalServices
from payflow_dev.bench.population import CURRENCY, INTER_BANK_CREDITOR_NAME, INTER_BANK_CREDITORS, Customer
from payflow_dev.chaos.history import Call, History, now_ns

TIMEOUT_S: Final = 12.0
RETRY_S: Final = 0.15
FINAL: Final = frozenset({200, 422})
# Small enough for no points; large enough, with those for many payments, for a one-time password.
SMALL_MAX_MINOR: Final = 20_000
LARGE_MINOR: Final = 600_000
_decode: Final = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Order:
    """One payment that a customer wants."""

    payer: int
    key: str
    debtor: str
    creditor: str
    amount_minor: int
    code: str | None = None
    final: tuple[int, bytes] | None = None
    is_cancelled: bool = False


class Clients:
    """The load: every customer pays one payment after the other until told to stop."""

    def __init__(
        self,
        *,
        url: str,
        customers: Sequence[Customer],
        tokens: Sequence[str],
        history: History,
        services: LocalServices,
        seed: int,
        pause_s: float,
    ) -> None:
        self._url = url
        self._customers = customers
        self._tokens = tokens
        self._history = history
        self._notification = services.client(Notification)
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self.orders: list[Order] = []
        self.acknowledged = 0
        self.last_success_ns = 0

    def start(self) -> None:
        """Begin to pay."""
        self._session = aiohttp.ClientSession(
            self._url,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )
        self._tasks = [asyncio.create_task(self._pay_on(payer)) for payer in range(len(self._customers))]

    async def settle(self) -> None:
        """Begin no more payments; return when each one begun has its final answer."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Give everything up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _pay_on(self, payer: int) -> None:
        await asyncio.sleep(self._random.random() * self._pause_s)
        number = 0
        while not self._is_over:
            number += 1
            order = self._order(payer, number)
            self.orders.append(order)
            if self._random.random() < 0.02:
                await self._all_at_once(order)
            await self._to_the_end(order)
            await asyncio.sleep(self._pause_s * (0.5 + self._random.random()))

    def _order(self, payer: int, number: int) -> Order:
        mine = self._customers[payer].accounts[0]
        # A neighbour at a distance of one: every pair pays each other, in both directions, all the time.
        neighbour = payer ^ 1 if self._random.random() < 0.5 else self._random.randrange(len(self._customers))
        other = self._customers[neighbour]
        creditor = other.accounts[0] if other.accounts[0] != mine else self._customers[payer].accounts[1]
        chance = self._random.random()
        amount_minor = self._random.randint(100, SMALL_MAX_MINOR)
        if chance < 0.15:
            creditor = INTER_BANK_CREDITORS[0]
        elif chance < 0.20:
            amount_minor = LARGE_MINOR
        elif chance < 0.23:
            amount_minor = 10**13
        return Order(payer, f"c{payer:03d}-{number:06d}", mine, creditor, amount_minor)

    async def _all_at_once(self, order: Order) -> None:
        """The same request fifty times at the same moment; both gateways get some of them."""
        await asyncio.gather(*(self.send(order) for _ in range(50)))

    async def _to_the_end(self, order: Order) -> None:
        while order.final is None:
            status, body = await self.send(order)
            if status == 200 and b'"status":"OTP_REQUIRED"' in body:
                await self._answer_code(order)
            elif status == 422 and (b"INVALID_OTP" in body or b"OTP_EXPIRED" in body):
                order.code = None
            elif status in FINAL:
                order.final = (int(status), body)
                return
            await asyncio.sleep(RETRY_S)

    async def _answer_code(self, order: Order) -> None:
        if order.payer % 4 == 3 and not order.is_cancelled:
            order.is_cancelled = True
            await self._cancel(order)
            return
        query = FindDemoCode(transaction_id=order.key, customer_id=self._customers[order.payer].customer_id)
        (found,) = await self._notification.find_demo_codes([query])
        if not isinstance(found, PayflowError):
            order.code = found.code

    async def send(self, order: Order) -> tuple[int | None, bytes]:
        """Ask for the payment once; None: no answer came."""
        operation = "pay" if order.code is None else "pay_with_code"
        return await self._call(operation, order, "POST", "/payment/confirm", self.body_of(order))

    async def _cancel(self, order: Order) -> None:
        await self._call("cancel", order, "POST", f"/payments/{order.key}/cancel", None)

    def body_of(self, order: Order) -> dict[str, Any]:
        """The request's body."""
        body: dict[str, Any] = {
            "transaction_id": order.key,
            "customer_id": self._customers[order.payer].customer_id,
            "amount": format_minor(order.amount_minor, CURRENCY),
            "from_account": order.debtor,
            "to_account": order.creditor,
        }
        if order.creditor in INTER_BANK_CREDITORS:
            body["creditor"] = {"name": INTER_BANK_CREDITOR_NAME}
        if order.code is not None:
            body["otp"] = order.code
        return body

    async def _call(
        self, operation: str, order: Order, method: str, path: str, body: dict[str, Any] | None
    ) -> tuple[int | None, bytes]:
        invoked_ns = now_ns()
        status, answer, answered_ns = await self._request(order.payer, method, path, body, key=order.key)
        if operation != "cancel" and (status == 202 or (status == 200 and b'"SUCCESS"' in answer)):
            self.acknowledged += order.final is None and status == 200
            self.last_success_ns = now_ns()
        self._history.write(
            Call(
                operation=operation,
                customer=self._customers[order.payer].customer_id,
                key=order.key,
                transaction=order.key,
                debtor=order.debtor,
                creditor=order.creditor,
                amount_minor=order.amount_minor,
                invoked_ns=invoked_ns,
                answered_ns=answered_ns,
                status=status,
                body=None if status is None else answer.decode("utf-8", "replace"),
            )
        )
        return status, answer

    async def _request(
        self, payer: int, method: str, path: str, body: dict[str, Any] | None, *, key: str
    ) -> tuple[int | None, bytes, int | None]:
        assert self._session is not None
        headers = {"Authorization": f"Bearer {self._tokens[payer]}", "Idempotency-Key": key}
        try:
            async with self._session.request(method, path, json=body, headers=headers) as response:
                answer = await response.read()
                return response.status, answer, now_ns()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None, b"", None

    async def read(self, payer: int, path: str) -> Any:
        """A GET that must be answered: repeated until it is; None for 404."""
        for _ in range(100):
            status, answer, _ = await self._request(payer, "GET", path, None, key="-")
            if status == 200:
                return _decode(answer)
            if status == 404:
                return None
            await asyncio.sleep(RETRY_S)
        raise TimeoutError(f"{path} was never answered")
