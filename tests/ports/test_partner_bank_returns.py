"""One suite for held money that goes back to its bank, over the in-memory store and over PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest
import structlog

from payflow.contracts.account import AccountState, ChangeAccountState
from payflow.contracts.agents import AgentDirectory
from payflow.contracts.ofac import ReviewState
from payflow.contracts.partner_bank import BankStatus, EndReturn, Enquire, ReturnEnding
from payflow.services.partner_bank.domain import (
    BankWord,
    Status,
    Verdict,
    Word,
)
from tests.builders_partner_bank import NORDBANK, World
from tests.builders_partner_bank import stored_world as stored_world
from tests.builders_partner_bank import world as world
from tests.builders_suspense import (
    asked,
    decide,
    frozen_before_crediting,
    held,
    instruction_of,
    look_after,
    return_made,
    rounds,
)


async def test_blocked_money_goes_back_once_and_is_announced(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    decide(world, transfer, ReviewState.BLOCKED)

    await rounds(world)

    incoming, made = await instruction_of(world, transfer), await return_made(world, transfer)
    assert (incoming.status, incoming.reason_code) == (Status.RETURNED, "RR04")
    assert (made.status, made.return_reason, made.next_attempt_at) == (Status.ACCEPTED, "RR04", None)
    assert len(world.bank.offered[transfer.end_to_end_id]) == 1
    assert world.bank.enquiries == []
    assert await world.posted(number) == 0
    assert await world.events_of(transfer) == ["incoming.held_in_suspense", "incoming.returned"]
    assert await asked(world, transfer) == [Verdict("ACWP")]


async def test_cleared_money_whose_creditor_cannot_take_it_goes_back_with_the_reason(world: World) -> None:
    blocked = await world.account()
    transfers = [await held(world, "NOSUCHACCOUNT"), await held(world, blocked)]
    await world.operator.change_account_state(
        [ChangeAccountState(number=blocked, state=AccountState.BLOCKED, reason="test", changed_by="op")]
    )
    for transfer in transfers:
        decide(world, transfer, ReviewState.CLEARED)

    await rounds(world)

    ended = [await instruction_of(world, transfer) for transfer in transfers]
    assert [(one.status, one.reason_code) for one in ended] == [(Status.RETURNED, "AC01"), (Status.RETURNED, "AC06")]


async def test_a_return_without_an_answer_is_asked_about_and_not_booked(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.answers = False
    await rounds(world)

    before = (await instruction_of(world, transfer)).status
    world.bank.answers = True
    await rounds(world)

    assert before is Status.RETURNING
    assert (await instruction_of(world, transfer)).status is Status.RETURNED
    assert len({one.message_id for one in world.bank.offered[transfer.end_to_end_id]}) == 1


async def test_a_return_that_the_bank_refuses_is_offered_anew_under_new_ids_an_hour_later(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.word = BankWord(Word.REJECTED, "AC04")
    await rounds(world)
    world.bank.word = BankWord(Word.ACCEPTED)
    await rounds(world)

    refused, waiting = await return_made(world, transfer), await return_made(world, transfer, 2)
    before = (await instruction_of(world, transfer)).status
    sent_before = list(world.bank.offered[transfer.end_to_end_id])
    world.clock.move(timedelta(hours=1))
    await rounds(world)

    assert (refused.status, refused.reason_code, refused.next_attempt_at) == (Status.REJECTED, "AC04", None)
    assert (waiting.status, waiting.sent_at, before) == (Status.UNKNOWN, None, Status.RETURNING)
    assert len(sent_before) == 1
    assert len({one.message_id for one in (refused, waiting)} | {one.return_id for one in (refused, waiting)}) == 4
    assert (await return_made(world, transfer)).status is Status.REJECTED
    assert (await instruction_of(world, transfer)).status is Status.RETURNED
    assert await world.events_of(transfer) == ["incoming.held_in_suspense", "incoming.returned"]


async def test_after_each_refusal_the_bank_is_left_alone_for_longer_up_to_a_day(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.word = BankWord(Word.REJECTED, "AC04")
    rests = []
    for number in range(2, 9):
        await rounds(world)
        made = await return_made(world, transfer, number)
        assert made.next_attempt_at is not None
        rests.append((made.next_attempt_at - made.created_at) // timedelta(hours=1))
        world.clock.move(timedelta(hours=rests[-1]))

    assert rests == [1, 2, 4, 8, 16, 24, 24]


@pytest.mark.parametrize("answers", [True, False])
async def test_the_money_is_offered_anew_only_after_a_refusal_that_is_one(world: World, answers: bool) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.answers = answers
    world.bank.word = BankWord(Word.REJECTED, "AM05")
    await rounds(world)
    world.clock.move(timedelta(days=2))
    await rounds(world)

    offered = world.bank.offered[transfer.end_to_end_id]
    assert {one.return_id for one in offered} == {(await return_made(world, transfer)).return_id}
    assert (await instruction_of(world, transfer)).status is Status.RETURNING


async def test_a_bank_that_answers_about_its_own_payment_is_not_asked_before_the_return_was_sent(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.receives = False
    await look_after(world)

    made = await return_made(world, transfer)
    await world.api.enquire([Enquire(payment_id=made.return_id)])
    asked_before = list(world.bank.enquiries)
    await world.api.offer_returns()
    asked_at_first = list(world.bank.enquiries)

    assert asked_before == asked_at_first == []
    assert (await return_made(world, transfer)).sent_at == world.clock.now()


async def test_what_a_process_that_died_while_sending_has_left_is_asked_about_and_sent_under_the_same_ids(
    world: World,
) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.receives = False
    await look_after(world)
    await world.api.offer_returns()
    world.bank.receives = True

    await rounds(world)

    assert len(world.bank.offered[transfer.end_to_end_id]) == 1
    assert (await instruction_of(world, transfer)).status is Status.RETURNED


async def test_a_return_that_a_person_has_ended_is_booked_with_the_proof_and_not_sent_again(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.word = BankWord(Word.REJECTED, "AC04")
    await rounds(world)
    payment_id = (await instruction_of(world, transfer)).payment_id
    command = EndReturn(payment_id=payment_id, reference="NB booking 4711", ended_by="olga")

    (answer,) = await world.gateway.end_return([command])
    (again,) = await world.gateway.end_return([msgspec.structs.replace(command, reference="another", ended_by="omar")])
    world.clock.move(timedelta(days=2))
    await rounds(world)

    made = await return_made(world, transfer, 2)
    assert isinstance(answer, ReturnEnding)
    assert (answer.status, answer.reason_code, again) == (BankStatus.ACCEPTED, None, answer)
    assert (made.proof, made.ended_by, made.sent_at) == ("NB booking 4711", "olga", None)
    assert made.booked_at is not None
    assert len(world.bank.offered[transfer.end_to_end_id]) == 1
    assert (await instruction_of(world, transfer)).status is Status.RETURNED


async def test_a_return_whose_bank_has_left_the_directory_says_so(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    await look_after(world)
    world.returns._agents = AgentDirectory([])
    with structlog.testing.capture_logs() as logs:
        await world.api.offer_returns()

    assert [line["agent"] for line in logs if line["event"] == "bank.return_without_a_bank"] == [NORDBANK]


async def test_a_frozen_process_credits_nothing_that_went_back_meanwhile(world: World) -> None:
    number = await world.account()
    transfer = await held(world, number)
    frozen, gate = await frozen_before_crediting(world, transfer)
    change = ChangeAccountState(number=number, state=AccountState.BLOCKED_CREDIT, reason="test", changed_by="op")
    await world.operator.change_account_state([change])
    await rounds(world)
    await world.operator.change_account_state(
        [ChangeAccountState(number=number, state=AccountState.OPEN, reason="test", changed_by="op")]
    )

    gate.set()
    await frozen

    incoming = await instruction_of(world, transfer)
    assert (incoming.status, incoming.reason_code) == (Status.RETURNED, "AC06")
    assert await world.posted(number) == 0
    assert await world.events_of(transfer) == ["incoming.held_in_suspense", "incoming.returned"]


async def test_confirm_hears_nothing_of_returns(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    await rounds(world)

    await world.api.deliver_answers()

    assert world.confirm.told == []


async def test_several_processes_book_and_tell_of_a_return_once(world: World) -> None:
    transfer = await held(world, await world.account())
    decide(world, transfer, ReviewState.BLOCKED)
    await look_after(world)
    await world.api.offer_returns()
    world.clock.move(timedelta(minutes=1))

    await asyncio.gather(*(world.api.book_returns() for _ in range(8)))

    assert (await instruction_of(world, transfer)).status is Status.RETURNED
    assert await world.events_of(transfer) == ["incoming.held_in_suspense", "incoming.returned"]
