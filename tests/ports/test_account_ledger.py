"""Money in the account service: transfers, holds, and what comes in; over both stores, through the contract."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from payflow.contracts.account import (
    Booked,
    CaptureHold,
    HoldPlaced,
    InsufficientFunds,
    Released,
    ReleaseHold,
    VerifyLedger,
)
from payflow.platform.crypto import ColumnCipher
from payflow.services.account.usecases import ledger
from tests.builders import NOON, a_hold, a_transfer
from tests.builders_account import World, in_memory, on_postgres
from tests.conftest import ConnectAs


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs, cipher: ColumnCipher) -> World:
    return in_memory() if request.param == "memory" else await on_postgres(connect_as, cipher)


async def test_a_transfer_moves_the_money_once_however_often_it_is_sent(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    command = a_transfer(await world.id_of(debtor), await world.id_of(creditor), 400)

    answers = [*await world.confirm.transfer([command, command]), *await world.confirm.transfer([command])]

    assert len({answer.entry_id for answer in answers if isinstance(answer, Booked)}) == 1
    assert (await world.balance(debtor), await world.balance(creditor)) == ((600, 0), (400, 0))


async def test_of_many_payments_of_the_whole_balance_exactly_one_succeeds(world: World) -> None:
    debtor, creditor = await world.account(1_000), await world.account()
    debtor_id, creditor_id = await world.id_of(debtor), await world.id_of(creditor)

    answers = await asyncio.gather(
        *(world.confirm.transfer([a_transfer(debtor_id, creditor_id, 1_000)]) for _ in range(20))
    )

    assert sum(isinstance(answer, Booked) for (answer,) in answers) == 1
    assert sum(isinstance(answer, InsufficientFunds) for (answer,) in answers) == 19
    assert await world.balance(creditor) == (1_000, 0)


async def test_crossing_transfers_all_finish(world: World) -> None:
    one, two = await world.account(10_000), await world.account(10_000)
    one_id, two_id = await world.id_of(one), await world.id_of(two)

    answers = await asyncio.gather(
        *(world.confirm.transfer([a_transfer(one_id, two_id, 10), a_transfer(two_id, one_id, 10)]) for _ in range(20))
    )

    assert all(isinstance(answer, Booked) for pair in answers for answer in pair)
    assert (await world.balance(one), await world.balance(two)) == ((10_000, 0), (10_000, 0))


async def test_a_refusal_is_remembered_although_money_has_come_in(world: World) -> None:
    debtor, creditor = await world.account(100), await world.account(1_000)
    debtor_id, creditor_id = await world.id_of(debtor), await world.id_of(creditor)
    command = a_transfer(debtor_id, creditor_id, 400)
    (first,) = await world.confirm.transfer([command])
    await world.confirm.transfer([a_transfer(creditor_id, debtor_id, 1_000)])

    (second,) = await world.confirm.transfer([command])

    assert isinstance(first, InsufficientFunds)
    assert first == second


async def test_a_hold_is_captured_to_the_other_banks_nostro_account(world: World) -> None:
    debtor = await world.account(1_000)
    hold = a_hold(await world.id_of(debtor), 300)
    (placed,) = await world.confirm.place_hold([hold])
    held = await world.balance(debtor)

    (booked,) = await world.confirm.capture_hold(
        [CaptureHold(payment_id=hold.payment_id, fencing_token=1, agent_bic="NORDDEFFXXX")]
    )

    assert isinstance(placed, HoldPlaced)
    assert isinstance(booked, Booked)
    assert (held, await world.balance(debtor)) == ((1_000, 300), (700, 0))


async def test_a_released_hold_gives_the_money_back_and_cannot_be_placed_again(world: World) -> None:
    debtor = await world.account(1_000)
    hold = a_hold(await world.id_of(debtor), 300)
    await world.confirm.place_hold([hold])

    release = ReleaseHold(payment_id=hold.payment_id, fencing_token=1, reason="cancelled")
    answers = [*await world.confirm.release_hold([release]), *await world.confirm.release_hold([release])]
    (again,) = await world.confirm.place_hold([hold])

    assert all(isinstance(answer, Released) for answer in answers)
    assert not isinstance(again, HoldPlaced)
    assert await world.balance(debtor) == (1_000, 0)


async def test_expired_holds_are_released(world: World) -> None:
    debtor = await world.account(1_000)
    account_id = await world.id_of(debtor)
    await world.confirm.place_hold([a_hold(account_id, 300, expires_in=timedelta(minutes=1)), a_hold(account_id, 200)])

    released = await ledger.expire_holds(store=world.store, now=NOON + timedelta(minutes=2))

    assert released == 1
    assert await world.balance(debtor) == (1_000, 200)


async def test_ending_a_payment_and_holding_its_funds_at_once_leaves_nothing_held(world: World) -> None:
    debtor = await world.account(100_000)
    account_id = await world.id_of(debtor)
    holds = [a_hold(account_id, 10) for _ in range(20)]

    await asyncio.gather(
        *(world.confirm.place_hold([hold]) for hold in holds),
        *(
            world.confirm.release_hold(
                [ReleaseHold(payment_id=hold.payment_id, fencing_token=1, reason="x", account_id=account_id)]
            )
            for hold in holds
        ),
    )

    assert await world.balance(debtor) == (100_000, 0)


async def test_the_services_role_cannot_change_or_delete_the_journal(
    connect_as: ConnectAs,
) -> None:
    database = await connect_as("account")

    for statement in (
        "UPDATE posting SET amount_minor = 1",
        "DELETE FROM posting",
        "UPDATE journal_entry SET kind = 'x'",
        "DELETE FROM journal_entry",
        "TRUNCATE posting",
        "DELETE FROM fund_reservations",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.execute(statement)


async def test_ledger_verification_finds_a_changed_balance(
    connect_as: ConnectAs, cipher: ColumnCipher, database_url: str
) -> None:
    world = await on_postgres(connect_as, cipher)
    account = await world.account(1_000)
    (whole,) = await world.cli.verify_ledger([VerifyLedger()])

    owner = await asyncpg.connect(database_url)
    change = "UPDATE account.account_balance SET posted_minor = posted_minor + $2 WHERE account_id = $1"
    await owner.execute(change, await world.id_of(account), 1)
    (broken,) = await world.cli.verify_ledger([VerifyLedger()])
    await owner.execute(change, await world.id_of(account), -1)
    await owner.close()

    assert whole.broken == []
    assert any(account.number in line for line in broken.broken)
    assert any("all accounts in USD" in line for line in broken.broken)
