"""Transfers decided on balances that a process knows from before: right whatever others have done meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any

import pytest

from payflow.contracts.account import (
    Account,
    AccountBlocked,
    AccountState,
    Booked,
    ChangeAccountState,
    InsufficientFunds,
    PaymentEnded,
    PlaceHold,
    Released,
    ReleaseHold,
    VerifyLedger,
)
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.account.store import PostgresStore
from tests.builders import a_hold, a_transfer, new_id
from tests.builders_account import World
from tests.fakes import FakeAccountStore


class Processes(World):
    """Two account processes on one database, with two accounts of 100.00 each that the first process knows."""

    def __init__(self, stores: tuple[Any, Any]) -> None:
        super().__init__(stores[0])
        banks = ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS)))
        other = AccountApi(store=stores[1], banks=banks, clock=self.clock, ids=UuidV7())
        self.other: Account = in_process(Account, other, caller="confirm")
        self.other_operator: Account = in_process(Account, other, caller="gateway")

    async def begin(self) -> None:
        self.first, self.second = await self.account(10_000), await self.account(10_000)
        self.debtor, self.creditor = await self.id_of(self.first), await self.id_of(self.second)
        (booked,) = await self.confirm.transfer([self.pay(100)])
        assert isinstance(booked, Booked)

    def pay(self, amount_minor: int, **changes: Any) -> Any:
        return a_transfer(self.debtor, self.creditor, amount_minor, **changes)

    async def is_whole(self) -> bool:
        (verified,) = await self.cli.verify_ledger([VerifyLedger()])
        return not verified.broken


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> Processes:
    if request.param == "memory":
        store = FakeAccountStore()
        processes = Processes((store, store))
    else:
        databases = [await connect_as("account"), await connect_as("account")]
        first, second = (
            PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
            for database in databases
        )
        processes = Processes((first, second))
    await processes.begin()
    return processes


async def test_what_another_process_has_spent_cannot_be_spent_again(world: Processes) -> None:
    await world.other.transfer([world.pay(9_000)])

    (refused,) = await world.confirm.transfer([world.pay(9_000)])
    (booked,) = await world.confirm.transfer([world.pay(900)])

    assert isinstance(refused, InsufficientFunds)
    assert isinstance(booked, Booked)
    assert await world.balance(world.first) == (0, 0)
    assert await world.is_whole()


async def test_what_another_process_holds_cannot_be_spent(world: Processes) -> None:
    hold = PlaceHold(payment_id=new_id(), fencing_token=1, account_id=world.debtor, amount_minor=9_000, currency="USD")
    await world.other.place_hold([hold])

    (refused,) = await world.confirm.transfer([world.pay(9_000)])

    assert isinstance(refused, InsufficientFunds)
    assert await world.balance(world.first) == (9_900, 9_000)


async def test_a_payment_that_another_process_has_ended_unpaid_is_not_booked(world: Processes) -> None:
    late = world.pay(100)
    end = ReleaseHold(payment_id=late.payment_id, fencing_token=2, reason="expired", account_id=world.debtor)
    (ended,) = await world.other.release_hold([end])

    (answer,) = await world.confirm.transfer([late])

    assert isinstance(ended, Released)
    assert isinstance(answer, PaymentEnded)
    assert await world.balance(world.first) == (9_900, 0)


async def test_a_payment_that_another_process_has_refused_stays_refused_although_money_came_in(
    world: Processes,
) -> None:
    payment = world.pay(50_000)
    await world.other.transfer([payment])
    back = a_transfer(world.creditor, world.debtor, 10_000)
    await world.confirm.transfer([back])

    (again,) = await world.confirm.transfer([payment])

    assert isinstance(again, InsufficientFunds)


async def test_an_account_that_was_blocked_meanwhile_pays_nothing(world: Processes) -> None:
    command = ChangeAccountState(number=world.first.number, state=AccountState.BLOCKED, reason="court", changed_by="op")
    await world.other_operator.change_account_state([command])

    (answer,) = await world.confirm.transfer([world.pay(100)])

    assert isinstance(answer, AccountBlocked)


async def test_a_repeat_gets_the_first_answer_from_either_process(world: Processes) -> None:
    payment = world.pay(100)

    answers = [
        answer
        for process in (world.confirm, world.other, world.confirm)
        for answer in await process.transfer([payment])
    ]

    assert answers[0] == answers[1] == answers[2]
    assert await world.balance(world.first) == (9_800, 0)


async def test_two_processes_that_pay_from_one_account_at_once_spend_what_is_there_and_no_more(
    world: Processes,
) -> None:
    calls = [process.transfer([world.pay(1_000)]) for process in (world.confirm, world.other) for _ in range(10)]

    answers = [answer for answers in await asyncio.gather(*calls) for answer in answers]

    assert sum(isinstance(answer, Booked) for answer in answers) == 9
    assert sum(isinstance(answer, InsufficientFunds) for answer in answers) == 11
    assert await world.balance(world.first) == (900, 0)
    assert await world.is_whole()


async def test_a_transfer_that_waited_for_the_end_of_its_payment_is_refused(
    connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> None:
    databases = [await connect_as("account"), await connect_as("account")]
    stores = [
        PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7()) for database in databases
    ]
    world = Processes((stores[0], stores[1]))
    await world.begin()
    late = world.pay(100)

    async with databases[1].transaction() as connection:
        # What release_hold does, stopped in the middle: the account is locked and the refusal written, not yet seen.
        await connection.execute("UPDATE account_balance SET version = version + 1 WHERE account_id = $1", world.debtor)
        await connection.execute(
            "INSERT INTO refused_command (payment_id, step, code, detail, fencing_token, refused_at) "
            "VALUES ($1, 'book', 'PAYMENT_ENDED', 'ended', 2, now())",
            late.payment_id,
        )
        waiting = asyncio.create_task(world.confirm.transfer([late]), context=Context())
        await asyncio.sleep(0.2)
        assert not waiting.done()
    (answer,) = await waiting

    assert isinstance(answer, PaymentEnded)
    assert await world.balance(world.first) == (9_900, 0)


async def test_holds_and_transfers_of_one_account_take_turns(world: Processes) -> None:
    hold = a_hold(world.debtor, 100)
    await world.confirm.place_hold([hold])

    (first,) = await world.confirm.transfer([world.pay(100)])
    (second,) = await world.confirm.transfer([world.pay(100)])

    assert isinstance(first, Booked)
    assert isinstance(second, Booked)
    assert await world.balance(world.first) == (9_700, 100)
    assert await world.is_whole()
