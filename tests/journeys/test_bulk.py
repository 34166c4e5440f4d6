"""Files of payments: accepted, made line by line through the same gates, told of, resumed, repeated, cancelled."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

import aiohttp
import pytest

from tests.support.api import Client, Customer, Factory, eventually, new_key
from tests.support.files import BULK, NDJSON, ended, lines_of, order, results, upload
from tests.support.other_bank import NORDBANK
from tests.support.system import System

pytestmark = pytest.mark.timeout(180)


def bodies_of(customer: Customer, to_account: str, count: int, amount: str = "0.10") -> list[dict[str, Any]]:
    return [customer.body(to_account, amount) for _ in range(count)]


async def test_a_file_of_two_thousand_lines_is_paid_and_its_bad_lines_are_told(
    make: Factory, operators: dict[str, Client]
) -> None:
    debtor, creditor = await make.customer(USD="1000.00"), await make.customer(USD="0.00")
    bodies = bodies_of(debtor, creditor.account, 2000)
    lines = lines_of(bodies).splitlines(keepends=True)
    lines[99] = b'{"transaction_id":"x"\n'
    lines[500] = json.dumps({**bodies[500], "amount": "-1"}).encode() + b"\n"
    lines[1000] = json.dumps({**bodies[1000], "transaction_id": bodies[0]["transaction_id"]}).encode() + b"\n"
    lines[1500] = json.dumps({**bodies[1500], "to_account": "NOBODY"}).encode() + b"\n"
    lines[1999] = json.dumps({**bodies[1999], "from_account": creditor.account}).encode() + b"\n"

    accepted = await upload(debtor, b"".join(lines), key=new_key())
    bulk_id = accepted.json["bulk_id"]
    done = await ended(debtor, bulk_id)
    items = await results(debtor, bulk_id)

    assert accepted.status == 202
    assert accepted.headers["location"] == f"{BULK}/{bulk_id}"
    assert accepted.json["total"] == 2000
    assert (done["status"], done["counts"]) == ("COMPLETED", {"SUCCESS": 1995, "INVALID": 2, "REJECTED": 3})
    assert [item["line"] for item in items] == list(range(1, 2001))
    refused = {item["line"]: (item["status"], item["error"]) for item in items if item["status"] != "SUCCESS"}
    assert refused == {
        100: ("INVALID", "MALFORMED_REQUEST"),
        501: ("REJECTED", "INVALID_AMOUNT"),
        1001: ("INVALID", "DUPLICATE_TRANSACTION_ID"),
        1501: ("REJECTED", "CREDITOR_UNREACHABLE"),
        2000: ("REJECTED", "ACCOUNT_NOT_OWNED"),
    }
    assert await debtor.balances() == ("800.50", "0.00", "800.50")
    assert await creditor.balances() == ("199.50", "0.00", "199.50")
    single = await debtor.payment(bodies[7]["transaction_id"])
    assert items[7]["payment"] == single
    assert [item["line"] for item in await results(debtor, bulk_id, status="INVALID")] == [100, 1001]

    async def audited() -> Any:
        answer = await operators["auditor"].get(f"/audit?subject={bulk_id}")
        return [row["type"] for row in answer.json["data"]] == ["bulk.completed", "bulk.accepted"]

    await eventually(audited, seconds=15)


async def test_an_upload_that_was_cut_is_resumed_and_nothing_was_paid_before(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer(USD="0.00")
    lines = lines_of(bodies_of(debtor, creditor.account, 1200)).splitlines(keepends=True)
    key = new_key()
    await cut_upload(debtor, b"".join(lines), key=key, after=len(b"".join(lines)) * 3 // 4)

    async def received() -> Any:
        answer = await upload(debtor, b"", key=key, line=900_000)
        return answer.json["next_line"] if answer.json["next_line"] > 1 else None

    next_line = await eventually(received)
    paid_before = await debtor.balances()
    rest = await upload(debtor, b"".join(lines[next_line - 1 :]), key=key, line=next_line)
    done = await ended(debtor, rest.json["bulk_id"])
    again = await upload(debtor, b"".join(lines), key=key)
    other = await upload(debtor, b"".join([*lines[:-1], lines[0]]), key=key)

    assert 500 < next_line < 1201
    assert paid_before == ("1000.00", "0.00", "1000.00")
    assert (rest.status, rest.json["total"]) == (202, 1200)
    assert done["counts"] == {"SUCCESS": 1200}
    assert (again.status, again.json["bulk_id"], again.json["status"]) == (200, rest.json["bulk_id"], "COMPLETED")
    assert (other.status, other.error) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert await creditor.balances() == ("120.00", "0.00", "120.00")


async def test_text_in_a_quoted_cell_is_never_paid_and_the_file_is_taken_without_its_line_break(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer(USD="0.00")
    rows = [f"{new_key()},0.10,{debtor.account},{creditor.account}," for _ in range(600)]
    evil = f"{new_key()},77.00,{debtor.account},{creditor.account},x"
    rows[400] += f'"hello\n{evil}"'
    file = "\r\n".join(["transaction_id,amount,from_account,to_account,remittance_information", *rows])
    key = new_key()

    refused = await upload(debtor, file.encode(), key=key, kind="text/csv")
    left = await order(debtor, refused.json["bulk_id"])
    await asyncio.sleep(1)
    paid = await creditor.balances()
    mended = await upload(debtor, file.replace(f"hello\n{evil}", "hello").encode(), key=key, kind="text/csv")
    done = await ended(debtor, mended.json["bulk_id"])

    assert (refused.status, refused.error, refused.json["line"]) == (400, "MALFORMED_REQUEST", 402)
    assert (left["status"], left["counts"]) == ("RECEIVING", {"WAITING": 250})
    assert paid == ("0.00", "0.00", "0.00")
    assert (done["bulk_id"], done["counts"]) == (left["bulk_id"], {"SUCCESS": 600})
    assert await creditor.balances() == ("60.00", "0.00", "60.00")


async def test_uploads_that_came_to_nothing_are_found_and_keep_nobody_from_the_next_one(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer(USD="0.00")
    lines = lines_of(bodies_of(debtor, creditor.account, 300))

    too_long = await upload(debtor, b"{\n" * 100_001, key=new_key())
    await asyncio.gather(*(cut_upload(debtor, lines, key=new_key(), after=len(lines) - 10) for _ in range(4)))
    for _ in range(2):
        await cut_upload(debtor, lines, key=new_key(), after=len(lines) - 10)
    accepted = await upload(debtor, lines_of(bodies_of(debtor, creditor.account, 2)), key=new_key())
    await ended(debtor, accepted.json["bulk_id"])
    await ended(debtor, too_long.json["bulk_id"])
    first = await debtor.client.get(f"{BULK}?limit=3")
    rest = await debtor.client.get(f"{BULK}?cursor={first.json['next_cursor']}")
    cut = await debtor.client.get(f"{BULK}?status=RECEIVING")
    for one in cut.json["data"]:
        cancelled = await debtor.client.post(f"{BULK}/{one['bulk_id']}/cancel")
        assert cancelled.status == 200, cancelled
        await ended(debtor, one["bulk_id"])

    assert (too_long.status, too_long.error) == (413, "TOO_MANY_ITEMS")
    assert accepted.status == 202, accepted
    statuses = [one["status"] for one in first.json["data"] + rest.json["data"]]
    assert statuses == ["COMPLETED", *["RECEIVING"] * 6, "CANCELLED"]
    assert first.json["data"][0] == await order(debtor, accepted.json["bulk_id"])
    assert rest.json["data"][-1]["bulk_id"] == too_long.json["bulk_id"]
    assert (await debtor.client.get(f"{BULK}?status=RECEIVING")).json == {"data": [], "next_cursor": None}
    assert await creditor.balances() == ("0.20", "0.00", "0.20")


async def cut_upload(customer: Customer, file: bytes, *, key: str, after: int) -> None:
    """Send the beginning of a file, promise the rest, and be gone."""
    host, _, port = customer.client.api.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST {BULK} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {customer.client.token}\r\n"
        f"Idempotency-Key: {key}\r\nContent-Type: {NDJSON}\r\nContent-Length: {len(file)}\r\n\r\n"
    )
    writer.write(head.encode() + file[:after])
    await writer.drain()
    await asyncio.sleep(1)
    writer.close()


async def test_a_long_file_arrives_in_chunks_of_unknown_length(make: Factory, session: aiohttp.ClientSession) -> None:
    debtor, creditor = await make.customer(), await make.customer(USD="0.00")
    lines = lines_of(bodies_of(debtor, creditor.account, 600)).splitlines(keepends=True)

    async def slowly() -> Any:
        for start in range(0, 600, 100):
            yield b"".join(lines[start : start + 100])
            await asyncio.sleep(0.05)

    headers = {"Authorization": f"Bearer {debtor.client.token}", "Idempotency-Key": new_key(), "Content-Type": NDJSON}
    async with session.post(debtor.client.api.url + BULK, data=slowly(), headers=headers) as response:
        accepted = await response.json()
    done = await ended(debtor, accepted["bulk_id"])

    assert response.status == 202
    assert done["counts"] == {"SUCCESS": 600}


async def test_progress_is_streamed_to_the_end(make: Factory, session: aiohttp.ClientSession) -> None:
    debtor, creditor = await make.customer(), await make.customer(USD="0.00")
    accepted = await upload(debtor, lines_of(bodies_of(debtor, creditor.account, 1500)), key=new_key())
    bulk_id = accepted.json["bulk_id"]

    headers = {"Authorization": f"Bearer {debtor.client.token}"}
    async with session.get(f"{debtor.client.api.url}{BULK}/{bulk_id}/events", headers=headers) as response:
        text = (await response.read()).decode()
    events = [event.split("\n") for event in text.strip().split("\n\n") if not event.startswith(":")]

    told = [json.loads(event[1].removeprefix("data: ")) for event in events]
    assert [event[0] for event in events][-1] == "event: COMPLETED"
    assert told[-1]["counts"] == {"SUCCESS": 1500}
    made = [one["counts"].get("SUCCESS", 0) for one in told]
    assert made == sorted(made)


async def test_a_line_that_needs_a_code_is_completed_singly_with_its_key(make: Factory) -> None:
    debtor, creditor = await make.customer(USD="50000.00"), await make.customer(USD="0.00")
    body = debtor.body(creditor.account, "10000.01")
    accepted = await upload(debtor, lines_of([debtor.body(creditor.account), body]), key=new_key())
    bulk_id = accepted.json["bulk_id"]
    done = await ended(debtor, bulk_id)
    (waiting,) = await results(debtor, bulk_id, status="OTP_REQUIRED")

    asked = await debtor.client.confirm(body, key=waiting["idempotency_key"])
    code = await debtor.otp(body["transaction_id"])
    paid = await debtor.client.confirm({**body, "otp": code}, key=waiting["idempotency_key"])

    assert (done["status"], done["counts"]) == ("COMPLETED", {"SUCCESS": 1, "OTP_REQUIRED": 1})
    assert (waiting["line"], waiting["payment"]["expires_at"] is not None) == (2, True)
    assert asked.json["status"] == "OTP_REQUIRED"
    assert (paid.status, paid.json["status"]) == (200, "SUCCESS")
    await asyncio.sleep(1.1)
    assert (await order(debtor, bulk_id))["counts"] == {"SUCCESS": 2}


async def test_csv_pays_here_and_at_another_bank(make: Factory) -> None:
    debtor, creditor = await make.customer(EUR="100.00"), await make.customer(EUR="0.00")
    rows = [
        "transaction_id,amount,currency,from_account,to_account,creditor_name,remittance_information",
        f'{new_key()},10.00,EUR,{debtor.account},{creditor.account},,"rent, March"',
        f"{new_key()},20.00,EUR,{debtor.account},{NORDBANK},Erika Musterfrau,",
        f"{new_key()},20.00,EUR,{debtor.account},{NORDBANK},,",
    ]

    accepted = await upload(debtor, "\n".join(rows).encode(), key=new_key(), kind="text/csv")
    bulk_id = accepted.json["bulk_id"]
    await ended(debtor, bulk_id)

    async def settled() -> Any:
        return Counter(item["status"] for item in await results(debtor, bulk_id)) == {"SUCCESS": 2, "REJECTED": 1}

    await eventually(settled, seconds=15)
    assert (await results(debtor, bulk_id))[2]["error"] == "CREDITOR_NAME_REQUIRED"
    assert await debtor.balances() == ("70.00", "0.00", "70.00")


async def test_files_of_customers_who_pay_each_other_in_opposite_order_all_finish(make: Factory) -> None:
    customers = [await make.customer(USD="1000.00") for _ in range(4)]
    numbers = [customer.account for customer in customers]

    async def file(place: int) -> dict[str, Any]:
        customer = customers[place]
        others = [number for number in numbers if number != customer.account]
        # Everybody pays everybody, half of them in the opposite order.
        ordered = others if place % 2 else list(reversed(others))
        bodies = [customer.body(ordered[line % len(ordered)], "0.10") for line in range(900)]
        accepted = await upload(customer, lines_of(bodies), key=new_key())
        assert accepted.status == 202, accepted
        return await ended(customer, accepted.json["bulk_id"])

    singles = asyncio.create_task(pay_singly(customers[0], numbers[1]))
    done = await asyncio.gather(*(file(place) for place in range(4)))

    assert [one["counts"] for one in done] == [{"SUCCESS": 900}] * 4
    assert set(await singles) == {200}
    balances = [(await customer.balances())[0] for customer in customers]
    assert sum(round(float(balance) * 100) for balance in balances) == 400_000


async def pay_singly(customer: Customer, to_account: str) -> list[int]:
    """Payments beside the files: they are answered meanwhile."""
    statuses = []
    for _ in range(20):
        statuses.append((await customer.pay(to_account, "0.10")).status)
        await asyncio.sleep(0.02)
    return statuses


async def test_what_was_not_begun_is_cancelled(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer(USD="0.00")
    accepted = await upload(debtor, lines_of(bodies_of(debtor, creditor.account, 5000, "0.01")), key=new_key())
    bulk_id = accepted.json["bulk_id"]

    cancelled = await debtor.client.post(f"{BULK}/{bulk_id}/cancel")
    done = await ended(debtor, bulk_id)
    late = await debtor.client.post(f"{BULK}/{bulk_id}/cancel")

    assert cancelled.status == 200
    assert (done["status"], late.status) == ("CANCELLED", 200)
    made = done["counts"].get("SUCCESS", 0)
    assert done["counts"]["CANCELLED"] == 5000 - made
    assert (await creditor.balances())[0] == f"{made / 100:.2f}"


async def test_a_file_may_be_larger_than_a_single_request_and_its_lines_may_not(make: Factory, system: System) -> None:
    debtor, creditor = await make.customer(), await make.customer(USD="0.00")
    padded = [{**debtor.body(creditor.account, "0.01"), "remittance_information": "x" * 140} for _ in range(600)]
    file = lines_of(padded) + b'{"transaction_id":"' + b"x" * 70_000 + b'"}\n'

    by_one = await upload(debtor, file, key=new_key())
    done = await ended(debtor, by_one.json["bulk_id"])
    single = await debtor.client.at(system.gateway_urls[0]).confirm(file, key=new_key())

    assert done["counts"] == {"SUCCESS": 600, "INVALID": 1}
    assert (single.status, single.error) == (413, "PAYLOAD_TOO_LARGE")
