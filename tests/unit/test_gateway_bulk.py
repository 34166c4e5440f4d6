"""`POST /payments/bulk` and what is told of a bulk order, over a gateway with confirm's bulk orders in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import pytest

from payflow.contracts.confirm import PaymentState
from payflow.contracts.gateway import Role
from payflow.services.gateway.routes import bulk_upload
from payflow.services.gateway.routes.bulk_lines import LINE_MAX_BYTES
from tests.fakes_gateway import GatewayWorld, Reply, a_payment_body

PATH = "/payments/bulk"
NDJSON = "application/x-ndjson"
CSV = "text/csv"
HEADER = "transaction_id,amount,from_account,to_account,creditor_name,creditor_country,remittance_information"


@pytest.fixture
def world(tmp_path: Path) -> GatewayWorld:
    return GatewayWorld(tmp_path / "keys")


def payment(number: int, **changes: Any) -> bytes:
    return json.dumps(a_payment_body(transaction_id=f"txn_{number:03}", **changes)).encode()


def file_of(count: int) -> bytes:
    return b"\n".join(payment(number) for number in range(1, count + 1)) + b"\n"


async def upload(
    world: GatewayWorld,
    token: str | None,
    body: bytes,
    *,
    key: str | None = "file-1",
    kind: str = NDJSON,
    line: str | None = None,
    then: Literal["end", "gone", "silence"] = "end",
    **headers: str,
) -> Reply:
    sent = [("Content-Type", kind), *headers.items()]
    if line is not None:
        sent.append(("Upload-Line", line))
    return await world.client.send("POST", PATH, body=body, token=token, key=key, headers=sent, then=then)


async def results(world: GatewayWorld, token: str, bulk_id: str, query: str = "") -> list[dict[str, Any]]:
    await world.bulk.run()
    reply = await world.client.send("GET", f"{PATH}/{bulk_id}/items{query}", token=token)
    assert reply.status == 200, reply.body
    return list(reply.json["data"])


async def test_a_file_is_accepted_and_its_progress_and_results_are_told(world: GatewayWorld) -> None:
    token = await world.token()

    reply = await upload(world, token, file_of(600))
    bulk_id = reply.json["bulk_id"]
    before = await world.client.send("GET", f"{PATH}/{bulk_id}", token=token)
    items = await results(world, token, bulk_id, "?limit=1000")
    after = await world.client.send("GET", f"{PATH}/{bulk_id}", token=token)

    assert reply.status == 202
    assert reply.headers["location"] == f"{PATH}/{bulk_id}"
    assert (reply.json["status"], reply.json["total"], reply.json["next_line"]) == ("PROCESSING", 600, 601)
    assert before.json["counts"] == {"WAITING": 600}
    assert (after.json["status"], after.json["counts"]) == ("COMPLETED", {"SUCCESS": 600})
    assert [item["line"] for item in items] == list(range(1, 601))
    assert items[0]["payment"]["status"] == "SUCCESS"
    assert items[0]["idempotency_key"] == f"bulk:{bulk_id}:1"


async def test_a_line_is_the_request_that_the_single_route_would_send(world: GatewayWorld) -> None:
    token = await world.token()
    fields = {
        "amount": "15000.00",
        "currency": "USD",
        "creditor": {"name": "Ada", "country": "GB"},
        "remittance_information": "rent",
        "execute_at": "2030-01-31",
    }

    reply = await upload(world, token, payment(1, **fields))
    await results(world, token, reply.json["bulk_id"])
    await world.client.send(
        "POST", "/payment/confirm", body=json.loads(payment(1, **fields)), token=token, key="another"
    )

    (in_bulk,), (single,) = world.bulk.commands, world.confirm.commands
    assert in_bulk.fingerprint == single.fingerprint
    assert (in_bulk.amount, in_bulk.creditor, in_bulk.execute_at) == (single.amount, single.creditor, single.execute_at)


BAD = [
    (b"{", "MALFORMED_REQUEST", "JSON"),
    (b"[]", "MALFORMED_REQUEST", "one JSON object"),
    (b'{"transaction_id":"a","transaction_id":"b"}', "MALFORMED_REQUEST", "twice"),
    (b'{"transaction_id":"a"}', "MISSING_REQUIRED_FIELDS", "amount, from_account, to_account"),
    (payment(1, amount=True), "MALFORMED_REQUEST", "amount"),
    (payment(1, otp="123456"), "MALFORMED_REQUEST", "otp"),
    (payment(1, surprise="x"), "MALFORMED_REQUEST", "surprise"),
    (payment(1, customer_id="cust_002"), "FORBIDDEN", "customer_id"),
    (payment(1, execute_at="tomorrow"), "MALFORMED_REQUEST", "execute_at"),
    (b'{"transaction_id":"\xff"}', "MALFORMED_REQUEST", "UTF-8"),
    (b'"' + b"x" * LINE_MAX_BYTES, "MALFORMED_REQUEST", "longer than 64 KB"),
]


@pytest.mark.parametrize(("line", "code", "word"), BAD)
async def test_a_bad_line_is_a_result_of_its_own(world: GatewayWorld, line: bytes, code: str, word: str) -> None:
    token = await world.token()

    reply = await upload(world, token, payment(8) + b"\n\n" + line + b"\r\n" + payment(9))
    first, bad, last = await results(world, token, reply.json["bulk_id"])

    assert reply.status == 202
    assert (first["status"], last["status"]) == ("SUCCESS", "SUCCESS")
    assert [first["line"], bad["line"], last["line"]] == [1, 3, 4]
    assert (bad["status"], bad["error"], bad["payment"]) == ("INVALID", code, None)
    assert word in bad["detail"]


@pytest.mark.parametrize(
    ("line", "transaction_id"),
    [
        (payment(7, amount=True), "txn_007"),
        (payment(7, customer_id="cust_002"), "txn_007"),
        (payment(7, otp="123456"), "txn_007"),
        (b'{"transaction_id":"txn_007"}', "txn_007"),
        # One of two, one that is none, and a line that is no JSON.
        (b'{"transaction_id":"a","transaction_id":"b"}', None),
        (payment(7).replace(b"txn_007", b"no id"), None),
        (b'{"transaction_id":"txn_007"', None),
    ],
)
async def test_an_invalid_line_is_told_with_its_transaction_id_where_that_can_be_read(
    world: GatewayWorld, line: bytes, transaction_id: str | None
) -> None:
    token = await world.token()

    reply = await upload(world, token, line)
    (told,) = await results(world, token, reply.json["bulk_id"])

    assert (told["status"], told["transaction_id"]) == ("INVALID", transaction_id)


async def test_an_invalid_line_of_csv_is_told_with_its_transaction_id(world: GatewayWorld) -> None:
    token = await world.token()
    rows = "txn_001,1.00,ACC001,,,,\ntxn_002,1.00\n"

    reply = await upload(world, token, f"{HEADER}\n{rows}".encode(), kind=CSV)
    told = await results(world, token, reply.json["bulk_id"])

    # The cells of the second one cannot be told apart.
    assert [(line["status"], line["transaction_id"]) for line in told] == [("INVALID", "txn_001"), ("INVALID", None)]


async def test_results_are_paged_by_a_cursor_that_is_a_text_like_those_of_other_lists(world: GatewayWorld) -> None:
    token = await world.token()
    reply = await upload(world, token, file_of(3))
    bulk_id = reply.json["bulk_id"]
    await world.bulk.run()

    first = await world.client.send("GET", f"{PATH}/{bulk_id}/items?limit=2", token=token)
    second = await world.client.send("GET", f"{PATH}/{bulk_id}/items?limit=2&cursor=2", token=token)

    assert first.json["next_cursor"] == "2"
    assert [line["line"] for line in second.json["data"]] == [3]
    assert second.json["next_cursor"] is None


async def test_json_that_is_sent_as_csv_is_told_which_content_type_it_needs(world: GatewayWorld) -> None:
    token = await world.token()

    refused = await upload(world, token, b"\n " + file_of(3), kind=CSV)
    again = await upload(world, token, b"\n " + file_of(3), kind=NDJSON)

    assert (refused.status, refused.json["error"], refused.json["line"]) == (400, "MALFORMED_REQUEST", 2)
    assert refused.json["detail"] == (
        "Line 2 looks like JSON and not like the header line of a CSV file: send Content-Type: application/x-ndjson"
        " and send the file again under the same key."
    )
    assert again.status == 202


async def test_a_line_need_not_say_whose_it_is(world: GatewayWorld) -> None:
    token = await world.token()

    reply = await upload(world, token, payment(1, customer_id=None))
    await results(world, token, reply.json["bulk_id"])

    assert world.bulk.commands[0].customer_id == "cust_001"


async def test_csv_is_read_by_its_header_line(world: GatewayWorld) -> None:
    token = await world.token()
    lines = [
        HEADER,
        'txn_1,10.00,ACC001,ACC002,"Byron, Ada",GB,rent',
        "txn_2,10.00,ACC001,ACC002,,,",
        "txn_3,10.00,ACC001",
        "txn_4,10.00,ACC001,ACC002,Ada,GB,rent,more",
    ]

    reply = await upload(world, token, b"\xef\xbb\xbf" + "\r\n".join(lines).encode(), kind=CSV)
    items = await results(world, token, reply.json["bulk_id"])

    assert [(item["line"], item["status"]) for item in items] == [
        (2, "SUCCESS"),
        (3, "SUCCESS"),
        (4, "INVALID"),
        (5, "INVALID"),
    ]
    first, second = world.bulk.commands
    assert first.creditor is not None
    assert (first.creditor.name, first.creditor.country, first.amount) == ("Byron, Ada", "GB", "10.00")
    assert (second.creditor, second.remittance_information) == (None, None)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("amount,from_account,to_account", "MISSING_REQUIRED_FIELDS"),
        (f"{HEADER},surprise", "MALFORMED_REQUEST"),
        (f"{HEADER},amount", "MALFORMED_REQUEST"),
        (f'"{HEADER}', "MALFORMED_REQUEST"),
    ],
)
async def test_a_csv_header_that_is_not_understood_refuses_the_file(
    world: GatewayWorld, header: str, error: str
) -> None:
    token = await world.token()

    reply = await upload(world, token, f"{header}\na,b\n".encode(), kind=CSV)

    assert (reply.status, reply.json["error"]) == (400, error)


async def test_text_in_a_quoted_cell_is_never_a_payment_and_the_file_is_taken_without_its_line_break(
    world: GatewayWorld,
) -> None:
    token = await world.token()
    lines = [HEADER, *(f"txn_{number},10.00,ACC001,ACC002,,," for number in range(600))]
    lines[400] = 'txn_399,10.00,ACC001,ACC002,,,"hello\ntxn_evil,77.00,ACC001,ACC002,,,x"'
    raw = "\n".join(lines).encode()

    refused = await upload(world, token, raw, kind=CSV)
    await world.bulk.run()
    order = await world.client.send("GET", f"{PATH}/{refused.json['bulk_id']}", token=token)
    paid = list(world.bulk.commands)
    mended = await upload(world, token, raw.replace(b"hello\n", b"hello "), kind=CSV)
    items = await results(world, token, mended.json["bulk_id"], "?limit=1000")

    assert (refused.status, refused.json["error"], refused.json["line"]) == (400, "MALFORMED_REQUEST", 401)
    assert "remove them and send the file again under the same key" in refused.json["detail"]
    assert (order.json["status"], order.json["counts"], paid) == ("RECEIVING", {"WAITING": 250}, [])
    assert (mended.status, mended.json["bulk_id"]) == (202, refused.json["bulk_id"])
    assert {item["status"] for item in items} == {"SUCCESS"}
    assert "txn_evil" not in {command.transaction_id for command in world.bulk.commands}


async def test_an_upload_that_was_cut_goes_on_from_its_next_line(world: GatewayWorld) -> None:
    token = await world.token()
    lines = file_of(600).splitlines(keepends=True)
    whole = b"".join(lines)
    # Whole chunks are stored before the client is gone.
    await upload(world, token, whole[: len(whole) * 9 // 10], then="gone")

    gap = await upload(world, token, b"".join(lines[520:]), line="521")
    done = await upload(world, token, b"".join(lines[500:]), line="501")
    again = await upload(world, token, whole)

    assert (gap.status, gap.json["error"], gap.json["next_line"]) == (409, "UPLOAD_GAP", 501)
    assert (done.status, done.json["total"], done.json["status"]) == (202, 600, "PROCESSING")
    assert (again.status, again.json["bulk_id"]) == (202, done.json["bulk_id"])


async def test_the_rest_of_a_csv_file_needs_no_header_line(world: GatewayWorld) -> None:
    token = await world.token()
    lines = [HEADER, *(f"txn_{number},10.00,ACC001,ACC002,,," for number in range(600))]
    raw = "\n".join(lines).encode()
    await upload(world, token, raw[: len(raw) * 9 // 10], kind=CSV, then="gone")

    rest = await upload(world, token, "\n".join(lines[501:]).encode(), kind=CSV, line="502")

    assert (rest.status, rest.json["total"], rest.json["next_line"]) == (202, 600, 602)


async def test_a_repeat_is_told_how_the_order_stands_and_another_file_is_refused(world: GatewayWorld) -> None:
    token = await world.token()
    first = await upload(world, token, file_of(3))
    await results(world, token, first.json["bulk_id"])

    again = await upload(world, token, file_of(3) + b"\n\n")
    longer = await upload(world, token, file_of(4))
    shorter = await upload(world, token, file_of(2))
    other = await upload(world, token, payment(1, amount="1.00") + b"\n" + payment(2) + b"\n" + payment(3))

    assert (again.status, again.json["status"], again.json["bulk_id"]) == (200, "COMPLETED", first.json["bulk_id"])
    for reply in (longer, shorter, other):
        assert (reply.status, reply.json["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize("body", [b"", b"\n \n", HEADER.encode()])
async def test_a_file_without_payments_is_refused(world: GatewayWorld, body: bytes) -> None:
    token = await world.token()

    reply = await upload(world, token, body, kind=CSV if body.startswith(b"t") else NDJSON)

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")


async def test_the_head_is_checked_before_anything_is_read(world: GatewayWorld) -> None:
    token = await world.token()
    await world.user("op", role=Role.OPERATOR)
    operator = (await world.sign_in("op"))["access_token"]

    told = {
        "kind": await upload(world, token, file_of(1), kind="application/json"),
        "encoding": await upload(world, token, file_of(1), **{"Content-Encoding": "gzip"}),
        "token": await upload(world, None, file_of(1)),
        "role": await upload(world, operator, file_of(1)),
        "key": await upload(world, token, file_of(1), key=None),
        "line": await upload(world, token, file_of(1), line="0"),
        "rest of nothing": await upload(world, token, file_of(1), line="7"),
        "method": await world.client.send("PUT", PATH, token=token),
        "length": await upload(world, token, b"", **{"Content-Length": str(65 * 1024 * 1024)}),
    }

    assert {name: (reply.status, reply.json["error"]) for name, reply in told.items()} == {
        "kind": (415, "UNSUPPORTED_MEDIA_TYPE"),
        "encoding": (415, "UNSUPPORTED_MEDIA_TYPE"),
        "token": (401, "ACCESS_TOKEN_REQUIRED"),
        "role": (403, "FORBIDDEN"),
        "key": (400, "MISSING_IDEMPOTENCY_KEY"),
        "line": (400, "MALFORMED_REQUEST"),
        "rest of nothing": (409, "UPLOAD_GAP"),
        "method": (405, "METHOD_NOT_ALLOWED"),
        "length": (413, "PAYLOAD_TOO_LARGE"),
    }


async def test_what_arrives_is_counted(world: GatewayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_upload, "FILE_MAX_BYTES", 1000)
    token = await world.token()

    reply = await upload(world, token, file_of(20), **{"Transfer-Encoding": "chunked"})

    assert (reply.status, reply.json["error"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_an_upload_that_takes_too_long_is_ended(world: GatewayWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_upload, "UPLOAD_S_MAX", 0.05)
    token = await world.token()

    reply = await upload(world, token, payment(1), then="silence")

    assert (reply.status, reply.json["error"]) == (408, "REQUEST_TIMEOUT")


async def test_a_bulk_order_is_its_customer_s_alone(world: GatewayWorld) -> None:
    token = await world.token()
    await world.user("other", customer_id="cust_002")
    stranger = (await world.sign_in("other"))["access_token"]
    bulk_id = (await upload(world, token, file_of(1))).json["bulk_id"]

    for method, path in (("GET", ""), ("GET", "/items"), ("GET", "/events"), ("POST", "/cancel")):
        reply = await world.client.send(method, f"{PATH}/{bulk_id}{path}", token=stranger)
        assert (reply.status, reply.json["error"]) == (404, "BULK_NOT_FOUND"), path


async def test_results_are_looked_for_by_status(world: GatewayWorld) -> None:
    token = await world.token()
    bulk_id = (await upload(world, token, file_of(5) + b"{\n")).json["bulk_id"]

    (invalid,) = await results(world, token, bulk_id, "?status=INVALID")

    assert invalid["line"] == 6


async def test_a_refused_payment_is_told_with_its_reason(world: GatewayWorld) -> None:
    token = await world.token()
    world.bulk.outcome = PaymentState.REJECTED
    bulk_id = (await upload(world, token, file_of(1))).json["bulk_id"]

    (item,) = await results(world, token, bulk_id)

    assert (item["status"], item["error"]) == ("REJECTED", "INSUFFICIENT_FUNDS")
    assert item["detail"] == "The available balance does not cover the amount."
