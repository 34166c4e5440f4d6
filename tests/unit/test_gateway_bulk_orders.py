"""Finding one's bulk orders over the gateway, and what a refused upload tells of its order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from payflow.services.confirm.bulk import usecases
from payflow.services.gateway.routes import bulk_upload
from tests.fakes_gateway import GatewayWorld
from tests.unit.test_gateway_bulk import PATH, file_of, payment, results, upload


@pytest.fixture
def world(tmp_path: Path) -> GatewayWorld:
    return GatewayWorld(tmp_path / "keys")


async def listed(world: GatewayWorld, token: str, query: str = "") -> tuple[list[tuple[str, str]], str | None]:
    reply = await world.client.send("GET", PATH + query, token=token)
    assert reply.status == 200, reply.body
    return [(order["bulk_id"], order["status"]) for order in reply.json["data"]], reply.json["next_cursor"]


async def test_orders_are_listed_as_each_is_told_newest_first(world: GatewayWorld) -> None:
    token = await world.token()
    for number in range(3):
        await upload(world, token, file_of(number + 1), key=f"file-{number}")
    await world.bulk.run()
    await upload(world, token, file_of(600)[:-10], key="cut", then="gone")

    first, cursor = await listed(world, token, "?limit=3")
    rest, end = await listed(world, token, f"?limit=3&cursor={cursor}")
    cut, _ = await listed(world, token, "?status=RECEIVING")
    whole = await world.client.send("GET", PATH, token=token)
    single = await world.client.send("GET", f"{PATH}/{cut[0][0]}", token=token)

    assert [status for _, status in first + rest] == ["RECEIVING", "COMPLETED", "COMPLETED", "COMPLETED"]
    assert (first[:1], end) == (cut, None)
    assert whole.json["data"][0] == single.json
    assert single.json["next_line"] == 501


@pytest.mark.parametrize("query", ["?cursor=x", "?status=LOST", "?limit=0", "?limit=201", "?state=RECEIVING"])
async def test_a_list_that_is_asked_for_wrongly_is_refused(world: GatewayWorld, query: str) -> None:
    reply = await world.client.send("GET", PATH + query, token=await world.token())

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")


async def test_a_list_is_its_customer_s_alone(world: GatewayWorld) -> None:
    await upload(world, await world.token(), file_of(1))
    await world.user("other", customer_id="cust_002")

    found, _ = await listed(world, (await world.sign_in("other"))["access_token"])

    assert found == []


async def test_a_file_with_too_many_lines_names_its_order_which_is_cancelled(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usecases, "ITEMS_MAX", 500)
    token = await world.token()

    refused = await upload(world, token, file_of(501))
    await world.bulk.run()

    assert (refused.status, refused.json["error"]) == (413, "TOO_MANY_ITEMS")
    assert (await listed(world, token))[0] == [(refused.json["bulk_id"], "CANCELLED")]
    assert world.bulk.commands == []


async def test_a_file_with_too_many_bytes_names_its_order_which_is_cancelled(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await world.token()
    await upload(world, token, file_of(600)[:-10], then="gone")
    monkeypatch.setattr(bulk_upload, "FILE_MAX_BYTES", 1000)

    refused = await upload(world, token, file_of(620), **{"Transfer-Encoding": "chunked"})
    resumed = await upload(world, token, file_of(620), line="501", **{"Transfer-Encoding": "chunked"})
    await world.bulk.run()

    assert [(reply.status, reply.json["error"]) for reply in (refused, resumed)] == [(413, "PAYLOAD_TOO_LARGE")] * 2
    assert (await listed(world, token))[0] == [(resumed.json["bulk_id"], "CANCELLED")]


@pytest.mark.parametrize(("line", "is_named"), [("501", True), ("1", False)], ids=["its rest", "from its beginning"])
async def test_a_length_that_is_too_large_is_refused_unread_and_names_the_order_that_it_is_the_rest_of(
    world: GatewayWorld, line: str, is_named: bool
) -> None:
    token = await world.token()
    await upload(world, token, file_of(600)[:-10], then="gone")
    ((bulk_id, _),) = (await listed(world, token))[0]

    refused = await upload(world, token, b"", line=line, **{"Content-Length": str(65 * 1024 * 1024)})
    await world.bulk.run()

    assert (refused.status, refused.json["error"]) == (413, "PAYLOAD_TOO_LARGE")
    assert refused.json.get("bulk_id") == (bulk_id if is_named else None)
    # Whose file begins anew is not known by its length.
    assert (await listed(world, token))[0] == [(bulk_id, "CANCELLED" if is_named else "RECEIVING")]


async def test_an_order_that_runs_goes_on_though_too_much_is_sent_under_its_key(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await world.token()
    accepted = await upload(world, token, file_of(3))
    monkeypatch.setattr(bulk_upload, "FILE_MAX_BYTES", 100)

    refused = await upload(world, token, file_of(3), line="4", **{"Transfer-Encoding": "chunked"})
    await world.bulk.run()

    assert (refused.status, refused.json["bulk_id"]) == (413, accepted.json["bulk_id"])
    assert (await listed(world, token))[0] == [(accepted.json["bulk_id"], "COMPLETED")]


async def test_whatever_refuses_an_upload_names_the_order_that_it_has(
    world: GatewayWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await world.token()
    await upload(world, token, file_of(600)[:-10], then="gone")
    ((bulk_id, _),) = (await listed(world, token))[0]

    gap = await upload(world, token, file_of(1), line="900")
    other = await upload(world, token, payment(1, amount="1.00") + b"\n" + file_of(600))
    monkeypatch.setattr(bulk_upload, "UPLOAD_S_MAX", 0.2)
    late = await upload(world, token, file_of(300), then="silence")
    await world.client.send("POST", f"{PATH}/{bulk_id}/cancel", token=token)
    ended = await upload(world, token, file_of(600))
    unknown = await upload(world, token, file_of(1), line="900", key="another")

    assert [(reply.status, reply.json["error"]) for reply in (gap, other, late, ended)] == [
        (409, "UPLOAD_GAP"),
        (422, "IDEMPOTENCY_KEY_REUSED"),
        (408, "REQUEST_TIMEOUT"),
        (409, "BULK_ENDED"),
    ]
    assert {reply.json["bulk_id"] for reply in (gap, other, late, ended)} == {bulk_id}
    assert "bulk_id" not in unknown.json


async def test_who_has_too_many_uploads_is_told_how_to_find_and_cancel_them(world: GatewayWorld) -> None:
    token = await world.token()
    for number in range(10):
        await upload(world, token, file_of(300)[:-10], key=f"cut-{number}", then="gone")

    refused = await upload(world, token, file_of(1), key="one more")
    found, _ = await listed(world, token, "?status=RECEIVING")
    await world.client.send("POST", f"{PATH}/{found[-1][0]}/cancel", token=token)
    accepted = await upload(world, token, file_of(1), key="one more")

    assert (refused.status, refused.json["error"], refused.json["uploads_max"]) == (429, "TOO_MANY_BULKS", 10)
    for word in ("GET /payments/bulk lists them", "POST /payments/bulk/{bulk_id}/cancel"):
        assert word in refused.json["detail"]
    assert len(found) == 10
    assert accepted.status == 202


async def test_a_whole_file_that_has_to_wait_names_its_order_and_begins_when_it_is_sent_again(
    world: GatewayWorld,
) -> None:
    token = await world.token()
    await upload(world, token, file_of(600)[:-10], key="waits", then="gone")
    for number in range(5):
        await upload(world, token, file_of(1), key=f"runs-{number}")

    refused = await upload(world, token, file_of(600), key="waits")
    await world.bulk.run()
    accepted = await upload(world, token, b"", key="waits", line="601", **{"Upload-Items": "600"})

    assert (refused.status, refused.json["error"]) == (429, "TOO_MANY_BULKS")
    assert (accepted.status, accepted.json["bulk_id"]) == (202, refused.json["bulk_id"])
    assert accepted.json["total"] == 600


async def test_a_rest_without_a_payment_does_not_make_a_file_that_was_cut_whole(world: GatewayWorld) -> None:
    token = await world.token()
    await upload(world, token, file_of(600)[:-10], then="gone")

    nothing = await upload(world, token, b"", line="501")
    wrong = await upload(world, token, b"\n", line="501", **{"Upload-Items": "600"})
    await world.bulk.run()

    assert (nothing.status, nothing.json["error"]) == (400, "MALFORMED_REQUEST")
    assert "Upload-Items" in nothing.json["detail"]
    assert (wrong.status, wrong.json["error"]) == (409, "UPLOAD_INCOMPLETE")
    assert (wrong.json["total"], wrong.json["next_line"]) == (500, 501)
    assert world.bulk.commands == []


async def test_a_file_that_was_cut_before_it_was_sent_is_kept_and_gone_on_with(world: GatewayWorld) -> None:
    token = await world.token()
    lines = file_of(7).splitlines(keepends=True)

    cut = await upload(world, token, b"".join(lines[:5]), **{"Upload-Items": "7"})
    rest = await upload(world, token, b"".join(lines[5:]), line="6", **{"Upload-Items": "7"})
    again = await upload(world, token, file_of(7))

    assert (cut.status, cut.json["error"], cut.json["next_line"]) == (409, "UPLOAD_INCOMPLETE", 6)
    assert (rest.status, rest.json["total"]) == (202, 7)
    assert (again.status, again.json["bulk_id"]) == (202, cut.json["bulk_id"])


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.0", "1234567890"])
async def test_a_number_of_payments_that_is_none_is_refused(world: GatewayWorld, number: str) -> None:
    refused = await upload(world, await world.token(), file_of(1), **{"Upload-Items": number})

    assert (refused.status, refused.json["error"]) == (400, "MALFORMED_REQUEST")
    assert refused.json["detail"] == "Upload-Items: send how many payments the whole file has."


async def test_progress_is_streamed_until_the_order_has_ended(world: GatewayWorld) -> None:
    token = await world.token()
    bulk_id = (await upload(world, token, file_of(2))).json["bulk_id"]
    await world.bulk.run()

    reply = await world.client.send("GET", f"{PATH}/{bulk_id}/events", token=token)

    assert reply.headers["content-type"].startswith("text/event-stream")
    name, data = reply.body.decode().strip().split("\n")
    assert name == "event: COMPLETED"
    assert json.loads(data.removeprefix("data: "))["counts"] == {"SUCCESS": 2}


async def test_what_was_not_begun_is_cancelled(world: GatewayWorld) -> None:
    token = await world.token()
    bulk_id = (await upload(world, token, file_of(2))).json["bulk_id"]

    cancelled = await world.client.send("POST", f"{PATH}/{bulk_id}/cancel", token=token)
    items = await results(world, token, bulk_id)
    again = await world.client.send("POST", f"{PATH}/{bulk_id}/cancel", token=token)

    assert (cancelled.status, cancelled.json["status"]) == (200, "CANCELLING")
    assert {item["status"] for item in items} == {"CANCELLED"}
    assert again.json["status"] == "CANCELLED"
