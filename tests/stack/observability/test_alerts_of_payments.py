"""What raises an alert is made to happen, and somebody is told (see tests.support.watched): payments, money, events."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.other_bank import NORDBANK
from tests.support.watched import World, a_payer, an_owner, kept_down, paying_on, verified_long_ago

pytestmark = pytest.mark.timeout(240)


async def test_payments_that_cannot_be_made_page_somebody_and_so_does_the_breaker_before_the_dead_service(
    world: World,
) -> None:
    async with a_payer(world.system) as (payer, payee), paying_on(payer, payee):
        async with kept_down(world.system, "confirm"):
            burning = await asyncio.to_thread(world.told, "PaymentErrorsBurn")
            slowly = await asyncio.to_thread(world.told, "PaymentErrorsBurnSlowly")
            open_ = await asyncio.to_thread(world.told, "BreakerOpen", callee="confirm")
        # It is closed by a request that is answered: somebody has to go on asking.
        closed = await asyncio.to_thread(world.told, "BreakerOpen", "resolved", callee="confirm")

    assert (burning.to, slowly.to) == ("pages", "tickets")
    assert (open_.to, closed.to) == ("pages", "pages")
    assert open_.labels["process"].startswith("gateway-")


async def test_a_payment_that_nobody_drives_on_pages_somebody(world: World) -> None:
    async with a_payer(world.system) as (payer, payee), an_owner(world.system) as owner:
        transaction_id = await payer.has_paid(payee.account, "1.00")
        # By hand, since no fault of a process leaves one behind: its end is forgotten, and nobody is to look soon.
        forgotten = await owner.execute(
            "UPDATE confirm.transactions SET state = 'HELD', completed_at = NULL, "
            "updated_at = now() - interval '2 minutes', "
            "due_at = now() + interval '5 hours', wake_at = now() + interval '5 hours' WHERE transaction_id = $1",
            transaction_id,
        )
        told = await asyncio.to_thread(world.told, "PaymentsNotDrivenOn", state="HELD")
        await owner.execute(
            "UPDATE confirm.transactions SET state = 'COMPLETED', completed_at = now(), updated_at = now(), "
            "due_at = NULL, wake_at = NULL WHERE transaction_id = $1",
            transaction_id,
        )
    back = await asyncio.to_thread(world.told, "PaymentsNotDrivenOn", "resolved", state="HELD")

    assert forgotten == "UPDATE 1"
    assert (told.to, back.to) == ("pages", "pages")


async def test_a_payment_that_the_other_bank_is_silent_about_is_a_ticket(world: World) -> None:
    async with (
        a_payer(world.system) as (payer, _),
        an_owner(world.system) as owner,
        kept_down(world.system, "partner-bank"),
    ):
        transaction_id = await payer.has_paid(NORDBANK, "1.00")
        await owner.execute(
            "UPDATE confirm.transactions SET updated_at = now() - interval '2 hours' "
            "WHERE transaction_id = $1 AND state = 'SUBMITTED'",
            transaction_id,
        )
        told = await asyncio.to_thread(world.told, "BankDoesNotAnswer")
    back = await asyncio.to_thread(world.told, "BankDoesNotAnswer", "resolved")

    assert (told.to, back.to) == ("tickets", "tickets")


async def test_money_that_came_from_nowhere_pages_somebody(world: World) -> None:
    async with a_payer(world.system), an_owner(world.system) as owner:
        account = await owner.fetchval(
            "UPDATE account.account_balance SET posted_minor = posted_minor + 1 WHERE account_id = "
            "(SELECT account_id FROM account.account_balance WHERE NOT is_internal LIMIT 1) RETURNING account_id"
        )
        await verified_long_ago(owner)
        assert world.system.run("restart", "account").returncode == 0
        told = await asyncio.to_thread(world.told, "LedgerBroken")
        await owner.execute(
            "UPDATE account.account_balance SET posted_minor = posted_minor - 1 WHERE account_id = $1", account
        )

    assert told.to == "pages"
    assert world.system.run("ledger", "verify").returncode == 0


async def test_a_consumer_that_cannot_write_pages_somebody_and_one_far_behind_is_a_ticket(world: World) -> None:
    async with a_payer(world.system) as (payer, payee), an_owner(world.system) as owner:
        await owner.execute("REVOKE INSERT ON audit.audit_logs FROM payflow_audit")
        try:
            await payer.has_paid(payee.account, "1.00")
            await owner.execute(
                "UPDATE event_log.batch SET created_at = now() - interval '10 minutes' WHERE coalesce(position > "
                "(SELECT position FROM event_log.consumer WHERE name = 'audit'), true)"
            )
            behind = await asyncio.to_thread(world.told, "ConsumerBehind", consumer="audit")
            waits = await asyncio.to_thread(world.told, "ConsumerWaits", consumer="audit")
        finally:
            await owner.execute("GRANT INSERT ON audit.audit_logs TO payflow_audit")
    caught_up = await asyncio.to_thread(world.told, "ConsumerBehind", "resolved", consumer="audit")

    assert (behind.to, waits.to, caught_up.to) == ("tickets", "pages", "tickets")
    assert world.system.run("audit", "verify").returncode == 0
