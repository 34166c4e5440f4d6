"""While an update runs, and after it was rolled back, processes of two releases are at work: in either order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from payflow.contracts.account import Account, Booked, CreditFromSuspense, CreditIncoming
from payflow.contracts.ofac import ReviewState
from payflow.contracts.operation import Answers, operations_of
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.platform.rpc.client import NotInContract
from payflow.platform.rpc.wire import Codec
from payflow.services.partner_bank.domain import BankWord, Status, Word, incoming_payment_id
from tests.builders import new_id
from tests.builders_partner_bank import NORDBANK, World, a_submission, an_incoming, memory_world, postgres_world

# The release before looks for what is due in this way, whichever direction a row has, and knows these and no others.
LOCK_DUE_BEFORE = """
SELECT direction, status FROM partner_bank.instruction WHERE next_attempt_at <= $2 AND status = ANY($1::text[])
 ORDER BY next_attempt_at LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED
"""
DIRECTIONS_BEFORE = {"OUTGOING", "INCOMING"}
INCOMING_BEFORE = {"PENDING", "CREDITED", "HELD_IN_SUSPENSE", "REJECTED"}


@pytest.fixture
async def world(connect_as: Callable[[str], Awaitable[Database]], database_url: str, cipher: ColumnCipher) -> World:
    return await postgres_world(await connect_as("partner_bank"), database_url, cipher)


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def blocked(world: World) -> object:
    """A held payment whose review was blocked, and whose return is under way."""
    world.ofac.listed = {"Listed Person"}
    transfer = an_incoming(await world.account(), debtor_name="Listed Person")
    await world.receive(transfer)
    payment_id = incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id)
    world.ofac.decided[payment_id] = ReviewState.BLOCKED
    await world.inbound.look_after_suspense()
    return payment_id


@pytest.mark.parametrize(
    ("word", "ends_as"),
    [(Word.UNKNOWN, Status.RETURNING), (Word.REJECTED, Status.RETURNING), (Word.ACCEPTED, Status.RETURNED)],
)
async def test_a_return_in_whichever_state_shows_the_release_before_nothing_that_it_does_not_know(
    world: World, owner: asyncpg.Connection[Any], word: Word, ends_as: Status
) -> None:
    world.bank.receives = False
    await world.submit(a_submission())
    world.bank.receives, world.bank.word = True, BankWord(word)
    payment_id = await blocked(world)
    await world.api.offer_returns()
    await world.api.book_returns()
    world.clock.move(timedelta(days=2))

    due = await owner.fetch(LOCK_DUE_BEFORE, ["UNKNOWN", "PENDING", "ACCEPTED", "REJECTED"], world.clock.now())
    seen = await owner.fetch("SELECT direction, status FROM partner_bank.instruction")
    told = await owner.fetchval("SELECT reason_code FROM partner_bank.instruction WHERE payment_id = $1", payment_id)
    ((status, reason),) = [(one.status, one.reason_code) for one in (await world.store.find([payment_id])).values()]

    assert ("OUTGOING", "UNKNOWN") in {tuple(row) for row in due}
    assert {row["direction"] for row in [*due, *seen]} == DIRECTIONS_BEFORE
    assert {row["status"] for row in seen if row["direction"] == "INCOMING"} <= INCOMING_BEFORE
    assert (status, reason, told) == (ends_as, "RR04", None)


async def test_money_that_goes_back_can_by_no_release_be_told_as_credited(
    world: World, owner: asyncpg.Connection[Any]
) -> None:
    payment_id = await blocked(world)

    with pytest.raises(asyncpg.CheckViolationError, match="only_held_money_goes_back"):
        await owner.execute("UPDATE partner_bank.instruction SET status = 'CREDITED' WHERE payment_id = $1", payment_id)


async def test_a_second_return_beside_one_that_was_not_refused_cannot_be_stored(
    world: World, owner: asyncpg.Connection[Any]
) -> None:
    payment_id = await blocked(world)

    with pytest.raises(asyncpg.UniqueViolationError, match="one_return_that_is_not_refused"):
        await owner.execute(
            "INSERT INTO partner_bank.incoming_return SELECT (jsonb_populate_record(made, jsonb_build_object("
            "'return_id', gen_random_uuid(), 'number', 2))).* FROM partner_bank.incoming_return AS made "
            "WHERE payment_id = $1",
            payment_id,
        )


async def test_the_migrations_read_no_rows_of_the_table_that_payments_need(owner: asyncpg.Connection[Any]) -> None:
    (checked,) = await owner.fetch("SELECT convalidated FROM pg_constraint WHERE conname = 'only_held_money_goes_back'")
    (found,) = await owner.fetch(
        "SELECT indisvalid FROM pg_index WHERE indexrelid = 'partner_bank.incoming_under_way'::regclass"
    )

    assert not checked["convalidated"]
    assert found["indisvalid"]


def test_account_takes_incoming_money_from_a_partner_bank_of_the_release_before() -> None:
    sent = {
        "payment_id": new_id(),
        "creditor_account": "A1",
        "amount_minor": 1,
        "currency": "EUR",
        "agent_bic": NORDBANK,
        "to_suspense": False,
    }

    (command,) = Codec(operations_of(Account)["credit_incoming"]).decode_items(msgspec.msgpack.encode([sent]))

    assert (command.payment_id, command.fencing_token) == (sent["payment_id"], 0)


class AccountBefore:
    """Account of the release before: with it, nothing leaves suspense."""

    def __init__(self, account: Any) -> None:
        self._account = account
        self.now_knows_all = False

    async def credit_incoming(self, commands: list[CreditIncoming]) -> Answers[Booked]:
        return list(await self._account.credit_incoming(commands))

    async def credit_from_suspense(self, commands: list[CreditFromSuspense]) -> Answers[Booked]:
        if self.now_knows_all:
            return list(await self._account.credit_from_suspense(commands))
        return [NotInContract("account does not know this call.") for _ in commands]


async def test_cleared_money_waits_for_an_account_that_can_move_it() -> None:
    world = memory_world()
    world.ofac.listed = {"Listed Person"}
    number = await world.account()
    transfer = an_incoming(number, debtor_name="Listed Person")
    await world.receive(transfer)
    payment_id = incoming_payment_id(agent_bic=NORDBANK, end_to_end_id=transfer.end_to_end_id)
    world.ofac.decided[payment_id] = ReviewState.CLEARED
    account = AccountBefore(world.ledger)
    world.suspense._account = account
    await world.inbound.look_after_suspense()
    before = (await world.store.find([payment_id]))[payment_id].status

    account.now_knows_all = True
    world.clock.move(timedelta(minutes=1))
    await world.inbound.look_after_suspense()

    assert before is Status.HELD_IN_SUSPENSE
    assert await world.posted(number) == 2500
