"""Money from the simulated other bank to partner_bank, two applications over real HTTP and a real PostgreSQL."""

from __future__ import annotations

import json

from payflow.contracts.account import ListEntries, VerifyLedger
from payflow.services.partner_bank.rails.signing import BANK_HEADER, SIGNATURE_HEADER, is_answer_signed, sign
from tests.builders import new_id
from tests.builders_other_bank import ERIKA, SECRET, XML, Town, a_message, post, words


async def test_our_own_answer_is_signed_for_the_message_that_it_answers(town: Town) -> None:
    body = a_message(
        end_to_end_id=new_id().hex,
        amount="1.00",
        to_account=await town.account(),
        sender="NORDDEFFXXX",
        receiver="PAYFDEFFXXX",
    )
    ours = {BANK_HEADER: "NORDDEFFXXX", SIGNATURE_HEADER: sign(body, bank_bic="NORDDEFFXXX", secret=SECRET)}

    async with town.session.post(
        f"{town.url('partner_bank')}/inbound/iso20022", data=body, headers={**XML, **ours}
    ) as response:
        answer, theirs = await response.read(), response.headers

    assert words(answer) == [("ACSC", None)]
    assert theirs[BANK_HEADER] == "PAYFDEFFXXX"
    assert is_answer_signed(
        answer,
        bank_bic="PAYFDEFFXXX",
        secret=SECRET,
        request_signature=ours[SIGNATURE_HEADER],
        signature=theirs[SIGNATURE_HEADER],
    )


async def test_money_from_the_other_bank_is_credited_once_however_often_it_is_sent(town: Town) -> None:
    number = await town.account()
    before = await town.balance(ERIKA)

    first = await town.pay(number)
    again = [await town.pay(number, end_to_end_id=first["end_to_end_id"]) for _ in range(3)]

    assert {answer["iso_status"] for answer in [first, *again]} == {"ACSC"}
    assert await town.posted(number) == 2500
    assert await town.balance(ERIKA) == before - 2500
    assert (await town.books(first["end_to_end_id"]))["paid"][0]["times_sent"] == 4


async def test_money_for_nobody_is_refused_and_stays_with_the_other_bank(town: Town) -> None:
    before = await town.balance(ERIKA)

    answer = await town.pay("NOSUCHACCOUNT")

    assert (answer["status"], answer["reason_code"]) == ("REJECTED", "AC01")
    assert await town.balance(ERIKA) == before


async def test_money_from_a_listed_person_is_taken_and_held_in_suspense(town: Town) -> None:
    number = await town.account()
    town.ofac.listed = {"Listed Person"}

    answer = await town.pay(number, debtor_name="Listed Person")

    assert answer["iso_status"] == "ACWP"
    assert await town.posted(number) == 0


async def test_money_sent_while_we_are_down_arrives_once_when_we_are_back(town: Town) -> None:
    number = await town.account()
    await town.stop("partner_bank")

    first = await town.pay(number)
    await town.start("partner_bank")
    paid = await town.answered(first["end_to_end_id"])

    assert first["status"] == "UNKNOWN"
    assert paid["iso_status"] == "ACSC"
    assert await town.posted(number) == 2500


async def test_money_is_pending_without_the_ledger_and_credited_once_it_is_back(town: Town) -> None:
    number = await town.account()
    await town.stop("account")

    first = await town.pay(number)
    await town.start("account")
    await town.answered(first["end_to_end_id"])

    (page,) = await town.gateway.list_entries([ListEntries(number=number)])
    (verified,) = await town.operator.verify_ledger([VerifyLedger()])
    assert first["iso_status"] == "PDNG"
    assert [line.amount_minor for line in page.entries] == [2500]
    assert verified.broken == []


async def test_the_inbound_address_refuses_what_is_no_message_of_a_known_bank(town: Town) -> None:
    url = f"{town.url('partner_bank')}/inbound/iso20022"
    arguments = {"to_account": await town.account(), "amount": "1.00", "receiver": "PAYFDEFFXXX"}
    body = a_message(end_to_end_id=new_id().hex, sender="NORDDEFFXXX", **arguments)
    foreign = a_message(end_to_end_id=new_id().hex, sender="LUTEFRPPXXX", **arguments)
    with_entities = b'<!DOCTYPE x [<!ENTITY a "b">]>' + body.split(b"?>", 1)[1]

    outcomes = {
        "forged": await post(town, url, body, signed_by="NORDDEFFXXX", secret="guess"),
        "unknown bank": await post(town, url, body, signed_by="NOSUDEFFXXX"),
        "in another's name": await post(town, url, foreign, signed_by="NORDDEFFXXX"),
        "not XML": await post(town, url, b"{}", signed_by="NORDDEFFXXX"),
        "with a document type": await post(town, url, with_entities, signed_by="NORDDEFFXXX"),
        "too large": await post(town, url, b" " * (1024 * 1024 + 1), signed_by="NORDDEFFXXX"),
    }
    async with town.session.get(url) as response:
        outcomes["GET"] = (response.status, await response.read())
        allow = response.headers["allow"]
    async with town.session.post(url, data=body, headers={"content-type": "application/json"}) as response:
        outcomes["as JSON"] = (response.status, await response.read())

    assert {name: status for name, (status, _) in outcomes.items()} == {
        "forged": 401,
        "unknown bank": 401,
        "in another's name": 400,
        "not XML": 400,
        "with a document type": 400,
        "too large": 413,
        "GET": 405,
        "as JSON": 415,
    }
    assert allow == "POST"
    assert all(json.loads(answer)["status"] == status for status, answer in outcomes.values())


async def test_a_return_is_answered_clearly_and_not_mistaken_for_a_payment(town: Town) -> None:
    body = b'<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pacs.004.001.09"><PmtRtr/></Document>'

    status, answer = await post(town, f"{town.url('partner_bank')}/inbound/iso20022", body, signed_by="NORDDEFFXXX")

    assert status == 400
    assert "pacs.004.001.09 is not a message that is spoken here" in json.loads(answer)["detail"]
