"""Money from other banks in the account service, over both stores, through the contract."""

from __future__ import annotations

import asyncio
from uuid import UUID

import msgspec
import pytest

from payflow.contracts.account import (
    AccountBlocked,
    AccountNotFound,
    AccountState,
    AlreadyBooked,
    Booked,
    ChangeAccountState,
    CreditFromSuspense,
    CreditIncoming,
    NewAccount,
    ReturnFromSuspense,
    StaleCommand,
    VerifyLedger,
)
from payflow.contracts.incoming import suspense_exit_id
from payflow.platform.crypto import ColumnCipher
from tests.builders import NORDBANK_BIC as NORDBANK
from tests.builders import new_id
from tests.builders_account import World, in_memory, on_postgres
from tests.conftest import ConnectAs


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: ConnectAs, cipher: ColumnCipher) -> World:
    return in_memory() if request.param == "memory" else await on_postgres(connect_as, cipher)


def a_credit(
    to_account: str, *, payment_id: UUID | None = None, token: int = 1, to_suspense: bool = False
) -> CreditIncoming:
    return CreditIncoming(
        payment_id=payment_id or new_id(),
        fencing_token=token,
        creditor_account=to_account,
        amount_minor=700,
        currency="USD",
        agent_bic=NORDBANK,
        to_suspense=to_suspense,
    )


async def change_state(world: World, number: str, state: AccountState) -> None:
    change = ChangeAccountState(number=number, state=state, reason="test", changed_by="op")
    await world.operator.change_account_state([change])


async def test_incoming_money_is_credited_once(world: World) -> None:
    creditor = await world.account()
    command = a_credit(creditor.number)

    answers = [*await world.bank.credit_incoming([command]), *await world.bank.credit_incoming([command])]

    assert answers[0] == answers[1]
    assert isinstance(answers[0], Booked)
    assert answers[0].customer_id == creditor.customer_id
    assert await world.balance(creditor) == (700, 0)


async def test_incoming_money_for_nobody_is_refused_and_can_be_parked_in_suspense(world: World) -> None:
    (refused,) = await world.bank.credit_incoming([a_credit("NOBODY")])
    (booked,) = await world.bank.credit_incoming([a_credit("NOBODY", to_suspense=True)])

    assert isinstance(refused, AccountNotFound)
    assert isinstance(booked, Booked)
    assert booked.customer_id is None


async def test_a_refused_credit_stays_refused_whatever_becomes_of_the_account(world: World) -> None:
    blocked, unknown = await world.account(), f"ACC{new_id().hex[-12:].upper()}"
    commands = [a_credit(blocked.number, token=2), a_credit(unknown, token=2)]
    await change_state(world, blocked.number, AccountState.BLOCKED_CREDIT)
    first = await world.bank.credit_incoming(commands)
    await change_state(world, blocked.number, AccountState.OPEN)
    customer_id = await world.customer()
    await world.operator.create_accounts([NewAccount(number=unknown, customer_id=customer_id, currency="USD")])

    late = await world.bank.credit_incoming([msgspec.structs.replace(one, fencing_token=1) for one in commands])
    later = await world.bank.credit_incoming([msgspec.structs.replace(one, fencing_token=3) for one in commands])

    for answers in (first, late, later):
        assert [type(answer) for answer in answers] == [AccountBlocked, AccountNotFound]
    assert await world.balance(blocked) == (0, 0)


async def test_of_a_refusal_and_a_credit_at_once_all_hear_the_first(world: World) -> None:
    creditor = await world.account()
    commands = [a_credit(creditor.number, token=token) for token in range(1, 9)]
    commands = [msgspec.structs.replace(one, payment_id=commands[0].payment_id) for one in commands]

    _, *answers = await asyncio.gather(
        change_state(world, creditor.number, AccountState.BLOCKED),
        *(world.bank.credit_incoming([command]) for command in commands),
    )

    told = {Booked if isinstance(answer, Booked) else AccountBlocked for (answer,) in answers}
    assert len(told) == 1
    assert (await world.balance(creditor))[0] == (700 if told == {Booked} else 0)


async def test_a_late_command_of_an_overtaken_process_moves_nothing(world: World) -> None:
    creditor = await world.account()
    held = a_credit(creditor.number, token=2, to_suspense=True)
    await world.bank.credit_incoming([held])

    (repeat,) = await world.bank.credit_incoming([a_credit(creditor.number, payment_id=held.payment_id, token=1)])

    assert isinstance(repeat, Booked)
    assert await world.balance(creditor) == (0, 0)


def a_clearing(held: CreditIncoming, *, token: int = 2) -> CreditFromSuspense:
    return CreditFromSuspense(
        payment_id=held.payment_id,
        fencing_token=token,
        creditor_account=held.creditor_account,
        amount_minor=held.amount_minor,
        currency=held.currency,
    )


def a_return(held: CreditIncoming, *, token: int = 2) -> ReturnFromSuspense:
    return ReturnFromSuspense(
        payment_id=held.payment_id,
        fencing_token=token,
        agent_bic=held.agent_bic,
        amount_minor=held.amount_minor,
        currency=held.currency,
    )


async def in_suspense(world: World, to_account: str) -> CreditIncoming:
    held = a_credit(to_account, to_suspense=True)
    (booked,) = await world.bank.credit_incoming([held])
    assert isinstance(booked, Booked)
    return held


async def internal_balances(world: World) -> dict[str, int]:
    suspense = await world.store.internal_account(kind="suspense", currency="USD")
    nostro = await world.store.internal_account(kind="nostro", currency="USD", agent_bic=NORDBANK)
    balances = await world.store.balances([suspense, nostro])
    return {"suspense": balances[suspense].posted_minor, "nostro": balances[nostro].posted_minor}


async def test_cleared_money_goes_from_suspense_to_its_creditor_once(world: World) -> None:
    creditor, before = await world.account(), await internal_balances(world)
    held = await in_suspense(world, creditor.number)

    answers = [answer for _ in range(2) for answer in await world.bank.credit_from_suspense([a_clearing(held)])]

    assert answers[0] == answers[1]
    assert isinstance(answers[0], Booked)
    assert answers[0].customer_id == creditor.customer_id
    assert await world.balance(creditor) == (700, 0)
    assert await internal_balances(world) == {"suspense": before["suspense"], "nostro": before["nostro"] - 700}


async def test_blocked_money_goes_from_suspense_back_to_its_bank_once(world: World) -> None:
    before = await internal_balances(world)
    held = await in_suspense(world, "NOBODY")

    answers = [answer for _ in range(2) for answer in await world.bank.return_from_suspense([a_return(held)])]

    assert answers[0] == answers[1]
    assert isinstance(answers[0], Booked)
    assert await internal_balances(world) == before


async def test_money_leaves_suspense_one_way_only(world: World) -> None:
    creditor = await world.account()
    cleared, returned = await in_suspense(world, creditor.number), await in_suspense(world, creditor.number)
    await world.bank.credit_from_suspense([a_clearing(cleared)])
    await world.bank.return_from_suspense([a_return(returned)])

    (not_returned,) = await world.bank.return_from_suspense([a_return(cleared, token=3)])
    (not_credited,) = await world.bank.credit_from_suspense([a_clearing(returned, token=3)])

    assert isinstance(not_returned, AlreadyBooked)
    assert isinstance(not_credited, AlreadyBooked)
    assert await world.balance(creditor) == (700, 0)


async def test_both_ways_out_of_suspense_at_once_move_the_money_once(world: World) -> None:
    creditor, before = await world.account(), await internal_balances(world)
    held = await in_suspense(world, creditor.number)

    answers = await asyncio.gather(
        *(world.bank.credit_from_suspense([a_clearing(held)]) for _ in range(4)),
        *(world.bank.return_from_suspense([a_return(held)]) for _ in range(4)),
    )

    entries = {answer.entry_id for (answer,) in answers if isinstance(answer, Booked)}
    assert len(entries) == 1
    assert (await internal_balances(world))["suspense"] == before["suspense"]
    (verified,) = await world.cli.verify_ledger([VerifyLedger()])
    assert verified.broken == []


async def test_a_creditor_who_was_refused_stays_so_and_the_money_goes_back(world: World) -> None:
    creditor = await world.account()
    held = await in_suspense(world, creditor.number)
    await change_state(world, creditor.number, AccountState.BLOCKED)
    (refused,) = await world.bank.credit_from_suspense([a_clearing(held, token=4)])
    await change_state(world, creditor.number, AccountState.OPEN)

    (repeat,) = await world.bank.credit_from_suspense([a_clearing(held, token=5)])
    (stale,) = await world.bank.return_from_suspense([a_return(held, token=3)])
    (returned,) = await world.bank.return_from_suspense([a_return(held, token=5)])

    assert isinstance(refused, AccountBlocked)
    assert isinstance(repeat, AccountBlocked)
    assert isinstance(stale, StaleCommand)
    assert isinstance(returned, Booked)
    assert await world.balance(creditor) == (0, 0)


async def test_money_that_left_suspense_does_not_look_like_a_payment_of_another_month(
    connect_as: ConnectAs, cipher: ColumnCipher
) -> None:
    """One hash in sixteen begins like an id that tells its time; this payment's does."""
    world = await on_postgres(connect_as, cipher)
    creditor = await world.account()
    before = await world.store.make_partitions()
    held = a_credit(creditor.number, payment_id=UUID("153f58cb-e4fc-53e0-95c7-f1dfce9da406"), token=1, to_suspense=True)
    assert isinstance((await world.bank.credit_incoming([held]))[0], Booked)

    (cleared,) = await world.bank.credit_from_suspense([a_clearing(held)])

    assert isinstance(cleared, Booked)
    assert suspense_exit_id(held.payment_id).version == 8
    assert await world.store.make_partitions() == before
