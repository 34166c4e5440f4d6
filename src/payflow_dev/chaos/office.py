"""The bank's own people in a run: they return payments in parts, approve what others ask for, and decide reviews.

Operators ask for returns and a second one decides about those above the limit; compliance officers clear and block what
the sanctions screening found. As customers do, they repeat what they got no answer to, and note every word.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from payflow.contracts.gateway import Role
from payflow.kernel.money import format_minor
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.loading import load_records
from payflow.run.local_rpc import local_services
from payflow.run.records import UserRecord
from payflow_dev.bench.population import CURRENCY
from payflow_dev.bench.records import new_password, sign_in
from payflow_dev.bench.target import LOOPBACK, Target
from payflow_dev.chaos.history import History, OfficeCall
from payflow_dev.chaos.mix import Order
from payflow_dev.chaos.wire import Answer, Wire

RETRY_S: Final = 0.15
LOOK_S: Final = 0.2
REVIEWS_AT_ONCE: Final = 200
# Parts of a payment in hundredths that are asked back at the same moment: never all of them can be given.
PARTS: Final = ((45, 45, 45), (100, 100), (30, 60, 10, 1), (70, 50))
RETURN_ENDS: Final = frozenset({"COMPLETED", "REJECTED", "DECLINED", "EXPIRED"})
# One person returns so much alone; above it a second one is asked (PAYFLOW_RETURN_FOUR_EYES_ABOVE, in whole units).
FOUR_EYES_ABOVE_MINOR: Final = 10_000
_TAKEN_BACK: Final = "AM09"
# A customer's order, by customer and transaction id.
OrderOf: TypeAlias = Callable[[str, str], Order | None]


@dataclass(frozen=True, slots=True)
class Officer:
    """Somebody of the bank's, signed in."""

    username: str
    token: str


@dataclass(frozen=True, slots=True)
class Staff:
    """Two operators and two compliance officers: whoever decides is not who asked."""

    operators: tuple[Officer, Officer]
    compliance: tuple[Officer, Officer]


async def hire(instance: Instance) -> Staff:
    """Make the officers of a running instance and sign them in. Raises StartError."""
    run_id, password = secrets.token_hex(3), new_password()
    names = [f"chaos-{run_id}-{name}" for name in ("olga", "omar", "carla", "cyrus")]
    roles = (Role.OPERATOR, Role.OPERATOR, Role.COMPLIANCE, Role.COMPLIANCE)
    records = [UserRecord(username=name, role=role, password=password) for name, role in zip(names, roles, strict=True)]
    async with local_services(instance) as services:
        report = await load_records(records=records, services=services, loaded_by="chaos")
    if report.failures:
        raise StartError(f"The run's officers cannot be made: {report.failures[0]}")
    target = Target(host=LOOPBACK, port=instance.port, status=None)
    tokens = await sign_in(target=target, usernames=names, password=password, on_each=lambda: None)
    olga, omar, carla, cyrus = (Officer(name, token) for name, token in zip(names, tokens.values, strict=True))
    return Staff(operators=(olga, omar), compliance=(carla, cyrus))


@dataclass(slots=True)
class _Return:
    """A return that an operator asks for, until it has ended."""

    order: Order
    customer_id: str
    payment_id: str
    key: str
    amount_minor: int
    requester: int
    has_ended: bool = False


class Office:
    """What the officers do, through each gateway and the public address in turn."""

    def __init__(
        self,
        *,
        staff: Staff,
        url: str,
        gateways: Sequence[str],
        history: History,
        wire: Wire,
    ) -> None:
        self.staff, self.url = staff, url
        self._urls = (*gateways, url)
        self._history, self._wire = history, wire
        self._returns: list[_Return] = []
        self._asked = 0
        self._cases: dict[str, asyncio.Task[None]] = {}
        self._looks: asyncio.Task[None] | None = None

    def open(self, order_of: OrderOf) -> None:
        """Begin to look for reviews of the customers' orders."""
        self._looks = asyncio.create_task(self._look(order_of))

    async def close(self) -> None:
        """Go home."""
        tasks = [*self._cases.values(), *([self._looks] if self._looks is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def unsettled(self) -> list[str]:
        """The keys of returns without a final answer."""
        return [made.key for made in self._returns if not made.has_ended]

    async def give_back(self, order: Order, *, customer_id: str, payment_id: str) -> None:
        """Ask for parts of a paid order at the same moment, more than there is, and see each to its end."""
        shares = PARTS[len(self._returns) % len(PARTS)]
        parts = [
            _Return(
                order=order,
                customer_id=customer_id,
                payment_id=payment_id,
                key=f"r-{order.key}-{number}",
                amount_minor=max(1, order.amount_minor * share // 100),
                requester=number % 2,
            )
            for number, share in enumerate(shares)
        ]
        self._returns += parts
        await asyncio.gather(*(self._give_back(made) for made in parts))

    async def _give_back(self, made: _Return) -> None:
        body = {
            "reason_code": _TAKEN_BACK,
            "amount": format_minor(made.amount_minor, CURRENCY),
            "note": made.key,
        }
        path = f"/operator/payments/{made.payment_id}/returns"
        while not made.has_ended:
            requester = self.staff.operators[made.requester]
            answer = await self._ask("return", requester, path, body, made, Idempotency_Key=made.key)
            # A refusal ends it, also one before it was stored: it is not asked for again.
            made.has_ended = answer.status == 422
            if answer.status == 201:
                view = answer.json
                made.has_ended = view["state"] in RETURN_ENDS
                if view["state"] == "AWAITING_APPROVAL":
                    await self._decide_return(made, view["return_id"])
            if not made.has_ended:
                await asyncio.sleep(RETRY_S)

    async def _decide_return(self, made: _Return, return_id: str) -> None:
        """The other operator decides, once the first has tried to and was told that it takes two."""
        first, second = (self.staff.operators[place] for place in (made.requester, 1 - made.requester))
        verb = "decline" if made.order.is_to_decline else "approve"
        if made.amount_minor % 4 == 0:
            await self._ask("approve_return", first, f"/returns/{return_id}/approve", None, made)
        answer = None
        while (
            answer is None or answer.status in (None, 503) or (answer.status == 409 and b"IN_PROGRESS" in answer.body)
        ):
            answer = await self._ask(f"{verb}_return", second, f"/returns/{return_id}/{verb}", None, made)
            await asyncio.sleep(RETRY_S)

    async def _look(self, order_of: OrderOf) -> None:
        """Take each open review up once."""
        while True:
            token = self.staff.compliance[0].token
            answer = await self._wire.ask("GET", f"{self.url}/reviews?state=OPEN&limit={REVIEWS_AT_ONCE}", token=token)
            for row in answer.json["data"] if answer.status == 200 else ():
                review_id = row["review_id"]
                if review_id not in self._cases:
                    self._cases[review_id] = asyncio.create_task(self._review(row, order_of))
            await asyncio.sleep(LOOK_S)

    async def _review(self, row: dict[str, Any], order_of: OrderOf) -> None:
        token, review_id = self.staff.compliance[0].token, row["review_id"]
        try:
            found = await self._wire.read(f"{self.url}/reviews/{review_id}", token=token)
        except TimeoutError:
            self._cases.pop(review_id, None)
            return
        order = None
        if found is not None and found["payment"] is not None:
            order = order_of(row["customer_id"], found["payment"]["transaction_id"])
        if order is None:
            # A return of a listed name, or a payment of nobody's: looked at again at the next look.
            self._cases.pop(review_id, None)
            return
        words = [order.is_to_be_cleared, not order.is_to_be_cleared][: 2 if order.has_two_words else 1]
        await asyncio.gather(
            *(
                self._decide_review(officer, review_id, order, row["customer_id"], is_cleared=is_cleared)
                for officer, is_cleared in zip(self.staff.compliance, words, strict=False)
            )
        )

    async def _decide_review(
        self, officer: Officer, review_id: str, order: Order, customer_id: str, *, is_cleared: bool
    ) -> None:
        verb = "clear" if is_cleared else "block"
        body = {"decision": verb, "comment": "looked at the passport"}
        made = _Return(order, customer_id, "", review_id, order.amount_minor, 0)
        answer = None
        while answer is None or answer.status in (None, 429, 500, 503):
            answer = await self._ask(f"{verb}_review", officer, f"/reviews/{review_id}/decision", body, made)
            await asyncio.sleep(RETRY_S)

    async def _ask(self, operation: str, officer: Officer, path: str, body: Any, made: _Return, **more: str) -> Answer:
        """Ask once, at each address in turn."""
        self._asked += 1
        url = self._urls[self._asked % len(self._urls)]
        answer = await self._wire.ask("POST", f"{url}{path}", token=officer.token, body=body, **more)
        self._history.write(
            OfficeCall(
                operation=operation,
                officer=officer.username,
                customer=made.customer_id,
                transaction=made.order.key,
                key=made.key,
                amount_minor=made.amount_minor,
                invoked_ns=answer.invoked_ns,
                answered_ns=answer.answered_ns,
                status=answer.status,
                body=answer.text,
            )
        )
        return answer
