"""partner_bank and the simulated other bank as two applications over real HTTP and a real PostgreSQL: money from here.

The services beside partner_bank are in memory and served over the same calls between services.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from payflow.contracts.partner_bank import BankStatus
from payflow.kernel.errors import PayflowError
from payflow.platform.http.asgi import Receive, Scope, Send, bytes_response, header, send_response
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransferMessage,
    Header,
    StatusMessage,
    TransactionStatus,
    build_statuses,
    read_message,
)
from payflow.services.partner_bank.rails.signing import BANK_HEADER, SIGNATURE_HEADER, sign_answer
from payflow_dev.other_bank.wire import Sender
from tests.builders import NOON, NORDBANK_BIC, OUR_BIC, new_id
from tests.builders_other_bank import ERIKA, JEAN, SECRET, Town, a_message, a_payment, post, words
from tests.support.api import eventually
from tests.support.serving import serving


async def test_an_accepted_payment_is_in_the_other_banks_books_to_the_cent(town: Town) -> None:
    before = await town.balance(JEAN)
    payment = a_payment(to_account=JEAN, agent="LUTEFRPPXXX", amount_minor=1050)

    answer = await town.submit(payment)

    (received,) = (await town.books(payment.end_to_end_id))["received"]
    assert answer == (BankStatus.ACCEPTED, None)
    assert (received["status"], received["amount"], received["currency"]) == ("ACCEPTED", "10.50", "EUR")
    assert received["debtor_name"] == "Ada Byron & Söhne <GmbH>"
    assert await town.balance(JEAN) == before + 1050


async def test_a_rejected_payment_moves_nothing_at_the_other_bank(town: Town) -> None:
    before = await town.balance(ERIKA)
    await town.control(mode="reject", reason_code="AC06")

    answer = await town.submit(a_payment())

    assert answer == (BankStatus.REJECTED, "AC06")
    assert await town.balance(ERIKA) == before


async def test_an_account_that_the_other_bank_does_not_have_is_refused_by_it(town: Town) -> None:
    answers = [
        await town.submit(a_payment(to_account="DE51990100100000001003")),
        await town.submit(a_payment(to_account=JEAN, agent=NORDBANK_BIC)),
    ]

    assert answers == [(BankStatus.REJECTED, "AC01")] * 2


async def test_an_answer_within_the_wait_is_waited_for(town: Town) -> None:
    await town.control(mode="delay", delay_ms=150)

    answer = await town.submit(a_payment())

    assert answer == (BankStatus.ACCEPTED, None)


@pytest.mark.parametrize(
    "told",
    [
        {"mode": "delay", "delay_ms": 5000},
        {"mode": "silent_before"},
        {"mode": "silent_after"},
        {"mode": "pending"},
        {"mode": "cut_off"},
        {"mode": "garbage"},
        {"mode": "forged"},
        {"mode": "error"},
    ],
    ids=lambda told: told["mode"],
)
async def test_without_a_clear_word_the_payment_is_unknown_until_the_bank_gives_one(
    town: Town, told: dict[str, Any]
) -> None:
    before = await town.balance(ERIKA)
    await town.control(answers_enquiries=False, **told)
    payment = a_payment()
    started = asyncio.get_running_loop().time()

    first = await town.submit(payment)
    waited_s = asyncio.get_running_loop().time() - started
    await town.control(mode="accept")
    answer = await town.told(payment.payment_id)

    (received,) = (await town.books(payment.end_to_end_id))["received"]
    assert first == (BankStatus.UNKNOWN, None)
    assert waited_s < 1.5
    assert answer == (True, None)
    assert received["status"] == "ACCEPTED"
    assert await town.balance(ERIKA) == before + payment.amount_minor
    assert await town.submit(payment) == (BankStatus.ACCEPTED, None)


async def test_a_late_refusal_reaches_confirm_too(town: Town) -> None:
    await town.control(mode="pending", answers_enquiries=False)
    payment = a_payment()
    await town.submit(payment)

    await town.control(mode="reject", reason_code="AC04")

    assert await town.told(payment.payment_id) == (False, "AC04")


async def test_a_forged_refusal_releases_nothing_while_the_bank_pays(town: Town) -> None:
    before = await town.balance(ERIKA)
    await town.control(mode="forged", answers_enquiries=False)
    payment = a_payment()

    answers = [await town.submit(payment), await town.submit(payment)]
    await asyncio.sleep(0.5)
    told = [answer for answer in town.confirm.told if answer.payment_id == payment.payment_id]
    await town.control(mode="accept")

    assert answers == [(BankStatus.UNKNOWN, None)] * 2
    assert told == []
    assert await town.told(payment.payment_id) == (True, None)
    assert await town.balance(ERIKA) == before + payment.amount_minor


@pytest.mark.parametrize(("secret", "believed"), [(SECRET, True), ("guess", False)])
async def test_the_other_bank_believes_only_our_signed_answer_too(town: Town, secret: str, believed: bool) -> None:
    message = read_message(
        a_message(end_to_end_id="E1", amount="1.00", to_account="ACC001", sender=NORDBANK_BIC, receiver=OUR_BIC)
    )
    assert isinstance(message, CreditTransferMessage)
    status = TransactionStatus("T1", None, "E1", None, "ACSC")
    answer = build_statuses(StatusMessage(Header("PF1", NOON, OUR_BIC, NORDBANK_BIC), [status]))

    async def partner(scope: Scope, receive: Receive, send: Send) -> None:
        asked = (header(scope, SIGNATURE_HEADER.encode()) or b"").decode()
        signature = sign_answer(answer, bank_bic=OUR_BIC, secret=secret, request_signature=asked)
        headers = [(BANK_HEADER.encode(), OUR_BIC.encode()), (SIGNATURE_HEADER.encode(), signature.encode())]
        await send_response(send, bytes_response(200, answer, content_type=b"application/xml", headers=headers))

    async with serving(partner, drain_s=0.1) as url:
        heard = await Sender(session=town.session, url=url, secret=SECRET).ask(message)

    assert (heard is not None and heard.status == "ACSC") is believed


async def test_a_silent_payment_does_not_silence_its_neighbours_in_the_message(town: Town) -> None:
    silent, answered = a_payment(), a_payment()
    await town.control(end_to_end_ids={silent.end_to_end_id: {"mode": "silent_before"}})

    answers = await town.partner_bank.submit([silent, answered])
    await town.control(mode="accept")

    assert [answer.status for answer in answers] == [BankStatus.UNKNOWN, BankStatus.ACCEPTED]
    assert await town.told(silent.payment_id) == (True, None)


async def test_a_bank_that_is_down_and_comes_back_gets_the_payment_once_and_kept_its_books(town: Town) -> None:
    known = a_payment()
    await town.submit(known)
    before = await town.balance(ERIKA)
    await town.stop("other_bank")
    payment = a_payment()

    first = await town.submit(payment)
    await town.start("other_bank")
    answer = await town.told(payment.payment_id)

    assert first == (BankStatus.UNKNOWN, None)
    assert answer == (True, None)
    assert (await town.books(known.end_to_end_id))["received"][0]["status"] == "ACCEPTED"
    assert await town.balance(ERIKA) == before + payment.amount_minor


async def test_partner_bank_itself_may_stop_between_sending_and_answer(town: Town) -> None:
    before = await town.balance(ERIKA)
    await town.control(mode="silent_after", answers_enquiries=False)
    payment = a_payment()
    await town.submit(payment)
    await town.stop("partner_bank")
    await town.control(mode="accept")

    await town.start("partner_bank")

    assert await town.told(payment.payment_id) == (True, None)
    assert await town.balance(ERIKA) == before + payment.amount_minor


async def test_three_hundred_payments_in_one_batch_are_each_booked_once(town: Town) -> None:
    before = await town.balance(ERIKA)
    payments = [a_payment(amount_minor=100 + index) for index in range(300)]

    async def are_accepted() -> bool:
        answers = await town.partner_bank.submit(payments)
        return all(not isinstance(one, PayflowError) and one.status is BankStatus.ACCEPTED for one in answers)

    # On a busy machine the bank may take longer than it is waited for: asked again, each is booked once all the same.

    await eventually(are_accepted, seconds=20, pause_s=1)
    assert await town.balance(ERIKA) == before + sum(payment.amount_minor for payment in payments)


async def test_the_other_bank_takes_the_same_message_twice_for_one_payment(town: Town) -> None:
    before = await town.balance(ERIKA)
    arguments = {"to_account": ERIKA, "sender": OUR_BIC, "receiver": NORDBANK_BIC}
    body = a_message(end_to_end_id=new_id().hex, amount="3.00", **arguments)
    changed = body.replace(b">3.00<", b">4.00<")

    answers = [
        await post(town, f"{town.url('other_bank')}/iso20022", one, signed_by=OUR_BIC) for one in (body, body, changed)
    ]

    assert [words(answer) for _, answer in answers] == [[("ACSC", None)], [("ACSC", None)], [("RJCT", "AM05")]]
    assert await town.balance(ERIKA) == before + 300


async def test_the_control_address_refuses_what_it_does_not_know(town: Town) -> None:
    url = f"{town.url('other_bank')}/control"

    statuses = []
    for body in ({"mode": "sulk"}, {"mode": "accept", "moods": 1}, {"mode": "delay", "delay_ms": -1}):
        async with town.session.put(url, json=body) as response:
            statuses.append(response.status)
    async with town.session.get(url) as response:
        control = await response.json()

    assert statuses == [400, 400, 400]
    assert control["mode"] == "accept"


async def test_both_processes_are_healthy(town: Town) -> None:
    for name in ("partner_bank", "other_bank"):
        async with town.session.get(f"{town.url(name)}/health") as response:
            health = await response.json()

        assert (response.status, health["status"], health["dependencies"]) == (200, "healthy", {"postgres": "healthy"})
