"""Customers who pay all the time, repeat under the same key what they got no final answer to, and note every word."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import aiohttp
import msgspec

from payflow.contracts.notification import FindDemoCode, Notification
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import format_minor
from payflow.run.local_rpc import LocalServices
from payflow_dev.bench.population import CURRENCY, INTER_BANK_CREDITOR_NAME, OPENING_BALANCE_MINOR, Customer
from payflow_dev.chaos.history import Call, History, now_ns

TIMEOUT_S: Final = 12.0
RETRY_S: Final = 0.15
FINAL: Final = frozenset({200, 422})
# Small enough for no points; large enough, with those for many payments, for a one-time password.
SMALL_MAX_MINOR: Final = 20_000
LARGE_MINOR: Final = 600_000
TOO_LARGE_MINOR: Final = 10**13
# Accounts at the simulated other banks, and how these are told to treat them: paid, refused, and paid without a word.
PAID_ABROAD: Final = "DE08990100100000001001"
REFUSED_ABROAD: Final = "DE78990100100000001002"
SILENT_ABROAD: Final = "FR7699002000010000000200107"
BANKS: Final = {
    "accounts": {
        REFUSED_ABROAD: {"mode": "reject", "reason_code": "AC04"},
        SILENT_ABROAD: {"mode": "silent_after"},
    }
}
ABROAD: Final = (PAID_ABROAD, REFUSED_ABROAD, SILENT_ABROAD)
SCHEDULED_AFTER_S: Final = 3.0
SAME_REQUESTS: Final = 50
CROSSING_EACH_WAY: Final = 6
_decode: Final = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Order:
    """One payment that a customer wants; `key` is its transaction id, and its idempotency key unless it has another."""

    payer: int
    key: str
    debtor: str
    creditor: str
    amount_minor: int
    execute_at: str | None = None
    code: str | None = None
    final: tuple[int, bytes] | None = None
    is_cancelled: bool = False
    idempotency_key: str | None = None


def _cancels_codes(payer: int) -> bool:
    """A quarter of the customers cancel what asks for a code; some of them at each address, as of all kinds."""
    return payer // 4 % 4 == 3


def _cancels_later_ones(payer: int) -> bool:
    """Another quarter cancels what was ordered for later."""
    return payer // 4 % 4 == 1


class Clients:
    """The load: every customer pays one payment after the other until told to stop.

    `url` is the public address; `gateways` are those of the single gateways, which half of the customers use.
    """

    def __init__(
        self,
        *,
        url: str,
        gateways: Sequence[str],
        customers: Sequence[Customer],
        tokens: Sequence[str],
        history: History,
        services: LocalServices,
        seed: int,
        pause_s: float,
    ) -> None:
        self.url = url
        self._urls = (url, url, *gateways)
        self._gateways = tuple(gateways)
        self._customers = customers
        self._tokens = tokens
        self._history = history
        self._notification = services.client(Notification)
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._session: aiohttp.ClientSession | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self._bursts = 0
        self._last_cents = 0
        self.orders: list[Order] = []
        self.acknowledged = 0
        self.last_success_ns = 0
        self._paid: deque[tuple[int, int]] = deque(maxlen=5000)

    def start(self) -> None:
        """Begin to pay."""
        self.open()
        self._tasks = [asyncio.create_task(self._pay_on(payer)) for payer in range(len(self._customers))]

    def open(self) -> None:
        """Be able to pay, without beginning by oneself."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )

    async def settle(self, *, within_s: float) -> list[str]:
        """Begin no more payments, and wait until each one begun has its final answer; the keys of those without."""
        self._is_over = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=within_s)
            for task in late:
                task.cancel()
        return [order.key for order in self.orders if order.final is None]

    async def close(self) -> None:
        """Give everything up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def first_paid_after(self, instant_ns: int) -> int | None:
        """When the first payment was answered that was asked for after this instant: earlier requests prove nothing."""
        return next((answered for invoked, answered in self._paid if invoked > instant_ns), None)

    async def _pay_on(self, payer: int) -> None:
        await asyncio.sleep(self._random.random() * self._pause_s)
        number = 0
        while not self._is_over:
            number += 1
            order = self._order(payer, number)
            self.orders.append(order)
            await self.to_the_end(order)
            await asyncio.sleep(self._pause_s * (0.5 + self._random.random()))

    def _order(self, payer: int, number: int) -> Order:
        mine = self._customers[payer].accounts[0]
        # A neighbour at a distance of one: every pair pays each other, in both directions, all the time.
        neighbour = payer ^ 1 if self._random.random() < 0.5 else self._random.randrange(len(self._customers))
        other = self._customers[neighbour % len(self._customers)]
        creditor = other.accounts[0] if other.accounts[0] != mine else self._customers[payer].accounts[1]
        chance = self._random.random()
        order = Order(payer, f"c{payer:03d}-{number:06d}", mine, creditor, self._random.randint(100, SMALL_MAX_MINOR))
        if chance < 0.15:
            order.creditor = self._random.choice((PAID_ABROAD, PAID_ABROAD, REFUSED_ABROAD, SILENT_ABROAD))
        elif chance < 0.20:
            order.amount_minor = LARGE_MINOR
        elif chance < 0.23:
            order.amount_minor = TOO_LARGE_MINOR
        elif chance < 0.26:
            order.execute_at = (datetime.now(UTC) + timedelta(seconds=SCHEDULED_AFTER_S)).isoformat()
        return order

    def new_order(self, *, payer: int, creditor: str, amount_minor: int, account: int = 0) -> Order:
        """An order beside what customers want by themselves; it is read at the end like all."""
        self._bursts += 1
        debtor = self._customers[payer].accounts[account]
        order = Order(payer, f"x{payer:03d}-{self._bursts:06d}", debtor, creditor, amount_minor)
        self.orders.append(order)
        return order

    async def same_request_at_once(self) -> int:
        """One request fifty times at the same moment, half to each gateway; how many were answered."""
        payer = self._random.randrange(len(self._customers))
        creditor = self._customers[payer - 1].accounts[0]
        order = self.new_order(payer=payer, creditor=creditor, amount_minor=self._random.randint(100, SMALL_MAX_MINOR))
        each = [self.send(order, url=self._gateways[number % 2]) for number in range(SAME_REQUESTS)]
        answers = await asyncio.gather(*each)
        await self.to_the_end(order)
        return sum(status is not None for status, _ in answers)

    async def crossing(self) -> int:
        """Every pair of neighbours pays each other at the same moment, several times each way; how many payments."""
        orders = [
            self.new_order(payer=payer, creditor=self._customers[payer ^ 1].accounts[0], amount_minor=100 + number)
            for number in range(CROSSING_EACH_WAY)
            for payer in range(len(self._customers) // 2 * 2)
        ]
        await asyncio.gather(*(self.to_the_end(order) for order in orders))
        return len(orders)

    async def last_cent(self) -> int:
        """Spend the whole of a second account four times at the same moment; how many were paid: never more than one.

        One goes abroad, where its money is held for a while: what is held is not to be spent either.
        """
        # Not those who cancel what asks for a code, as such amounts do.
        payers = [payer for payer in range(len(self._customers)) if not _cancels_codes(payer)]
        payer = payers[self._bursts % len(payers)]
        creditors = (SILENT_ABROAD, *(self._customers[payer - number].accounts[0] for number in (1, 2, 3)))
        orders = [
            self.new_order(payer=payer, creditor=creditor, amount_minor=OPENING_BALANCE_MINOR, account=1)
            for creditor in creditors
        ]
        self._last_cents += 1
        if self._last_cents % 2:
            # Every other time all have their codes and the money is held before the others go on; else all race.
            for order in orders[1:]:
                status, body = await self.send(order)
                if status == 200 and b'"OTP_REQUIRED"' in body:
                    await self._answer_code(order)
        abroad = asyncio.create_task(self.to_the_end(orders[0]))
        while self._last_cents % 2 and not abroad.done():
            found = await self.read(payer, f"/accounts/{orders[0].debtor}")
            if found["held"] != "0.00":
                break
        await asyncio.gather(abroad, *(self.to_the_end(order) for order in orders[1:]))
        return sum(order.final is not None and b'"SUCCESS"' in order.final[1] for order in orders)

    async def to_the_end(self, order: Order) -> None:
        """Repeat the order under its key until it has a final answer."""
        while order.final is None:
            status, body = await self.send(order)
            if status == 200 and b'"status":"OTP_REQUIRED"' in body:
                await self._answer_code(order)
            elif status == 422 and (b"INVALID_OTP" in body or b"OTP_EXPIRED" in body):
                order.code = None
            elif status in FINAL:
                order.final = (int(status), body)
                return
            elif (
                status == 202
                and order.execute_at is not None
                and _cancels_later_ones(order.payer)
                and not order.is_cancelled
            ):
                order.is_cancelled = True
                await self._cancel(order)
            await asyncio.sleep(RETRY_S)

    async def _answer_code(self, order: Order) -> None:
        if _cancels_codes(order.payer) and not order.is_cancelled:
            order.is_cancelled = True
            await self._cancel(order)
            return
        query = FindDemoCode(transaction_id=order.key, customer_id=self._customers[order.payer].customer_id)
        (found,) = await self._notification.find_demo_codes([query])
        if not isinstance(found, PayflowError):
            order.code = found.code

    async def send(self, order: Order, *, url: str | None = None) -> tuple[int | None, bytes]:
        """Ask for the payment once, at one gateway if told so; None: no answer came."""
        operation = "pay" if order.code is None else "pay_with_code"
        url = url or self._urls[order.payer % len(self._urls)]
        return await self._call(operation, order, f"{url}/payment/confirm", self.body_of(order))

    async def _cancel(self, order: Order) -> None:
        url = self._urls[order.payer % len(self._urls)]
        await self._call("cancel", order, f"{url}/payments/{order.key}/cancel", None)

    def body_of(self, order: Order) -> dict[str, Any]:
        """The request's body."""
        body: dict[str, Any] = {
            "transaction_id": order.key,
            "customer_id": self._customers[order.payer].customer_id,
            "amount": format_minor(order.amount_minor, CURRENCY),
            "from_account": order.debtor,
            "to_account": order.creditor,
        }
        if order.creditor in ABROAD:
            body["creditor"] = {"name": INTER_BANK_CREDITOR_NAME}
        if order.execute_at is not None:
            body["execute_at"] = order.execute_at
        if order.code is not None:
            body["otp"] = order.code
        return body

    async def _call(
        self, operation: str, order: Order, url: str, body: dict[str, Any] | None
    ) -> tuple[int | None, bytes]:
        invoked_ns = now_ns()
        status, answer, answered_ns = await self._request(
            order.payer, "POST", url, body, key=order.idempotency_key or order.key
        )
        if operation != "cancel" and (status == 202 or (status == 200 and b'"SUCCESS"' in answer)):
            self.acknowledged += order.final is None and status == 200
            self.last_success_ns = now_ns()
            self._paid.append((invoked_ns, self.last_success_ns))
        text = None if status is None else answer.decode("utf-8", "replace")
        self._note(operation, order, invoked_ns, answered_ns, status, text)
        return status, answer

    def note_silence(self, order: Order) -> None:
        """A request for this payment was sent by somebody who did not wait for an answer."""
        self._note("pay", order, now_ns(), None, None, None)

    def _note(
        self,
        operation: str,
        order: Order,
        invoked_ns: int,
        answered_ns: int | None,
        status: int | None,
        body: str | None,
    ) -> None:
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
                body=body,
            )
        )

    async def _request(
        self, payer: int, method: str, url: str, body: dict[str, Any] | None, *, key: str
    ) -> tuple[int | None, bytes, int | None]:
        assert self._session is not None
        headers = {"Authorization": f"Bearer {self._tokens[payer]}", "Idempotency-Key": key}
        try:
            async with self._session.request(method, url, json=body, headers=headers) as response:
                answer = await response.read()
                return response.status, answer, now_ns()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None, b"", None

    async def read(self, payer: int, path: str) -> Any:
        """A GET that must be answered: repeated until it is; None for 404."""
        for _ in range(100):
            status, answer, _ = await self._request(payer, "GET", f"{self._urls[0]}{path}", None, key="-")
            if status == 200:
                return _decode(answer)
            if status == 404:
                return None
            await asyncio.sleep(RETRY_S)
        raise TimeoutError(f"{path} was never answered")
