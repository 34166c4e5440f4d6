"""Customers who pay each other all the time, and remember every word that they were told."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from payflow.contracts.notification import FindDemoCode
from payflow.kernel.errors import PayflowError
from tests.support.api import Answer, Customer, new_key
from tests.support.other_bank import NORDBANK

# A repeat under the same key is what a client does that got no final answer.
_PAUSE_S: Final = 0.2
_FINAL: Final = frozenset({200, 422})


@dataclass
class Order:
    """One payment that a customer wants: its body, its key, and what became of it as the customer knows."""

    customer: Customer
    body: dict[str, Any]
    key: str
    final: Answer | None = None
    told: list[int] = field(default_factory=list)

    @property
    def is_paid(self) -> bool:
        """Whether the customer was told so."""
        return self.final is not None and self.final.status == 200


class Load:
    """Drives payments in the background until it is told to stop. `told` counts every answer by its status."""

    def __init__(self, customers: list[Customer], *, pause_s: float, seed: int) -> None:
        self.orders: list[Order] = []
        self.told: Counter[str] = Counter()
        self.bugs: list[str] = []
        self._customers = customers
        self._pause_s = pause_s
        self._random = random.Random(seed)
        self._is_over = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Have every customer pay."""
        self._tasks = [asyncio.create_task(self._pay_on(customer)) for customer in self._customers]

    async def stop(self) -> None:
        """Begin no more payments, and wait until each one begun has its final answer."""
        self._is_over = True
        await asyncio.gather(*self._tasks)

    @property
    def paid(self) -> int:
        """How many customers were told that they have paid."""
        return sum(order.is_paid for order in self.orders)

    async def _pay_on(self, customer: Customer) -> None:
        await asyncio.sleep(self._random.random() * self._pause_s)
        while not self._is_over:
            order = Order(customer, self._body(customer), new_key())
            self.orders.append(order)
            await self.to_the_end(order)
            await asyncio.sleep(self._pause_s * (0.5 + self._random.random()))

    def _body(self, customer: Customer) -> dict[str, Any]:
        other = self._random.choice([one for one in self._customers if one is not customer])
        chance = self._random.random()
        if chance < 0.15:
            return customer.body(NORDBANK, f"{self._random.randint(100, 999) / 100:.2f}")
        if chance < 0.20:
            return customer.body(other.account, "99999999.00")
        if chance < 0.25:
            return customer.body(other.account, "10000.01")
        return customer.body(other.account, f"{self._random.randint(100, 9999) / 100:.2f}")

    async def to_the_end(self, order: Order) -> None:
        """Send the payment again and again, always under its key, until it has succeeded or was refused."""
        while order.final is None:
            answer = await self._send(order)
            if answer is None:
                self.told["no answer"] += 1
            else:
                self.told[str(answer.status)] += 1
                order.told.append(answer.status)
                if answer.status == 200 and answer.json["status"] == "OTP_REQUIRED":
                    await self._find_code(order)
                    continue
                if answer.error in ("INVALID_OTP", "OTP_EXPIRED"):
                    order.body.pop("otp", None)
                elif answer.status in _FINAL:
                    order.final = answer
                    return
                elif answer.status not in (202, 409, 429, 503):
                    self.bugs.append(repr(answer))
            await asyncio.sleep(_PAUSE_S)

    async def _send(self, order: Order) -> Answer | None:
        try:
            return await order.customer.client.confirm(order.body, key=order.key)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def _find_code(self, order: Order) -> None:
        query = FindDemoCode(transaction_id=order.body["transaction_id"], customer_id=order.customer.customer_id)
        (code,) = await order.customer.notification.find_demo_codes([query])
        if isinstance(code, PayflowError):
            await asyncio.sleep(_PAUSE_S)
        else:
            order.body["otp"] = code.code
