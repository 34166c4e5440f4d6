"""Money from the other bank: the simulated one is told to pay in, and again until it has our word."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import msgspec

from payflow.kernel.money import format_minor
from payflow_dev.bench.population import CURRENCY
from payflow_dev.chaos.history import History, IncomingCall, now_ns

PAYERS: Final = 3
PAUSE_S: Final = 0.6
RETRY_S: Final = 1.0
# Longer than the other bank waits for our answer.
TIMEOUT_S: Final = 20.0
AMOUNT_MAX_MINOR: Final = 5_000
# Refused, so that nothing may come of it.
NOBODYS: Final = "NOSUCHACCOUNT"
NOBODYS_SHARE: Final = 0.1
TWICE_SHARE: Final = 0.2
# An account at each of the simulated banks.
DEBTORS: Final = ("DE08990100100000001001", "FR7699002000010000000200107")
ENDED: Final = frozenset({"ACCEPTED", "REJECTED"})


@dataclass(slots=True)
class Incoming:
    """One payment into an account of ours; `told` is what the other bank knows of its end."""

    end_to_end_id: str
    debtor: str
    creditor: str
    amount_minor: int
    told: str | None = None


class OtherBank:
    """Pays in all the time, from several accounts at once. `is_over`: begin nothing more."""

    def __init__(self, *, url: str, history: History, seed: int) -> None:
        self.url = url
        self._history = history
        self._random = random.Random(seed)
        self._session: aiohttp.ClientSession | None = None
        self.payments: list[Incoming] = []
        self.is_over = False

    def start(self, accounts: Sequence[str]) -> list[asyncio.Task[None]]:
        """Begin to pay into these accounts; needs a running loop."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        return [asyncio.create_task(self._pay_on(accounts)) for _ in range(PAYERS)]

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def unsettled(self) -> list[str]:
        """The ids of payments whose end the other bank does not know."""
        return [payment.end_to_end_id for payment in self.payments if payment.told is None]

    async def _pay_on(self, accounts: Sequence[str]) -> None:
        while not self.is_over:
            payment = self._next(accounts)
            is_twice = self._random.random() < TWICE_SHARE
            while payment.told is None:
                # The same payment again, at times at the same moment, is still one payment.
                await asyncio.gather(*(self.send(payment) for _ in range(1 + is_twice)))
                if payment.told is None:
                    await asyncio.sleep(RETRY_S)
            await asyncio.sleep(PAUSE_S * (0.5 + self._random.random()))

    def _next(self, accounts: Sequence[str]) -> Incoming:
        payment = Incoming(
            end_to_end_id=f"CHAOS{len(self.payments):06d}",
            debtor=self._random.choice(DEBTORS),
            creditor=NOBODYS if self._random.random() < NOBODYS_SHARE else self._random.choice(accounts),
            amount_minor=self._random.randint(1, AMOUNT_MAX_MINOR),
        )
        self.payments.append(payment)
        return payment

    async def send(self, payment: Incoming) -> None:
        """Have the other bank send it once, and note what it says of it."""
        invoked_ns = now_ns()
        told = await self._ask(payment)
        payment.told = told or payment.told
        self._history.write(
            IncomingCall(
                end_to_end_id=payment.end_to_end_id,
                creditor=payment.creditor,
                amount_minor=payment.amount_minor,
                invoked_ns=invoked_ns,
                answered_ns=None if told is None else now_ns(),
                told=told,
            )
        )

    async def _ask(self, payment: Incoming) -> str | None:
        assert self._session is not None
        body = {
            "from_account": payment.debtor,
            "to_account": payment.creditor,
            "amount": format_minor(payment.amount_minor, CURRENCY),
            "currency": CURRENCY,
            "end_to_end_id": payment.end_to_end_id,
        }
        try:
            async with self._session.post(f"{self.url}/pay", data=msgspec.json.encode(body)) as answer:
                found: dict[str, Any] = await answer.json() if answer.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
        told = found.get("status")
        return told if told in ENDED else None
