"""Money from the simulated other bank to partner_bank, two applications over real HTTP and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json

import pytest

from payflow.contracts.account import ListEntries, VerifyLedger
from payflow.contracts.ofac import ReviewState
from payflow.services.partner_bank.domain import return_id_of
from payflow.services.partner_bank.rails.iso20022 import (
    Header,
    PaymentReturn,
    PaymentReturnMessage,
    build_returns,
)
from payflow.services.partner_bank.rails.signing import BANK_HEADER, SIGNATURE_HEADER, is_answer_signed, sign
from payflow_dev.other_bank.domain import return_key
from tests.builders import NOON, NORDBANK_BIC, OUR_BIC, new_id
from tests.builders_other_bank import ERIKA, SECRET, XML, Town, a_message, post, words


async def test_our_own_answer_is_signed_for_the_message_that_it_answers(town: Town) -> None:
    body = a_message(
        end_to_end_id=new_id().hex,
        amount="1.00",
        to_account=await town.account(),
        sender=NORDBANK_BIC,
        receiver=OUR_BIC,
    )
    ours = {BANK_HEADER: NORDBANK_BIC, SIGNATURE_HEADER: sign(body, bank_bic=NORDBANK_BIC, secret=SECRET)}

    async with town.session.post(
        f"{town.url('partner_bank')}/inbound/iso20022", data=body, headers={**XML, **ours}
    ) as response:
        answer, theirs = await response.read(), response.headers

    assert words(answer) == [("ACSC", None)]
    assert theirs[BANK_HEADER] == OUR_BIC
    assert is_answer_signed(
        answer,
        bank_bic=OUR_BIC,
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


async def test_held_money_reaches_its_creditor_when_it_is_cleared(town: Town) -> None:
    number = await town.account()
    town.ofac.listed = {"Listed Person"}
    paid = await town.pay(number, debtor_name="Listed Person")

    town.ofac.decided[town.incoming_id(paid["end_to_end_id"])] = ReviewState.CLEARED

    await town.until_posted(number, 2500)


@pytest.mark.parametrize("mode", ["accept", "silent_after", "silent_before", "cut_off", "error"])
async def test_held_money_is_back_on_its_account_when_it_is_blocked(town: Town, mode: str) -> None:
    number, before, in_suspense = await town.account(), await town.balance(ERIKA), await town.in_suspense()
    town.ofac.listed = {"Listed Person"}
    paid = await town.pay(number, debtor_name="Listed Person")
    taken = await town.balance(ERIKA)
    key = return_key(paid["end_to_end_id"], return_id_of(town.incoming_id(paid["end_to_end_id"]), 1).hex)
    await town.control(end_to_end_ids={key: {"mode": mode}})

    town.ofac.decided[town.incoming_id(paid["end_to_end_id"])] = ReviewState.BLOCKED
    await asyncio.sleep(1)
    await town.control()

    (row,) = await town.until_received(key)
    assert (row["status"], row["account"], row["amount"]) == ("ACCEPTED", ERIKA, "25.00")
    assert (before - taken, await town.balance(ERIKA)) == (2500, before)
    await town.until_in_suspense(in_suspense)
    assert await town.posted(number) == 0


async def test_a_return_that_was_refused_stays_so_and_another_one_of_its_payment_is_taken(town: Town) -> None:
    before = await town.balance(ERIKA)
    paid = await town.pay(await town.account())

    async def offered(return_id: str) -> list[tuple[str | None, str | None]]:
        made = PaymentReturn(return_id, paid["end_to_end_id"], None, "25.00", "EUR", "RR04")
        body = build_returns(PaymentReturnMessage(Header("PF1", NOON, OUR_BIC, NORDBANK_BIC), [made]))
        _, answer = await post(town, f"{town.url('other_bank')}/iso20022", body, signed_by=OUR_BIC)
        return words(answer)

    await town.control(mode="reject", reason_code="AC04")
    refused = await offered("R1")
    await town.control()
    still_refused, taken = await offered("R1"), await offered("R2")

    assert refused == still_refused == [("RJCT", "AC04")]
    assert taken == [("ACSC", None)]
    assert await town.balance(ERIKA) == before


async def test_the_other_bank_takes_back_only_what_it_has_paid_and_once(town: Town) -> None:
    before = await town.balance(ERIKA)
    paid = await town.pay(await town.account())

    async def offered(
        end_to_end_id: str, amount: str, currency: str = "EUR", return_id: str = "R1"
    ) -> list[tuple[str | None, str | None]]:
        made = PaymentReturn(return_id, end_to_end_id, None, amount, currency, "RR04")
        body = build_returns(PaymentReturnMessage(Header("PF1", NOON, OUR_BIC, NORDBANK_BIC), [made]))
        status, answer = await post(town, f"{town.url('other_bank')}/iso20022", body, signed_by=OUR_BIC)
        assert status == 200
        return words(answer)

    never_paid = await offered(new_id().hex, "25.00")
    too_much = await offered((await town.pay(await town.account()))["end_to_end_id"], "25.01")
    taken = [await offered(paid["end_to_end_id"], "25.00") for _ in range(2)]
    otherwise = await offered(paid["end_to_end_id"], "25.00", "USD")
    once_more = await offered(paid["end_to_end_id"], "25.00", return_id="R2")

    assert never_paid == too_much == once_more == [("RJCT", "AC01")]
    assert taken == [[("ACSC", None)]] * 2
    assert otherwise == [("RJCT", "AM05")]
    assert await town.balance(ERIKA) == before - 2500


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
    arguments = {"to_account": await town.account(), "amount": "1.00", "receiver": OUR_BIC}
    body = a_message(end_to_end_id=new_id().hex, sender=NORDBANK_BIC, **arguments)
    foreign = a_message(end_to_end_id=new_id().hex, sender="LUTEFRPPXXX", **arguments)
    with_entities = b'<!DOCTYPE x [<!ENTITY a "b">]>' + body.split(b"?>", 1)[1]

    outcomes = {
        "forged": await post(town, url, body, signed_by=NORDBANK_BIC, secret="guess"),
        "unknown bank": await post(town, url, body, signed_by="NOSUDEFFXXX"),
        "in another's name": await post(town, url, foreign, signed_by=NORDBANK_BIC),
        "not XML": await post(town, url, b"{}", signed_by=NORDBANK_BIC),
        "with a document type": await post(town, url, with_entities, signed_by=NORDBANK_BIC),
        "too large": await post(town, url, b" " * (1024 * 1024 + 1), signed_by=NORDBANK_BIC),
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

    status, answer = await post(town, f"{town.url('partner_bank')}/inbound/iso20022", body, signed_by=NORDBANK_BIC)

    assert status == 400
    assert "pacs.004.001.09 is not a message that is spoken here" in json.loads(answer)["detail"]
