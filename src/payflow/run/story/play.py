"""The story itself. Each step says what it does, does it, shows the answer, and stops at one that is not right."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import aiohttp

from payflow.contracts.gateway import DEMO_PASSWORD
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.registry import OTHER_BANK
from payflow.run.story.client import Reply, StoryClient
from payflow.run.story.screen import Balances, Screen

ABROAD: Final = "DE08990100100000001001"
_SHOWN: Final = ("status", "transaction_id", "reference", "amount", "risk_level", "reason")
_PATIENCE_S: Final = 20.0
# What one run takes from the accounts; earlier runs may have spent it.
_SPENT: Final = {"ACC001": Decimal("16000.00"), "ACC001-EUR": Decimal("250.00")}
_CHANGES: Final = {
    "ACC001": Decimal("-16000.00"),
    "ACC002": Decimal("16000.00"),
    "ACC001-EUR": Decimal("-250.00"),
    "ACC002-EUR": Decimal("250.00"),
}

ReadCode = Callable[[str, str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Customer:
    """A demo customer, signed in."""

    customer_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A payment as it was asked for, to be asked for again."""

    body: dict[str, Any]
    key: str
    reply: Reply


async def play(*, instance: Instance, read_code: ReadCode, screen: Screen) -> None:
    """Play against a running instance. `read_code(transaction_id, customer_id)` reads the demo channel.

    Raises StartError in the first step that is not answered as it should be.
    """
    async with aiohttp.ClientSession() as session:
        story = Story(
            api=StoryClient(session, instance.public_url),
            other_bank=StoryClient(session, instance.service_url(OTHER_BANK)),
            instance=instance,
            read_code=read_code,
            screen=screen,
        )
        await story.play()


class Story:
    """One run, with ids of its own, so that it can be played again at any time."""

    def __init__(
        self,
        *,
        api: StoryClient,
        other_bank: StoryClient,
        instance: Instance,
        read_code: ReadCode,
        screen: Screen,
    ) -> None:
        self._api = api
        self._other_bank = other_bank
        self._instance = instance
        self._read_code = read_code
        self._screen = screen
        self._run = secrets.token_hex(4)
        self._numbers = 0

    async def play(self) -> None:
        """Every step in order."""
        began_at = time.monotonic()
        self._screen.title("Payflow: a customer, another bank, and an auditor", self._api.url)
        self._screen.step("Two customers sign in: `demo` and `second`")
        demo = await self._sign_in("demo", "cust_001")
        second = await self._sign_in("second", "cust_002")
        before = await self._balances_before(demo, second)
        await self._small_payment(demo)
        large = await self._large_payment(demo)
        await self._replay(demo, large)
        await self._refused(demo)
        await self._inter_bank(demo)
        await self._incoming()
        await self._balances_after(demo, second, before)
        await self._timeline(demo, large)
        self._screen.end(f"All as it should be, in {time.monotonic() - began_at:.1f} s.")

    async def _sign_in(self, username: str, customer_id: str) -> Customer:
        reply = await self._login(username, DEMO_PASSWORD)
        if reply.status == 401:
            raise StartError(f"The demo user {username} cannot sign in: this instance has no demo data.")
        document = reply.expect(200, token_type="Bearer")  # noqa: S106 - a scheme's name
        self._screen.answer(reply, ("token_type", "expires_in"))
        return Customer(customer_id, document["access_token"])

    async def _login(self, username: str, password: str) -> Reply:
        return await self._api.send("POST", "/auth/login", body={"username": username, "password": password})

    async def _balances_before(self, demo: Customer, second: Customer) -> Balances:
        self._screen.step("Their accounts")
        before = await self._balances(demo, second)
        short = [number for number, spent in _SPENT.items() if before[number][1] < spent]
        for number in short:
            await self._refill(second, number=number, before=before)
        if short:
            before = await self._balances(demo, second)
        self._screen.balances(before)
        return before

    async def _balances(self, *customers: Customer) -> Balances:
        """What is available on the accounts that the story moves money on."""
        found: Balances = {}
        for customer in customers:
            reply = await self._api.send("GET", "/accounts", token=customer.token)
            for account in reply.expect(200)["data"]:
                found[account["number"]] = (account["currency"], Decimal(account["available"]))
        missing = sorted(_CHANGES.keys() - found.keys())
        if missing:
            raise StartError(f"The demo accounts {', '.join(missing)} are not there.")
        return {number: found[number] for number in _CHANGES}

    async def _refill(self, second: Customer, *, number: str, before: Balances) -> None:
        """Earlier runs have moved everything to the other customer: have half of it sent back."""
        source = number.replace("ACC001", "ACC002")
        amount = (before[source][1] / 2).quantize(Decimal("0.01"))
        if before[number][1] + amount < _SPENT[number]:
            raise StartError(
                f"{number} and {source} have too little money left for the story: `payflow reset` begins anew."
            )
        self._screen.note(f"Earlier runs have spent {number}; `second` sends {amount:,} back first.")
        asked = await self._pay(second, amount=amount, from_account=source, to_account=number)
        if asked.reply.json.get("status") == "OTP_REQUIRED":
            asked = await self._with_code(second, asked)
        asked.reply.expect(200, status="SUCCESS")

    async def _small_payment(self, demo: Customer) -> None:
        self._screen.step("1,000.00 USD from ACC001 to ACC002: no high risk, so it is paid at once")
        asked = await self._pay(demo, amount=Decimal("1000.00"), from_account="ACC001", to_account="ACC002")
        self._screen.answer(asked.reply, _SHOWN)
        asked.reply.expect(200, status="SUCCESS")

    async def _large_payment(self, demo: Customer) -> Asked:
        self._screen.step("15,000.00 USD: a high risk, so a one-time password is asked for")
        asked = await self._pay(demo, amount=Decimal("15000.00"), from_account="ACC001", to_account="ACC002")
        self._screen.answer(asked.reply, _SHOWN)
        asked.reply.expect(200, status="OTP_REQUIRED")
        paid = await self._with_code(demo, asked)
        self._screen.note("The code came by the demo channel; it is sent with the same Idempotency-Key:")
        self._screen.answer(paid.reply, _SHOWN)
        paid.reply.expect(200, status="SUCCESS")
        return paid

    async def _with_code(self, customer: Customer, asked: Asked) -> Asked:
        code = await self._read_code(asked.body["transaction_id"], customer.customer_id)
        return await self._send(customer, {**asked.body, "otp": code}, asked.key)

    async def _replay(self, demo: Customer, paid: Asked) -> None:
        self._screen.step("The same request once more, as a client does that lost the answer")
        again = await self._send(demo, paid.body, paid.key)
        self._screen.answer(again.reply, _SHOWN)
        if again.reply.body != paid.reply.body:
            raise StartError("The repeat was not answered as the first request was.")
        self._screen.good("the same answer, byte for byte, and no money moved twice")

    async def _refused(self, demo: Customer) -> None:
        self._screen.step("A payment to an account that nobody has")
        nobody = f"NOBODY-{self._run}"
        asked = await self._pay(demo, amount=Decimal("10.00"), from_account="ACC001", to_account=nobody)
        self._screen.answer(asked.reply, ("error", "title"))
        problem = asked.reply.expect(422, error="CREDITOR_UNREACHABLE")
        self._screen.note(str(problem["detail"]))
        self._screen.note(f"Nothing was moved or held. trace_id={problem['trace_id']} finds it in every log.")

    async def _inter_bank(self, demo: Customer) -> None:
        self._screen.step(f"250.00 EUR from ACC001-EUR to {ABROAD} at another bank (pacs.008)")
        creditor = {"name": "Erika Musterfrau", "country": "DE"}
        asked = await self._pay(
            demo, amount=Decimal("250.00"), from_account="ACC001-EUR", to_account=ABROAD, creditor=creditor
        )
        self._screen.answer(asked.reply, _SHOWN)
        if asked.reply.status == 202:
            self._screen.note("The other bank has not answered yet; the money is held until it does.")
            await self._until_paid(demo, asked)
        else:
            asked.reply.expect(200, status="SUCCESS")

    async def _until_paid(self, customer: Customer, asked: Asked) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        path = f"/payments/{asked.body['transaction_id']}"
        while time.monotonic() < deadline:
            await asyncio.sleep(2)
            reply = await self._api.send("GET", path, token=customer.token)
            if reply.expect(200)["status"] != "PENDING":
                self._screen.answer(reply, _SHOWN)
                reply.expect(200, status="SUCCESS")
                return
        raise StartError(f"The other bank gave no answer within {_PATIENCE_S:.0f} s; the money stays held.")

    async def _incoming(self) -> None:
        self._screen.step("Erika pays 250.00 EUR back, to ACC002-EUR: money comes in from the other bank")
        body = {
            "to_account": "ACC002-EUR",
            "amount": "250.00",
            "currency": "EUR",
            "from_account": ABROAD,
            "end_to_end_id": f"DEMO-{self._run}",
        }
        reply = await self._other_bank.send("POST", "/pay", body=body)
        self._screen.answer(reply, ("status", "end_to_end_id", "iso_status"))
        reply.expect(200, status="ACCEPTED")

    async def _balances_after(self, demo: Customer, second: Customer, before: Balances) -> None:
        self._screen.step("Their accounts now")
        after = await self._balances(demo, second)
        self._screen.balances(before, after)
        wrong = [number for number, change in _CHANGES.items() if after[number][1] - before[number][1] != change]
        if wrong:
            raise StartError(
                f"{', '.join(wrong)}: the change is not what these payments make. Did somebody else pay meanwhile?"
            )
        self._screen.good("every cent is where it should be")

    async def _timeline(self, demo: Customer, paid: Asked) -> None:
        transaction_id = paid.body["transaction_id"]
        self._screen.step("The 15,000.00 payment's way through the services")
        events = await self._api.send("GET", f"/payments/{transaction_id}/events", token=demo.token)
        if events.status != 200:
            events.expect(200)
        rows = [(step["at"][11:23], step["state"], _WHO.get(step["state"], "")) for step in _steps(events)]
        self._screen.table(("at (UTC)", "state", "what happened"), rows)
        payment = (await self._api.send("GET", f"/payments/{transaction_id}", token=demo.token)).expect(200)
        self._screen.step("The same payment in the audit trail, as the auditor reads it")
        token = await self._auditor()
        audit_rows = await self._audit_rows(token, payment["payment_id"])
        columns = ("row", "event", "states passed", "hash of row and predecessor")
        shown = [
            (row["sequence"], row["type"], " > ".join(row["data"]["path"]), row["hash"][:16]) for row in audit_rows
        ]
        self._screen.table(columns, shown)

    async def _auditor(self) -> str:
        try:
            lines = self._instance.operators_file.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise StartError(f"{self._instance.operators_file} cannot be read: {error.strerror}.") from None
        passwords = dict(line.split(" ", 1) for line in lines if " " in line)
        reply = await self._login("auditor", passwords.get("auditor", ""))
        return str(reply.expect(200)["access_token"])

    async def _audit_rows(self, token: str, payment_id: str) -> list[dict[str, Any]]:
        """The rows about a payment, oldest first; they follow the payment by event, so the last may take a moment."""
        path, deadline = f"/audit?subject={payment_id}", time.monotonic() + _PATIENCE_S
        while True:
            rows = (await self._api.send("GET", path, token=token)).expect(200)["data"]
            if any(row["type"] == "payment.completed" for row in rows):
                return list(reversed(rows))
            if time.monotonic() > deadline:
                raise StartError("The audit trail does not know the payment's end.")
            await asyncio.sleep(1)

    async def _pay(self, customer: Customer, *, amount: Decimal, **fields: Any) -> Asked:
        self._numbers += 1
        id = f"demo-{self._run}-{self._numbers}"
        body = {"transaction_id": id, "customer_id": customer.customer_id, "amount": str(amount), **fields}
        return await self._send(customer, body, f"{id}-key")

    async def _send(self, customer: Customer, body: dict[str, Any], key: str) -> Asked:
        reply = await self._api.send("POST", "/payment/confirm", token=customer.token, key=key, body=body)
        return Asked(body, key, reply)


_WHO: Final = {
    "RECEIVED": "gateway checked token, limits and body; confirm stored payment and key; account knew both sides",
    "AWAITING_OTP": "risk asked ofac and kyc and counted points; otp made a code, notification sent it",
    "APPROVED": "otp verified the code, which is good for this amount and payee only",
    "COMPLETED": "account booked it in one journal entry; audit and notification hear of it by event",
}


def _steps(reply: Reply) -> list[dict[str, Any]]:
    """The steps in a stream of server-sent events."""
    lines = reply.body.decode("utf-8").splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
