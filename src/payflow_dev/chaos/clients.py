"""Customers who pay all the time, repeat under the same key what they got no final answer to, and note every word."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from payflow.contracts.notification import FindDemoCode, Notification
from payflow.kernel.errors import PayflowError
from payflow.run.local_rpc import LocalServices
from payflow_dev.bench.population import OPENING_BALANCE_MINOR, Customer
from payflow_dev.chaos.files import pay_by_file
from payflow_dev.chaos.history import Call, History, now_ns
from payflow_dev.chaos.incoming import OtherBank
from payflow_dev.chaos.mix import (
    PAID_ABROAD,
    SILENT_ABROAD,
    SMALL_MAX_MINOR,
    File,
    Mix,
    Order,
    cancels_codes,
    cancels_later_ones,
    who_has_a_last_cent,
)
from payflow_dev.chaos.office import Office
from payflow_dev.chaos.wire import Answer, Wire

RETRY_S: Final = 0.15
FINAL: Final = frozenset({200, 422})
SAME_REQUESTS: Final = 50
CROSSING_EACH_WAY: Final = 6


class Clients:
    """The load: every customer pays one payment after the other until told to stop.

    `url` is the public address; `gateways` are those of the single gateways, which half of the customers use. Without
    an `office` there are single payments only: nobody could decide about anything else. `bank` pays in from outside.
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
        wire: Wire,
        office: Office | None = None,
        bank: OtherBank | None = None,
    ) -> None:
        self.url = url
        self._urls = (url, url, *gateways)
        self._gateways = tuple(gateways)
        self.customers = customers
        self.tokens = tokens
        self.history = history
        self.wire, self.office, self.bank = wire, office, bank
        self._notification = services.client(Notification)
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._mix = Mix(customers=customers, chance=self._random, is_simple=office is None)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self._bursts = 0
        self._last_cents = 0
        self._emptied: set[int] = set()
        self.orders: list[Order] = []
        self.files: list[File] = []
        self._known: dict[tuple[str, str], Order] = {}
        self.acknowledged = 0
        self.last_success_ns = 0
        # Why customers stopped asking before the run's end, once everything is settled.
        self.given_up: list[str] = []
        self._ours = frozenset(account for customer in customers for account in customer.accounts)
        self._paid: deque[tuple[int, int]] = deque(maxlen=5000)

    def start(self) -> None:
        """Begin to pay."""
        self.open()
        self._tasks = [asyncio.create_task(self._pay_on(payer)) for payer in range(len(self.customers))]
        if self.bank is not None:
            self._tasks += self.bank.start(sorted(self._ours))

    def open(self) -> None:
        """Be able to pay, without beginning by oneself."""
        self.wire.open()
        if self.office is not None:
            self.office.open(self.order_of)

    async def settle(self, *, within_s: float) -> list[str]:
        """Begin nothing more, and wait until each thing begun has its final answer; the keys of what has none."""
        self._is_over = True
        if self.bank is not None:
            self.bank.is_over = True
        if self._tasks:
            done, late = await asyncio.wait(self._tasks, timeout=within_s)
            for task in late:
                task.cancel()
            self.given_up = [repr(error) for task in done if (error := task.exception()) is not None]
        unsettled = [order.key for order in self.orders if order.final is None]
        unsettled += [file.key for file in self.files if not file.has_ended]
        unsettled += self.office.unsettled() if self.office is not None else []
        return unsettled + (self.bank.unsettled() if self.bank is not None else [])

    async def close(self) -> None:
        """Give everything up."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.office is not None:
            await self.office.close()
        if self.bank is not None:
            await self.bank.close()
        await self.wire.close()

    def order_of(self, customer_id: str, transaction: str) -> Order | None:
        """The order that a customer knows by this transaction id."""
        for order in self.orders[len(self._known) :]:
            self._known[self.customer_id(order.payer), order.key] = order
        return self._known.get((customer_id, transaction))

    def first_paid_after(self, instant_ns: int) -> int | None:
        """When the first payment was answered that was asked for after this instant: earlier requests prove nothing."""
        return next((answered for invoked, answered in self._paid if invoked > instant_ns), None)

    async def _pay_on(self, payer: int) -> None:
        await asyncio.sleep(self._random.random() * self._pause_s)
        number = 0
        while not self._is_over:
            number += 1
            wish = self._mix.next(payer, number)
            if isinstance(wish, File):
                await self.pay_by_file(wish)
            else:
                self.orders.append(wish)
                await self.to_the_end(wish)
            await self._ask_back([wish] if isinstance(wish, Order) else wish.orders)
            await asyncio.sleep(self._pause_s * (0.5 + self._random.random()))

    async def pay_by_file(self, file: File) -> None:
        """Have a customer send a file, and hear of each of its lines."""
        self.files.append(file)
        self.orders += file.orders
        await pay_by_file(clients=self, file=file, chance=self._random)

    def send_file(self) -> None:
        """Have somebody send a file now, beside what customers want by themselves."""
        self._bursts += 1
        payer = self._random.randrange(len(self.customers))
        file = self._mix.file(payer, f"x{payer:03d}-{self._bursts:06d}")
        self._tasks.append(asyncio.create_task(self.pay_by_file(file)))

    def pay_listed_abroad(self) -> None:
        """Have somebody pay a listed name at another bank now, which is held until an officer clears it."""
        payers = [payer for payer in range(len(self.customers)) if not cancels_later_ones(payer)]
        order = self.new_order(payer=self._random.choice(payers), creditor=PAID_ABROAD, amount_minor=SMALL_MAX_MINOR)
        order.is_listed = True
        self._tasks.append(asyncio.create_task(self.to_the_end(order)))

    async def _ask_back(self, orders: Sequence[Order]) -> None:
        """Have the office return parts of what was paid within our ledger and is to come back."""
        for order in orders:
            if self.office is not None and order.is_to_return and order.is_paid and order.creditor in self._ours:
                payment = await self.read(order.payer, f"/payments/{order.key}")
                customer_id = self.customers[order.payer].customer_id
                await self.office.give_back(order, customer_id=customer_id, payment_id=payment["payment_id"])

    def new_order(self, *, payer: int, creditor: str, amount_minor: int, account: int = 0) -> Order:
        """An order beside what customers want by themselves; it is read at the end like all."""
        self._bursts += 1
        debtor = self.customers[payer].accounts[account]
        order = Order(payer, f"x{payer:03d}-{self._bursts:06d}", debtor, creditor, amount_minor)
        self.orders.append(order)
        return order

    def pay_anew(self) -> None:
        """Have somebody ask for one more payment now, whatever else they wait for."""
        payer = self._random.randrange(len(self.customers))
        creditor = self.customers[payer - 1].accounts[0]
        order = self.new_order(payer=payer, creditor=creditor, amount_minor=self._random.randint(100, SMALL_MAX_MINOR))
        self._tasks.append(asyncio.create_task(self.to_the_end(order)))

    async def same_request_at_once(self) -> int:
        """One request fifty times at the same moment, half to each gateway; how many were answered."""
        payer = self._random.randrange(len(self.customers))
        creditor = self.customers[payer - 1].accounts[0]
        order = self.new_order(payer=payer, creditor=creditor, amount_minor=self._random.randint(100, SMALL_MAX_MINOR))
        each = [self.send(order, url=self._gateways[number % 2]) for number in range(SAME_REQUESTS)]
        answers = await asyncio.gather(*each)
        await self.to_the_end(order)
        return sum(status is not None for status, _ in answers)

    async def crossing(self) -> int:
        """Every pair of neighbours pays each other at the same moment, several times each way; how many payments."""
        orders = [
            self.new_order(payer=payer, creditor=self.customers[payer ^ 1].accounts[0], amount_minor=100 + number)
            for number in range(CROSSING_EACH_WAY)
            for payer in range(len(self.customers) // 2 * 2)
        ]
        await asyncio.gather(*(self.to_the_end(order) for order in orders))
        return len(orders)

    async def last_cent(self) -> int:
        """Spend the whole of a second account four times at the same moment; how many were paid: never more than one.

        One goes abroad, where its money is held for a while: what is held is not to be spent either.
        """
        payer = who_has_a_last_cent(len(self.customers), emptied=self._emptied, number=self._bursts)
        self._emptied.add(payer)
        creditors = (SILENT_ABROAD, *(self.customers[payer - number].accounts[0] for number in (1, 2, 3)))
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
        return sum(order.is_paid for order in orders)

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
                and (order.execute_at is not None or order.is_listed)
                and cancels_later_ones(order.payer)
                and not order.is_cancelled
            ):
                order.is_cancelled = True
                await self._cancel(order)
            await asyncio.sleep(RETRY_S)

    async def _answer_code(self, order: Order) -> None:
        if cancels_codes(order.payer) and not order.is_cancelled:
            order.is_cancelled = True
            await self._cancel(order)
            return
        query = FindDemoCode(transaction_id=order.key, customer_id=self.customers[order.payer].customer_id)
        (found,) = await self._notification.find_demo_codes([query])
        if not isinstance(found, PayflowError):
            order.code = found.code

    async def send(self, order: Order, *, url: str | None = None) -> tuple[int | None, bytes]:
        """Ask for the payment once, at one gateway if told so; None: no answer came."""
        operation = "pay" if order.code is None else "pay_with_code"
        answer = await self._call(operation, order, f"{url or self.url_of(order.payer)}/payment/confirm")
        return answer.status, answer.body

    async def _cancel(self, order: Order) -> None:
        await self._call("cancel", order, f"{self.url_of(order.payer)}/payments/{order.key}/cancel")

    def body_of(self, order: Order) -> dict[str, Any]:
        """The request's body."""
        return order.body(self.customer_id(order.payer))

    def customer_id(self, payer: int) -> str:
        """Who that is."""
        return self.customers[payer].customer_id

    def url_of(self, payer: int) -> str:
        """The address that a customer uses."""
        return self._urls[payer % len(self._urls)]

    async def ask(
        self, payer: int, method: str, url: str, *, body: Any = None, data: Any = None, **more: str
    ) -> Answer:
        """Send a customer's request once."""
        return await self.wire.ask(method, url, token=self.tokens[payer], body=body, data=data, **more)

    async def _call(self, operation: str, order: Order, url: str) -> Answer:
        body = None if operation == "cancel" else self.body_of(order)
        key = order.idempotency_key or order.key
        answer = await self.ask(order.payer, "POST", url, body=body, Idempotency_Key=key)
        is_paid = answer.status == 200 and b'"SUCCESS"' in answer.body
        if operation != "cancel" and (answer.status == 202 or is_paid):
            self.acknowledged += order.final is None and answer.status == 200
            self.last_success_ns = now_ns()
            self._paid.append((answer.invoked_ns, self.last_success_ns))
        self._note(operation, order, answer)
        return answer

    def note_silence(self, order: Order) -> None:
        """A request for this payment was sent by somebody who did not wait for an answer."""
        self._note("pay", order, Answer(None, b"", now_ns(), None))

    def _note(self, operation: str, order: Order, answer: Answer) -> None:
        self.history.write(
            Call(
                operation=operation,
                customer=self.customer_id(order.payer),
                key=order.key,
                transaction=order.key,
                debtor=order.debtor,
                creditor=order.creditor,
                amount_minor=order.amount_minor,
                invoked_ns=answer.invoked_ns,
                answered_ns=answer.answered_ns,
                status=answer.status,
                body=answer.text,
                is_listed=order.is_listed,
                execute_at=order.execute_at,
                due_ns=order.due_ns,
            )
        )

    async def read(self, payer: int, path: str) -> Any:
        """A GET that must be answered: repeated until it is; None for 404."""
        return await self.wire.read(f"{self.url}{path}", token=self.tokens[payer])
