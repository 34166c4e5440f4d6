"""The gateway's other routes as clients see them, over neighbours in memory."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.account import EntryLine
from payflow.contracts.confirm import PaymentState
from payflow.contracts.gateway import Role
from payflow.platform.http.admission import STREAMS_MAX
from payflow.platform.http.draining import Draining
from payflow.services.gateway.routes.streams import STREAMS_PER_USER
from tests.builders import NOON, new_id
from tests.fakes_gateway import Client, GatewayWorld, a_payment_body

assert STREAMS_MAX > STREAMS_PER_USER


@pytest.fixture
def world(tmp_path: Path) -> GatewayWorld:
    return GatewayWorld(tmp_path / "keys")


async def pay(world: GatewayWorld, token: str, number: int, **changes: Any) -> None:
    body = a_payment_body(transaction_id=f"txn_{number:03}", **changes)
    reply = await world.client.send("POST", "/payment/confirm", body=body, token=token, key=f"key-{number}")
    assert reply.status in (200, 202), reply.body


async def test_a_payment_is_told_with_its_amount_as_text(world: GatewayWorld) -> None:
    token = await world.token()
    await pay(world, token, 1)

    reply = await world.client.send("GET", "/payments/txn_001", token=token)

    assert reply.status == 200
    assert (reply.json["amount"], reply.json["currency"], reply.json["status"]) == ("1000.00", "USD", "SUCCESS")
    assert (reply.json["state"], reply.json["from_account"]) == ("COMPLETED", "ACC001")


async def test_a_refused_payment_is_told_with_its_reason_in_words(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.REJECTED
    world.confirm.changes = {"error_code": "CREDITOR_UNREACHABLE", "error_detail": ""}
    body = a_payment_body()
    await world.client.send("POST", "/payment/confirm", body=body, token=token, key="key-1")

    reply = await world.client.send("GET", "/payments/txn_001", token=token)

    assert (reply.json["status"], reply.json["error"]) == ("REJECTED", "CREDITOR_UNREACHABLE")
    assert reply.json["detail"].startswith("to_account is no account here")


async def test_another_customers_payment_is_not_there(world: GatewayWorld) -> None:
    await pay(world, await world.token(), 1)
    second = await world.token("second", customer_id="cust_002")

    for path in ("/payments/txn_001", "/payments/txn_001/events", "/payments/txn_999"):
        reply = await world.client.send("GET", path, token=second)
        assert (reply.status, reply.json["error"]) == (404, "PAYMENT_NOT_FOUND")


async def test_payments_are_listed_newest_first_page_by_page(world: GatewayWorld) -> None:
    token = await world.token()
    for number in range(1, 6):
        await pay(world, token, number)

    told, cursor = [], ""
    while True:
        page = (await world.client.send("GET", f"/payments?limit=2{cursor}", token=token)).json
        told.append([payment["transaction_id"] for payment in page["data"]])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"

    assert told == [["txn_005", "txn_004"], ["txn_003", "txn_002"], ["txn_001"]]


async def test_payments_are_listed_by_state(world: GatewayWorld) -> None:
    token = await world.token()
    await pay(world, token, 1)
    world.confirm.outcome = PaymentState.UNDER_REVIEW
    await pay(world, token, 2)

    page = (await world.client.send("GET", "/payments?state=UNDER_REVIEW", token=token)).json

    assert [payment["transaction_id"] for payment in page["data"]] == ["txn_002"]
    assert page["data"][0]["status"] == "PENDING"


@pytest.mark.parametrize(
    "path",
    [
        "/payments?limit=0",
        "/payments?limit=201",
        "/payments?limit=x",
        "/payments?cursor=nonsense",
        "/payments?state=NOWHERE",
        "/accounts/ACC001/entries?cursor=-1",
        "/accounts/ACC001/entries?cursor=x",
        "/accounts/ACC001/entries?cursor=1",
        "/accounts/ACC001/entries?cursor=1.9999999999999999999",
        "/accounts/ACC001/entries?from=yesterday",
        "/accounts/ACC001/entries?from=2026-02-30",
        "/accounts/ACC001/entries?from=2026-02-01&to=2026-02-01",
        "/accounts/ACC001/entries?to=2026-02-01T00:00:00",
        "/accounts/ACC001?at=1772452800",
        "/accounts/ACC001?at=",
        "/accounts/ACC001?at=2026-03-02T12:00",
        "/accounts/ACC001/entries?limit=201",
    ],
)
async def test_a_question_that_cannot_be_read_is_a_400(world: GatewayWorld, path: str) -> None:
    token = await world.token()
    world.account.open("ACC001", "cust_001")

    reply = await world.client.send("GET", path, token=token)

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")
    assert path.split("?")[1].split("=")[0] in reply.json["detail"]


async def test_a_parameter_that_cannot_be_read_is_told_by_its_public_name_with_what_to_send(
    world: GatewayWorld,
) -> None:
    token = await world.token()

    limit = await world.client.send("GET", "/payments?limit=x", token=token)
    state = await world.client.send("GET", "/payments?state=NOWHERE", token=token)

    assert limit.json["detail"] == "limit: send a whole number from 1 to 200."
    assert state.json["detail"].startswith("state: send one of RECEIVED, UNDER_REVIEW, ")


@pytest.mark.parametrize(
    ("method", "path", "named"),
    [
        ("GET", "/payments?status=COMPLETED", "status"),
        ("GET", "/payments?limit=2&Limit=3&sort=desc", "Limit, sort"),
        ("GET", "/payments?state", None),
        ("GET", "/payments?=1", None),
        ("GET", "/payments?sta%74us=COMPLETED", "status"),
        ("GET", "/accounts?state=OPEN", "state"),
        ("GET", "/payments/txn_001?customer_id=cust_002", "customer_id"),
        ("GET", "/payments/txn_001/events?after=1", "after"),
        ("POST", "/payments/txn_001/cancel?reason=x", "reason"),
        ("POST", "/payment/confirm?otp=123456", "otp"),
        ("POST", "/auth/login?username=demo", "username"),
        ("POST", "/auth/logout?all=true", "all"),
        ("GET", "/openapi.json?format=yaml", "format"),
        ("GET", "/docs?x=%0A%00", "x"),
        ("HEAD", "/accounts?x=1", "x"),
    ],
)
async def test_a_query_parameter_that_nobody_reads_is_refused_by_its_name(
    world: GatewayWorld, method: str, path: str, named: str | None
) -> None:
    token = await world.token()
    body = a_payment_body() if "confirm" in path else {} if method == "POST" else None

    reply = await world.client.send(method, path, token=token, body=body, key="key-1")

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")
    assert named is None or named in reply.json["detail"]
    assert world.confirm.commands == []


@pytest.mark.parametrize(
    ("method", "path", "detail"),
    [
        ("GET", "/payments?status=x", "The query parameter status is not known here; known are: cursor, limit, state."),
        (
            "GET",
            "/payments?status=x&sort=desc",
            "The query parameters status, sort are not known here; known are: cursor, limit, state.",
        ),
        (
            "GET",
            "/accounts/ACC001/entries?since=x",
            "The query parameter since is not known here; known are: from, to, cursor, limit.",
        ),
        ("GET", "/payments/txn_001/events?after=1", "The query parameter after is not known here; none is taken."),
        ("POST", "/payment/confirm?otp=1&x=2", "The query parameters otp, x are not known here; none is taken."),
    ],
)
async def test_whoever_sends_an_unknown_query_parameter_is_told_the_known_ones(
    world: GatewayWorld, method: str, path: str, detail: str
) -> None:
    body = a_payment_body() if method == "POST" else None

    reply = await world.client.send(method, path, token=await world.token(), body=body, key="key-1")

    assert reply.json["detail"] == detail


async def test_a_waiting_payment_is_cancelled(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.AWAITING_OTP
    await pay(world, token, 1)

    reply = await world.client.send("POST", "/payments/txn_001/cancel", token=token)

    assert (reply.status, reply.json["state"]) == (200, "CANCELLED")


async def test_own_accounts_are_listed_with_their_balances(world: GatewayWorld) -> None:
    token = await world.token()
    world.account.open("ACC001", "cust_001", posted=100_000_000, held=1_500_000)
    world.account.open("JPY001", "cust_001", posted=500, currency="JPY")
    world.account.open("ACC002", "cust_002", posted=850_000)

    reply = await world.client.send("GET", "/accounts", token=token)

    shown = [(row["number"], row["posted"], row["held"], row["available"]) for row in reply.json["data"]]
    assert shown == [("ACC001", "1000000.00", "15000.00", "985000.00"), ("JPY001", "500", "0", "500")]
    assert reply.json["next_cursor"] is None


async def test_another_customers_account_is_not_there(world: GatewayWorld) -> None:
    token = await world.token()
    world.account.open("ACC002", "cust_002")

    for path in ("/accounts/ACC002", "/accounts/ACC002/entries", "/accounts/NONE"):
        reply = await world.client.send("GET", path, token=token)
        assert (reply.status, reply.json["error"]) == (404, "NOT_FOUND")


async def test_statement_lines_are_told_newest_first_page_by_page(world: GatewayWorld) -> None:
    token = await world.token()
    world.account.open("ACC001", "cust_001", posted=300)
    world.account.entries["ACC001"] = [
        EntryLine(
            sequence=number,
            entry_id=new_id(),
            payment_id=None,
            kind="transfer",
            amount_minor=-100,
            balance_minor=1000 - number * 100,
            currency="USD",
            booked_at=NOON,
        )
        for number in (1, 2, 3)
    ]

    first = (await world.client.send("GET", "/accounts/ACC001/entries?limit=2", token=token)).json
    rest = await world.client.send("GET", f"/accounts/ACC001/entries?cursor={first['next_cursor']}", token=token)

    assert [(line["sequence"], line["amount"], line["balance"]) for line in first["data"]] == [
        (3, "-1.00", "7.00"),
        (2, "-1.00", "8.00"),
    ]
    assert [line["sequence"] for line in rest.json["data"]] == [1]
    assert rest.json["next_cursor"] is None


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
async def test_who_is_no_customer_has_no_payments_of_their_own(world: GatewayWorld, role: Role) -> None:
    token = await world.token("officer", role=role)

    for path in ("/payments", "/accounts", "/payments/txn_001", "/payments/txn_001/events"):
        reply = await world.client.send("GET", path, token=token)
        assert (reply.status, reply.json["error"]) == (403, "FORBIDDEN")


async def test_unknown_addresses_and_methods_are_told_in_our_words(world: GatewayWorld) -> None:
    unknown = await world.client.send("GET", "/nowhere")
    method = await world.client.send("DELETE", "/payments/txn_001")

    assert (unknown.status, unknown.json["error"]) == (404, "NOT_FOUND")
    assert (method.status, method.json["error"]) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in method.headers["allow"]
    for reply in (unknown, method):
        assert reply.headers["content-type"] == "application/problem+json"
        assert "ratelimit" in reply.headers


async def test_head_is_get_without_the_body(world: GatewayWorld) -> None:
    token = await world.token()

    reply = await world.client.send("HEAD", "/accounts", token=token)

    assert reply.status == 200


async def test_a_stream_tells_the_history_then_each_step_and_ends_with_the_end_state(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.UNDER_REVIEW
    await pay(world, token, 1)

    stream = asyncio.create_task(world.client.send("GET", "/payments/txn_001/events", token=token))
    await asyncio.sleep(0.1)
    is_open = not stream.done()
    world.confirm.move("txn_001", PaymentState.APPROVED)
    world.confirm.move("txn_001", PaymentState.COMPLETED)
    reply = await asyncio.wait_for(stream, 5)

    assert is_open
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [block.split("\n") for block in reply.body.decode().strip().split("\n\n")]
    assert [lines[0] for lines in events] == ["id: 1", "id: 2", "id: 3", "id: 4"]
    assert [lines[1] for lines in events] == [
        "event: RECEIVED",
        "event: UNDER_REVIEW",
        "event: APPROVED",
        "event: COMPLETED",
    ]


async def test_a_stream_goes_on_after_what_was_heard(world: GatewayWorld) -> None:
    token = await world.token()
    await pay(world, token, 1)

    reply = await world.client.send("GET", "/payments/txn_001/events", token=token, headers=[("Last-Event-ID", "1")])

    assert [line for line in reply.body.decode().split("\n") if line.startswith("id")] == ["id: 2"]


async def test_a_stream_ends_when_its_client_leaves(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.UNDER_REVIEW
    await pay(world, token, 1)
    left = asyncio.Event()
    sent: list[Any] = []
    scope = Client(world.app)._scope(
        "GET", "/payments/txn_001/events", [(b"authorization", f"Bearer {token}".encode())], None
    )

    async def receive() -> Any:
        if not sent:
            return {"type": "http.request", "body": b"", "more_body": False}
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    stream = asyncio.create_task(world.app(scope, receive, send))
    await asyncio.sleep(0.1)
    left.set()
    await asyncio.wait_for(stream, 2)

    assert sent[0]["status"] == 200


async def test_a_stream_ends_whole_when_its_process_drains(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.UNDER_REVIEW
    await pay(world, token, 1)
    draining = Draining()
    sent: list[Any] = []
    scope = Client(world.app)._scope(
        "GET", "/payments/txn_001/events", [(b"authorization", f"Bearer {token}".encode())], None
    )
    draining.tell(scope)

    async def receive() -> Any:
        if not sent:
            return {"type": "http.request", "body": b"", "more_body": False}
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message)

    stream = asyncio.create_task(world.app(scope, receive, send))
    await asyncio.sleep(0.1)
    was_open = not stream.done()
    draining.is_on = True
    await asyncio.wait_for(stream, 3)

    assert was_open
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_a_user_has_a_bounded_number_of_streams(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.UNDER_REVIEW
    await pay(world, token, 1)
    path = "/payments/txn_001/events"
    streams = [asyncio.create_task(world.client.send("GET", path, token=token)) for _ in range(STREAMS_PER_USER)]
    await asyncio.sleep(0.1)

    one_more = await world.client.send("GET", path, token=token)

    assert (one_more.status, one_more.json["error"]) == (429, "RATE_LIMITED")
    world.confirm.move("txn_001", PaymentState.COMPLETED)
    await asyncio.wait_for(asyncio.gather(*streams), 5)
    assert (await world.client.send("GET", path, token=token)).status == 200
