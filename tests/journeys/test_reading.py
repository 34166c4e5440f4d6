"""What a customer can look at: own payments, accounts, statement lines and the events of a payment."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import aiohttp
import pytest

from tests.support.api import Customer, Factory, new_key
from tests.support.other_bank import NORDBANK, OtherBank


async def test_a_payment_can_be_looked_at_by_its_customer_only(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    paid = await debtor.pay(creditor.account, "12.30", remittance_information="rent")
    path = f"/payments/{paid.json['transaction_id']}"

    own = await debtor.client.get(path)
    others = [await creditor.client.get(path), await debtor.client.get("/payments/unknown")]

    assert own.status == 200
    assert own.json["status"] == "SUCCESS"
    assert own.json["amount"] == "12.30"
    assert own.json["remittance_information"] == "rent"
    assert own.json["reference"] == paid.json["reference"]
    assert [(answer.status, answer.error) for answer in others] == [(404, "PAYMENT_NOT_FOUND")] * 2
    assert (await creditor.client.get(f"{path}/events")).status == 404
    assert (await creditor.client.post(f"{path}/cancel")).status == 404


async def test_payments_are_listed_newest_first_page_by_page(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    made = [(await debtor.pay(creditor.account, "1.00")).json["transaction_id"] for _ in range(5)]

    listed: list[str] = []
    path, pages = "/payments?limit=2", 0
    while path:
        page = (await debtor.client.get(path)).json
        listed += [payment["transaction_id"] for payment in page["data"]]
        pages += 1
        path = f"/payments?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""

    assert listed == made[::-1]
    assert pages == 3
    assert (await creditor.client.get("/payments")).json == {"data": [], "next_cursor": None}


async def test_a_list_can_be_narrowed_to_one_state(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    await debtor.pay(creditor.account, "1.00")
    refused = await debtor.client.confirm(body := debtor.body(creditor.account, "9999.00"), key=new_key())

    page = await debtor.client.get("/payments?state=REJECTED")

    assert refused.status == 422
    assert [payment["transaction_id"] for payment in page.json["data"]] == [body["transaction_id"]]
    assert page.json["data"][0]["error"] == "INSUFFICIENT_FUNDS"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=-1", "cursor=what", "cursor=%00", "state=NONSENSE"]
)
async def test_a_page_that_cannot_be_is_a_400(make: Factory, query: str) -> None:
    customer = await make.customer()

    answer = await customer.client.get(f"/payments?{query}")

    assert (answer.status, answer.error) == (400, "MALFORMED_REQUEST")


async def test_another_customer_s_cursor_shows_nothing_of_theirs(make: Factory) -> None:
    one, two = await make.customer(), await make.customer()
    for _ in range(2):
        await one.pay(two.account, "1.00")
    cursor = (await one.client.get("/payments?limit=1")).json["next_cursor"]

    page = await two.client.get(f"/payments?cursor={cursor}")

    assert page.json["data"] == []


async def test_accounts_are_the_customer_s_own(make: Factory) -> None:
    customer = await make.customer(EUR="5.00", JPY="700", USD="1.00")
    other = await make.customer()

    listed = (await customer.client.get("/accounts")).json["data"]
    foreign = await customer.client.get(f"/accounts/{other.account}")
    unknown = await customer.client.get("/accounts/NOBODY")
    lines = await customer.client.get(f"/accounts/{other.account}/entries")

    assert {account["currency"]: account["available"] for account in listed} == {
        "EUR": "5.00",
        "JPY": "700",
        "USD": "1.00",
    }
    assert all(account["status"] == "OPEN" for account in listed)
    assert [(answer.status, answer.error) for answer in (foreign, unknown, lines)] == [(404, "NOT_FOUND")] * 3


async def test_the_statement_shows_every_posting_with_the_balance_after_it(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    for amount in ("10.00", "20.00", "30.00"):
        await debtor.pay(creditor.account, amount)

    first = (await debtor.client.get(f"/accounts/{debtor.account}/entries?limit=2")).json
    second = (await debtor.client.get(f"/accounts/{debtor.account}/entries?limit=2&cursor={first['next_cursor']}")).json

    lines = first["data"] + second["data"]
    assert [(line["amount"], line["balance"]) for line in lines] == [
        ("-30.00", "940.00"),
        ("-20.00", "970.00"),
        ("-10.00", "990.00"),
        ("1000.00", "1000.00"),
    ]
    assert second["next_cursor"] is None


async def test_a_payment_that_waits_for_its_password_can_be_cancelled(make: Factory) -> None:
    debtor, creditor = await make.customer(USD="50000.00"), await make.customer()
    body, key = debtor.body(creditor.account, "15000.00"), new_key()
    await debtor.client.confirm(body, key=key)
    code = await debtor.otp(body["transaction_id"])
    path = f"/payments/{body['transaction_id']}/cancel"

    cancelled, again = await debtor.client.post(path), await debtor.client.post(path)
    late = await debtor.client.confirm(body | {"otp": code}, key=key)

    assert (cancelled.status, cancelled.json["status"]) == (200, "CANCELLED")
    assert (again.status, again.json["status"]) == (200, "CANCELLED")
    assert (late.status, late.error) == (422, "PAYMENT_CANCELLED")
    assert await debtor.balances() == ("50000.00", "0.00", "50000.00")


async def test_a_payment_that_has_ended_cannot_be_cancelled(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    paid = await debtor.pay(creditor.account)

    cancelled = await debtor.client.post(f"/payments/{paid.json['transaction_id']}/cancel")

    assert (cancelled.status, cancelled.error) == (409, "NOT_CANCELLABLE")


async def events(
    session: aiohttp.ClientSession, customer: Customer, transaction_id: str, **headers: str
) -> list[dict[str, Any]]:
    """All events of a payment until the stream ends by itself."""
    url = f"{customer.client.api.url}/payments/{transaction_id}/events"
    sent = {"Authorization": f"Bearer {customer.client.token}", **headers}
    async with asyncio.timeout(15), session.get(url, headers=sent) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        text = (await response.read()).decode()
    blocks = [block for block in text.split("\n\n") if block.strip() and not block.startswith(":")]
    return [json.loads(block.split("data: ", 1)[1]) for block in blocks]


async def test_the_events_of_an_ended_payment_are_its_whole_history(
    make: Factory, session: aiohttp.ClientSession
) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    paid = await debtor.pay(creditor.account)

    told = await events(session, debtor, paid.json["transaction_id"])

    assert [event["state"] for event in told] == ["RECEIVED", "APPROVED", "COMPLETED"]
    assert [event["version"] for event in told] == [1, 2, 3]


async def test_the_events_of_a_payment_under_way_go_on_until_it_ends(
    make: Factory, session: aiohttp.ClientSession, other_bank: OtherBank
) -> None:
    debtor = await make.customer(EUR="100.00")
    body = debtor.body(NORDBANK, "10.00")

    async with other_bank.behaving("silent_after", answers_enquiries=False):
        await debtor.client.confirm(body, key=new_key())
        watching = asyncio.create_task(events(session, debtor, body["transaction_id"]))
        await asyncio.sleep(0.3)
        is_open = not watching.done()
    told = await watching

    assert is_open
    assert [event["state"] for event in told] == ["RECEIVED", "APPROVED", "HELD", "SUBMITTED", "COMPLETED"]


async def test_events_heard_before_are_left_out(make: Factory, session: aiohttp.ClientSession) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    paid = await debtor.pay(creditor.account)

    told = await events(session, debtor, paid.json["transaction_id"], **{"Last-Event-ID": "2"})

    assert [event["version"] for event in told] == [3]


@pytest.mark.parametrize("path", ["/payments", "/accounts", "/payments/x", "/payments/x/events", "/accounts/ACC001"])
async def test_operators_have_no_payments_of_their_own_and_strangers_see_nothing(make: Factory, path: str) -> None:
    customer = await make.customer()

    stranger = await customer.client.api.send("GET", path)

    assert (stranger.status, stranger.error) == (401, "ACCESS_TOKEN_REQUIRED")


async def test_names_that_need_escaping_are_just_names(make: Factory) -> None:
    customer = await make.customer()

    for name in ("%2e%2e", "x%27%20OR%201=1", "a%0d%0ab", str(uuid.uuid4())):
        answer = await customer.client.get(f"/payments/{name}")
        assert answer.status in (400, 404), answer
