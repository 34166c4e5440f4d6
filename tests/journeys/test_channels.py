"""A whole Payflow whose SMS, e-mail and push are with vendors: codes, messages, the next way, and signed callbacks."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from payflow.contracts.notification import ListMessages, MessageList, MessageView, Notification
from payflow.run.local_rpc import LocalServices, local_services
from payflow_dev.vendors.app import Vendors, running_vendors
from payflow_dev.vendors.desk import Desk, Mood, Taken
from payflow_dev.vendors.fcm import GONE
from tests.support.api import Api, Customer, Factory, eventually, new_key
from tests.support.system import RELAXED, System, free_port_base, running_system

HIGH = "15000.00"
DELIVERED = ("DELIVERED", None)


@dataclass
class Street:
    """Payflow and its vendors."""

    system: System
    vendors: Vendors
    api: Api
    services: LocalServices
    make: Factory

    async def customer(self, phone: str, **balances: str) -> Customer:
        return await self.make.customer(phone=phone, **(balances or {"USD": "100000.00"}))

    async def messages(self, customer: Customer) -> list[MessageView]:
        query = ListMessages(customer_id=customer.customer_id)
        (answer,) = await self.services.client(Notification).list_messages([query])
        assert isinstance(answer, MessageList)
        return answer.messages

    async def states(self, customer: Customer) -> dict[tuple[str, str], tuple[str, str | None]]:
        return {(view.kind, view.channel): (view.state, view.reason) for view in await self.messages(customer)}


@pytest.fixture(scope="module")
async def street(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Street]:
    public_url = f"http://127.0.0.1:{free_port_base() + 20}"
    async with running_vendors(public_url=public_url) as vendors:
        settings = vendors.settings(tmp_path_factory.mktemp("keys"), public_url=public_url)
        # On a thread: the vendors answer on this loop while Payflow starts and stops.
        manager = running_system(**RELAXED, **settings, DELIVERY_CHECK_S="0.1")
        system = await asyncio.to_thread(manager.__enter__)
        try:
            assert system.url == public_url
            async with local_services(system.instance) as services, aiohttp.ClientSession() as session:
                api = Api(session, system.url)
                yield Street(system, vendors, api, services, Factory(api=api, services=services))
            assert system.logged_bugs() == []
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)


async def taken_by(desk: Desk, recipient: str, words: str) -> Taken:
    """What a vendor was handed for somebody."""

    async def look() -> Taken | None:
        found = [taken for taken in desk.taken if taken.recipient == recipient and words in taken.text]
        return found[-1] if found else None

    found: Taken = await eventually(look)
    return found


async def test_a_code_comes_by_sms_and_what_became_of_it_is_called_back(street: Street) -> None:
    debtor, creditor = await street.customer("+31 20 555 0201"), await street.make.customer()
    body, key = debtor.body(creditor.account, HIGH), new_key()
    sms = street.vendors.twilio

    asked = await debtor.client.confirm(body, key=key)
    code_sms = await taken_by(sms.desk, "+31205550201", "one-time password")
    code = re.match(r"[0-9]{6}", code_sms.text)
    assert code is not None
    paid = await debtor.client.confirm(body | {"otp": code[0]}, key=key)
    told = await taken_by(sms.desk, "+31205550201", "was made")

    assert asked.json["status"] == "OTP_REQUIRED"
    assert paid.json["status"] == "SUCCESS"
    assert "15,000.00 USD" in told.text

    async def all_delivered() -> bool:
        return set((await street.states(debtor)).values()) == {DELIVERED}

    await eventually(all_delivered)
    assert {key for key, _ in await street.states(debtor)} == {"otp_code", "payment_completed"}
    assert set(sms.callback_answers) == {204}


async def test_a_forged_and_a_repeated_callback_are_refused_at_the_gateway(street: Street) -> None:
    debtor, creditor = await street.customer("+31 20 555 0202"), await street.make.customer()
    await debtor.pay(creditor.account)
    sms = street.vendors.twilio
    taken = await taken_by(sms.desk, "+31205550202", "was made")
    await sms.callbacks_done()
    url = str(taken.fields["StatusCallback"])
    path = url.removeprefix(street.system.url)
    body, headers = sms.callback(url, taken, "delivered")

    async def post(path: str, body: bytes, headers: dict[str, str]) -> Any:
        answer = await street.api.send("POST", path, body=body, headers=headers)
        return answer.status, answer.error

    assert await post(path, body, headers) == (409, "CALLBACK_REPLAYED")
    assert await post(path, body.replace(b"delivered", b"failed"), headers) == (403, "CALLBACK_NOT_SIGNED")
    assert await post(path, body, {**headers, "X-Twilio-Signature": "AAAA"}) == (403, "CALLBACK_NOT_SIGNED")
    assert await post("/callbacks/sendgrid", b"[]", {}) == (403, "CALLBACK_NOT_SIGNED")
    assert await post("/callbacks/twilio", b"{}", {}) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert await post("/callbacks/nobody", b"{}", {}) == (404, "NOT_FOUND")
    assert (await street.states(debtor))["payment_completed", "sms"] == DELIVERED


async def test_a_device_that_is_gone_is_followed_by_the_customers_next_way(street: Street) -> None:
    debtor, creditor = await street.customer("+31 20 555 0203"), await street.make.customer()
    phone = {"token": f"{GONE}phone-of-{debtor.username}", "platform": "android"}
    registered = await debtor.client.post("/devices", phone)
    preferred = await street.api.send(
        "PUT",
        "/preferences",
        token=debtor.client.token,
        json_body={"language": "de", "channels": ["push", "email"]},
    )

    await debtor.pay(creditor.account)
    mail = await taken_by(street.vendors.sendgrid.desk, f"{debtor.username}@example.org", "wurde ausgeführt")

    async def delivered() -> bool:
        return (await street.states(debtor)).get(("payment_completed", "email")) == DELIVERED

    await eventually(delivered)
    assert (registered.status, preferred.status) == (201, 200)
    assert "100,00 USD" in mail.text
    assert (await street.states(debtor))["payment_completed", "push"] == ("FAILED", "FCM_UNREGISTERED")
    assert (await debtor.client.get("/devices")).json["data"] == []


async def test_a_push_message_comes_to_the_customers_device(street: Street) -> None:
    debtor, creditor = await street.customer("+31 20 555 0204"), await street.make.customer()
    token = f"phone-of-{debtor.username}"
    device = (await debtor.client.post("/devices", {"token": token, "platform": "ios"})).json
    await street.api.send("PUT", "/preferences", token=debtor.client.token, json_body={"channels": ["push"]})

    await debtor.pay(creditor.account)
    await taken_by(street.vendors.fcm.desk, token, "was made")
    removed = await street.api.send("DELETE", f"/devices/{device['device_id']}", token=debtor.client.token)
    again = await street.api.send("DELETE", f"/devices/{device['device_id']}", token=debtor.client.token)

    assert token not in str(device)
    assert (removed.status, again.status, again.error) == (204, 404, "DEVICE_NOT_FOUND")


async def test_a_vendor_that_says_nothing_slows_no_payment_and_the_code_comes_another_way(street: Street) -> None:
    debtor, creditor = await street.customer("+31 20 555 0205"), await street.make.customer()
    sms = street.vendors.twilio
    sms.desk.be(Mood.SILENT)
    try:
        await debtor.client.post("/devices", {"token": f"{GONE}{debtor.username}", "platform": "web"})
        began_at = time.monotonic()
        small = await debtor.pay(creditor.account, "10.00")
        small_s = time.monotonic() - began_at
        began_at = time.monotonic()
        body, key = debtor.body(creditor.account, HIGH), new_key()
        asked = await debtor.client.confirm(body, key=key)
        asked_s = time.monotonic() - began_at
        mail = await taken_by(
            street.vendors.sendgrid.desk, f"{debtor.username}@example.org", "Your one-time password is"
        )
        code = re.search(r"is ([0-9]{6})\.", mail.text)
        assert code is not None
        paid = await debtor.client.confirm(body | {"otp": code[1]}, key=key)
    finally:
        sms.desk.be(Mood.FINE)

    assert (small.status, asked.json["status"], paid.json["status"]) == (200, "OTP_REQUIRED", "SUCCESS")
    assert small_s < 1.0
    assert asked_s < 3.5


async def test_no_log_names_a_code_a_number_an_address_or_a_key(street: Street) -> None:
    logs = [path.read_text(errors="replace") for path in street.system.instance.logs_dir.glob("*.log")]
    codes = {
        found[0]
        for taken in street.vendors.twilio.desk.taken
        if (found := re.match(r"[0-9]{6}", taken.text)) is not None
    }
    secrets = {
        *(taken.recipient for taken in street.vendors.twilio.desk.taken),
        *(taken.recipient for taken in street.vendors.sendgrid.desk.taken),
        *(taken.recipient for taken in street.vendors.fcm.desk.taken),
        street.vendors.twilio.account.auth_token,
        street.vendors.twilio.account.key_secret,
        street.vendors.sendgrid.api_key,
    }

    assert codes
    assert any("notification.deliveries" in log for log in logs)
    for secret in secrets:
        assert not [log for log in logs if secret.removeprefix("+") in log], secret
    for code in codes:
        assert not [log for log in logs if re.search(rf"\b{code}\b", log)], code
