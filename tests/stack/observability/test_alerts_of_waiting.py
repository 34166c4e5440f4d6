"""What raises an alert is made to happen, and somebody is told (see tests.support.watched): what waits for too long.

It really waits; only since when is moved into the past by hand, as the database's owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.stack.data.world import world_of
from tests.support.api import Client, Customer, eventually, new_key
from tests.support.files import ended, lines_of, upload
from tests.support.watched import Owner, World, a_payer, an_owner, kept_down, never_verified, verified_long_ago

pytestmark = pytest.mark.timeout(240)
LISTED = "Rafael Caro Quintero"


async def asked_back(operator: Client, payer: Customer, payee: Customer) -> str:
    """The return of a payment that is too large for one person to return: it waits for a second one."""
    paid = await payer.pay(payee.account, "4000.00")
    payment = await payer.payment(paid.json["transaction_id"])
    path = f"/operator/payments/{payment['payment_id']}/returns"
    answer = await operator.post(path, {"reason_code": "AM05"}, headers={"Idempotency-Key": new_key()})
    assert (answer.status, answer.json["state"]) == (201, "AWAITING_APPROVAL"), answer
    return str(answer.json["return_id"])


async def has_waited(owner: Owner, table: str, state: str, interval: str) -> None:
    """The one that is in this state has been so for longer now."""
    done = await owner.execute(
        f"UPDATE confirm.{table} SET updated_at = updated_at - '{interval}'::interval WHERE state = $1",
        state,
    )
    assert done == "UPDATE 1"


async def test_a_review_and_a_return_that_nobody_has_decided_for_a_day_are_tickets(world: World) -> None:
    async with world_of(world.system) as bank, an_owner(world.system) as owner:
        payer, payee = await bank.make.customer(USD="9000.00"), await bank.make.customer()
        suspect = await bank.make.customer(name=LISTED, country="MX")
        operator, admin = [await bank.sign_in_operator(name) for name in ("operator", "admin")]
        held = suspect.body(payee.account, "1.00")
        assert (await suspect.client.confirm(held, key=new_key())).status == 202
        return_id = await asked_back(operator, payer, payee)

        await has_waited(owner, "transactions", "UNDER_REVIEW", "25 hours")
        await has_waited(owner, "payment_return", "AWAITING_APPROVAL", "25 hours")
        review = await asyncio.to_thread(world.told, "ReviewsWait")
        wanted = await asyncio.to_thread(world.told, "ReturnsWait", state="AWAITING_APPROVAL")

        assert (await suspect.client.post(f"/payments/{held['transaction_id']}/cancel")).status == 200
        assert (await admin.post(f"/returns/{return_id}/decline")).status == 200
        reviewed = await asyncio.to_thread(world.told, "ReviewsWait", "resolved")
        decided = await asyncio.to_thread(world.told, "ReturnsWait", "resolved", state="AWAITING_APPROVAL")

    assert {one.to for one in (review, wanted, reviewed, decided)} == {"tickets"}


async def test_a_payment_not_made_on_its_day_pages_somebody_and_one_that_does_not_expire_is_a_ticket(
    world: World,
) -> None:
    async with world_of(world.system) as bank, an_owner(world.system) as owner:
        payer, payee = await bank.make.customer(USD="20000.00"), await bank.make.customer()
        day = datetime.now(UTC) + timedelta(seconds=3)
        ordered = payer.body(payee.account, "1.00", execute_at=day.isoformat())
        coded = payer.body(payee.account, "15000.00")
        assert (await payer.client.confirm(ordered, key=new_key())).status == 202
        assert (await payer.client.confirm(coded, key=new_key())).json["status"] == "OTP_REQUIRED"

        # On its day it is assessed again.
        async with kept_down(world.system, "risk"):
            await owner.execute(
                "UPDATE confirm.transactions SET updated_at = updated_at - '11 minutes'::interval, "
                "execute_at = execute_at - '11 minutes'::interval WHERE state = 'SCHEDULED'"
            )
            await has_waited(owner, "transactions", "AWAITING_OTP", "61 minutes")
            not_made = await asyncio.to_thread(world.told, "ScheduledPaymentsNotMade", state="SCHEDULED")
            not_expired = await asyncio.to_thread(world.told, "PaymentsNotExpired", state="AWAITING_OTP")
        assert (await payer.client.post(f"/payments/{coded['transaction_id']}/cancel")).status == 200
        made = await asyncio.to_thread(world.told, "ScheduledPaymentsNotMade", "resolved", state="SCHEDULED")
        ended = await asyncio.to_thread(world.told, "PaymentsNotExpired", "resolved", state="AWAITING_OTP")

        async def is_paid() -> bool:
            return str((await payer.payment(ordered["transaction_id"]))["status"]) == "SUCCESS"

        await eventually(is_paid, seconds=60, pause_s=0.5)
    assert (not_made.to, made.to) == ("pages", "pages")
    assert (not_expired.to, ended.to) == ("tickets", "tickets")


async def test_a_return_that_is_not_made_is_a_ticket_and_a_file_that_is_not_paid_pages_somebody(world: World) -> None:
    async with world_of(world.system) as bank, an_owner(world.system) as owner:
        payer, payee = await bank.make.customer(USD="9000.00"), await bank.make.customer()
        operator, admin = [await bank.sign_in_operator(name) for name in ("operator", "admin")]
        return_id = await asked_back(operator, payer, payee)
        file = lines_of([payer.body(payee.account, "1.00") for _ in range(3)])

        # Neither is possible without the ledger.
        async with kept_down(world.system, "account"):
            approved = await admin.post(f"/returns/{return_id}/approve")
            accepted = await upload(payer, file, key=new_key())
            await has_waited(owner, "payment_return", "APPROVED", "3 minutes")
            await has_waited(owner, "bulk_order", "PROCESSING", "11 minutes")
            not_made = await asyncio.to_thread(world.told, "ReturnsNotMade", state="APPROVED")
            not_paid = await asyncio.to_thread(world.told, "BulkOrdersNotDrivenOn", state="PROCESSING")
        made = await asyncio.to_thread(world.told, "ReturnsNotMade", "resolved", state="APPROVED")
        paid = await asyncio.to_thread(world.told, "BulkOrdersNotDrivenOn", "resolved", state="PROCESSING")

        done = await ended(payer, accepted.json["bulk_id"])
        returned = await operator.get(f"/returns/{return_id}")

    assert (approved.json["state"], accepted.status) == ("APPROVED", 202)
    assert (not_made.to, made.to) == ("tickets", "tickets")
    assert (not_paid.to, paid.to) == ("pages", "pages")
    assert (done["counts"], returned.json["state"]) == ({"SUCCESS": 3}, "COMPLETED")


async def incoming_rests(owner: Owner, state: str, interval: str) -> None:
    """The incoming payment that is in this state has been so for longer now."""
    done = await owner.execute(
        f"UPDATE partner_bank.instruction SET updated_at = updated_at - '{interval}'::interval WHERE status = $1", state
    )
    assert done == "UPDATE 1"


async def test_money_from_another_bank_that_rests_too_long_is_a_ticket(world: World) -> None:
    async with world_of(world.system) as bank, an_owner(world.system) as owner:
        payee = await bank.make.customer(EUR="1.00")
        officer = await bank.sign_in_operator("compliance")

        async with kept_down(world.system, "account"):
            await bank.other_bank.pay(payee.account, "1.00", "EUR")
            await incoming_rests(owner, "PENDING", "10 minutes")
            pending = await asyncio.to_thread(world.told, "IncomingNotSettled", state="PENDING")
        settled = await asyncio.to_thread(world.told, "IncomingNotSettled", "resolved", state="PENDING")

        assert (await bank.other_bank.pay(payee.account, "1.00", "EUR", debtor_name=LISTED)).status == 200
        await incoming_rests(owner, "HELD_IN_SUSPENSE", "25 hours")
        waits = await asyncio.to_thread(world.told, "IncomingReviewsWait")
        review_id = await owner.fetchval("SELECT review_id FROM ofac.review_case WHERE customer_id LIKE 'bank:%'")
        decision = {"decision": "clear", "comment": "not the listed one"}
        assert (await officer.post(f"/reviews/{review_id}/decision", decision)).status == 200
        decided = await asyncio.to_thread(world.told, "IncomingReviewsWait", "resolved")

    assert {one.to for one in (pending, settled, waits, decided)} == {"tickets"}


async def test_money_that_was_decided_about_and_does_not_move_is_a_ticket(world: World) -> None:
    async with world_of(world.system) as bank, an_owner(world.system) as owner:
        payee = await bank.make.customer(EUR="1.00")
        officer = await bank.sign_in_operator("compliance")
        assert (await bank.other_bank.pay(payee.account, "1.00", "EUR", debtor_name=LISTED)).status == 200
        review_id = await owner.fetchval(
            "SELECT review_id FROM ofac.review_case WHERE customer_id LIKE 'bank:%' AND state = 'OPEN'"
        )
        async with kept_down(world.system, "account"):
            decision = {"decision": "clear", "comment": "not the listed one"}
            assert (await officer.post(f"/reviews/{review_id}/decision", decision)).status == 200
            # A decision is final: only whoever owns the table can make it an old one.
            await owner.execute(
                "ALTER TABLE ofac.review_case DISABLE TRIGGER USER; UPDATE ofac.review_case SET opened_at = now() - "
                "interval '1 hour', decided_at = now() - interval '10 minutes' WHERE state <> 'OPEN'; "
                "ALTER TABLE ofac.review_case ENABLE TRIGGER USER"
            )
            waits = await asyncio.to_thread(world.told, "IncomingDecidedNotMoved")
        moved = await asyncio.to_thread(world.told, "IncomingDecidedNotMoved", "resolved")

    assert {waits.to, moved.to} == {"tickets"}


@pytest.mark.parametrize("as_it_was", [verified_long_ago, never_verified], ids=lambda function: function.__name__)
async def test_a_ledger_that_cannot_be_verified_is_a_ticket(
    world: World, as_it_was: Callable[[Owner], Awaitable[None]]
) -> None:
    async with a_payer(world.system), an_owner(world.system) as owner:
        # A month by itself is read by the verification alone.
        month = await owner.fetchval("SELECT tableoid::regclass::text FROM account.posting LIMIT 1")
        await owner.execute(f"REVOKE SELECT ON {month} FROM payflow_account")
        try:
            await as_it_was(owner)
            assert world.system.run("restart", "account").returncode == 0
            told = await asyncio.to_thread(world.told, "LedgerNotVerified")
        finally:
            await owner.execute(f"GRANT SELECT ON {month} TO payflow_account")
        # At its start it is verified at once; a process that has not told yet ends the alert, too.
        assert world.system.run("restart", "account").returncode == 0
        await asyncio.to_thread(world.prometheus.wait_until, "time() - max(payflow_ledger_verified_at) < 3600")
        back = await asyncio.to_thread(world.told, "LedgerNotVerified", "resolved")

    assert (told.to, back.to) == ("tickets", "tickets")


async def test_a_posting_of_a_month_that_is_far_ahead_is_a_ticket(world: World) -> None:
    async with a_payer(world.system) as (payer, payee), an_owner(world.system) as owner:
        await payer.has_paid(payee.account, "1.00")
        # As a clock that is a year ahead leaves it.
        entry_id = await owner.fetchval(
            "UPDATE account.posting SET booked_at = booked_at + interval '1 year' WHERE (account_id, booked_at) IN "
            "(SELECT account_id, booked_at FROM account.posting ORDER BY booked_at DESC LIMIT 1) RETURNING entry_id"
        )
        try:
            # It is looked for at the start, and every six hours.
            assert world.system.run("restart", "account").returncode == 0
            told = await asyncio.to_thread(world.told, "LedgerRowsStray")
        finally:
            await owner.execute(
                "UPDATE account.posting SET booked_at = booked_at - interval '1 year' "
                "WHERE entry_id = $1 AND booked_at > now() + interval '300 days'",
                entry_id,
            )
        assert world.system.run("restart", "account").returncode == 0
        back = await asyncio.to_thread(world.told, "LedgerRowsStray", "resolved")

    assert (told.to, back.to) == ("tickets", "tickets")
    assert world.system.run("ledger", "verify").returncode == 0
