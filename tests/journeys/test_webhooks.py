"""Webhooks: registered by operators, sent to a real receiver, verified, retried, asked for again, rotated, deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from standardwebhooks import WebhookVerificationError

from tests.support.api import Answer, Client, Factory, eventually
from tests.support.receiver import Received, Receiver, receiving

Operators = dict[str, Client]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


class Hook:
    """A registered webhook of a test's own."""

    def __init__(self, operator: Client, registered: dict[str, Any]) -> None:
        self._operator = operator
        self.secret: str = registered["secret"]
        self.path = f"/webhooks/{registered['webhook_id']}"

    async def deliveries(self) -> list[dict[str, Any]]:
        answer = await self._operator.get(f"{self.path}/deliveries")
        assert answer.status == 200, answer
        return list(answer.json["data"])

    async def post(self, what: str) -> Answer:
        return await self._operator.post(f"{self.path}/{what}")

    async def send(self, method: str, body: Any = None) -> Answer:
        return await self._operator.api.send(method, self.path, token=self._operator.token, json_body=body)


async def register(operators: Operators, receiver: Receiver, **fields: Any) -> Hook:
    body = {"url": receiver.url(), "event_types": ["payment.completed"], **fields}
    answer = await operators["operator"].post("/webhooks", body)
    assert answer.status == 201, answer
    return Hook(operators["operator"], answer.json)


async def the_next(receiver: Receiver, number: int, *, seconds: float = 10.0) -> Received:
    """The receiver's request of this number, from 1."""

    async def look() -> bool:
        return len(receiver.received) >= number

    await eventually(look, seconds=seconds)
    return receiver.received[number - 1]


async def test_a_payment_is_told_to_a_webhook_through_all_its_life(
    make: Factory, operators: Operators, receiver: Receiver
) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    hook = await register(operators, receiver, customer_id=debtor.customer_id)

    # Sent, signed, and of this customer only.
    await creditor.pay(debtor.account, "1.00")
    paid = await debtor.pay(creditor.account, "12.30")
    payment = await debtor.payment(paid.json["transaction_id"])
    first = await the_next(receiver, 1)
    told = first.verify(hook.secret)
    assert told["type"] == "payment.completed"
    assert (told["data"]["payment_id"], told["data"]["amount"]) == (payment["payment_id"], "12.30")
    assert (told["data"]["state"], told["data"]["customer_id"]) == ("COMPLETED", debtor.customer_id)
    assert debtor.account not in first.body.decode()

    # Rotated: both secrets verify.
    rotated = await hook.post("rotate-secret")
    assert rotated.status == 200, rotated
    assert (await hook.post("test")).status == 202
    test = await the_next(receiver, 2)
    assert test.verify(hook.secret)["type"] == test.verify(rotated.json["secret"])["type"] == "webhook.test"
    with pytest.raises(WebhookVerificationError):
        first.verify(rotated.json["secret"])

    # The receiver goes away and comes back: told again under the same id.
    await receiver.stop()
    await debtor.pay(creditor.account, "4.56")

    async def has_failed() -> dict[str, Any] | None:
        (delivery,) = [one for one in await hook.deliveries() if one["state"] != "DELIVERED"] or [None]
        return delivery if delivery is not None and delivery["error"] == "CANNOT_CONNECT" else None

    failed = await eventually(has_failed)
    assert (failed["state"], failed["attempts"], failed["status_code"]) == ("PENDING", 1, None)
    await receiver.start()
    retried = await the_next(receiver, 3)
    assert retried.id == failed["event_id"]
    assert retried.verify(hook.secret)["data"]["amount"] == "4.56"

    async def is_delivered() -> bool:
        return {one["state"] for one in await hook.deliveries()} == {"DELIVERED"}

    await eventually(is_delivered)

    # Asked for again, and deleted.
    assert (await hook.post(f"deliveries/{failed['delivery_id']}/redeliver")).status == 202
    assert (await the_next(receiver, 4)).body == retried.body
    assert (await hook.send("DELETE")).status == 204
    await debtor.pay(creditor.account, "7.00")
    assert (await hook.send("GET")).error == "WEBHOOK_NOT_FOUND"
    assert len(receiver.received) == 4


async def test_changes_of_webhooks_are_in_the_audit_trail(operators: Operators, receiver: Receiver) -> None:
    hook = await register(operators, receiver, event_types=["payment.held"], customer_id=None)
    await hook.send("PATCH", {"state": "DISABLED"})
    await hook.send("DELETE")
    subject = hook.path.removeprefix("/").replace("webhooks", "webhook")

    async def audited() -> list[str] | None:
        answer = await operators["auditor"].get(f"/audit?subject={subject}")
        assert answer.status == 200, answer
        types = sorted(row["type"] for row in answer.json["data"])
        return types if len(types) == 3 else None

    assert await eventually(audited) == [
        "security.webhook_changed",
        "security.webhook_deleted",
        "security.webhook_registered",
    ]


async def test_only_operators_register_webhooks(make: Factory, operators: Operators, receiver: Receiver) -> None:
    customer = await make.customer()
    body = {"url": receiver.url(), "event_types": ["*"]}

    answers = [
        await client.post("/webhooks", body)
        for client in (customer.client, operators["auditor"], operators["compliance"])
    ]

    assert [(answer.status, answer.error) for answer in answers] == [(403, "FORBIDDEN")] * 3
