"""One suite for what operators say of money that a bank has by other means: above the limit two of them say so."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest
import structlog

from payflow.contracts.ofac import ReviewState
from payflow.contracts.partner_bank import (
    RETURN,
    BankStatus,
    EndReturn,
    Enquire,
    InstructionNotFound,
    InstructionView,
    ListInstructions,
    OtherReference,
    ReturnEnding,
    WithdrawEnding,
)
from payflow.services.partner_bank.domain import BankWord, IncomingTransfer, Status, Word
from tests.builders_partner_bank import World
from tests.builders_partner_bank import stored_world as stored_world
from tests.builders_partner_bank import world as world
from tests.builders_suspense import decide, held, instruction_of, look_after, return_made, rounds

REFERENCE = "NB booking 4711"
ABOVE = "1000.01"


async def returning(world: World, *, amount: str = ABOVE) -> IncomingTransfer:
    """Held money that goes back, whose return was not sent yet."""
    transfer = await held(world, await world.account(), amount=amount)
    decide(world, transfer, ReviewState.BLOCKED)
    await look_after(world)
    return transfer


async def say(world: World, transfer: IncomingTransfer, by: str, reference: str = REFERENCE) -> object:
    payment_id = (await instruction_of(world, transfer)).payment_id
    (answer,) = await world.gateway.end_return([EndReturn(payment_id=payment_id, reference=reference, ended_by=by)])
    return answer


async def waiting_behind_a_return(world: World, *, arrived: bool) -> IncomingTransfer:
    """A first word about a return that was sent without an answer; it has arrived at its bank, or not."""
    transfer = await returning(world)
    world.bank.receives, world.bank.answers = arrived, False
    await world.api.offer_returns()
    await say(world, transfer, "olga")
    world.bank.receives, world.bank.answers = True, True
    return transfer


async def withdraw(world: World, transfer: IncomingTransfer, by: str) -> object:
    payment_id = (await instruction_of(world, transfer)).payment_id
    (answer,) = await world.gateway.withdraw_ending([WithdrawEnding(payment_id=payment_id, withdrawn_by=by)])
    return answer


async def listed(world: World, transfer: IncomingTransfer) -> InstructionView:
    """The return as operators find it."""
    return_id = (await return_made(world, transfer)).return_id
    (page,) = await world.gateway.list_instructions([ListInstructions(direction=RETURN)])
    (found,) = [one for one in page.instructions if one.payment_id == return_id]
    return found


def waits_for(answer: object) -> tuple[BankStatus, str | None]:
    assert isinstance(answer, ReturnEnding), answer
    return answer.status, answer.requested_by


async def test_at_the_limit_one_person_is_enough(world: World) -> None:
    transfer = await returning(world, amount="1000.00")

    answer = await say(world, transfer, "olga")
    await rounds(world)

    made = await return_made(world, transfer)
    assert waits_for(answer) == (BankStatus.ACCEPTED, None)
    assert (made.proof, made.ended_by, made.needs_approval, made.request) == (REFERENCE, "olga", False, None)
    assert (await instruction_of(world, transfer)).status is Status.RETURNED


async def test_above_the_limit_the_first_word_waits_and_nothing_is_booked_nor_sent(world: World) -> None:
    transfer = await returning(world)

    answer = await say(world, transfer, "olga")
    await rounds(world)

    made = await return_made(world, transfer)
    assert waits_for(answer) == (BankStatus.UNKNOWN, "olga")
    assert isinstance(answer, ReturnEnding)
    assert (answer.reference, answer.expires_at) == (REFERENCE, made.request.expires_at if made.request else None)
    assert (made.status, made.proof, made.ended_by, made.booked_at) == (Status.UNKNOWN, None, None, None)
    assert (await instruction_of(world, transfer)).status is Status.RETURNING
    assert world.bank.offered == {}


async def test_a_second_person_with_the_same_reference_ends_it(world: World) -> None:
    transfer = await returning(world)
    await say(world, transfer, "olga")

    answer = await say(world, transfer, "omar")
    again = await say(world, transfer, "olga")
    await rounds(world)

    made = await return_made(world, transfer)
    assert waits_for(answer) == (BankStatus.ACCEPTED, "olga")
    assert again == answer
    assert made.request is not None
    assert (made.request.requested_by, made.ended_by, made.proof, made.needs_approval) == (
        "olga",
        "omar",
        REFERENCE,
        True,
    )
    assert (await instruction_of(world, transfer)).status is Status.RETURNED
    assert world.bank.offered == {}


@pytest.mark.parametrize("again", ["olga", "Olga"])
async def test_the_same_person_again_changes_nothing_and_is_told_that_it_waits(world: World, again: str) -> None:
    transfer = await returning(world)
    first = await say(world, transfer, "olga")
    before = await return_made(world, transfer)

    answer = await say(world, transfer, again)

    assert answer == first
    assert waits_for(answer) == (BankStatus.UNKNOWN, "olga")
    assert await return_made(world, transfer) == before


async def test_one_person_who_says_it_often_at_the_same_moment_is_one_person(world: World) -> None:
    transfer = await returning(world)

    answers = await asyncio.gather(*(say(world, transfer, "olga") for _ in range(6)))

    assert {waits_for(answer) for answer in answers} == {(BankStatus.UNKNOWN, "olga")}
    assert (await return_made(world, transfer)).status is Status.UNKNOWN


async def test_two_people_at_the_same_moment_are_two(world: World) -> None:
    transfer = await returning(world)

    answers = await asyncio.gather(say(world, transfer, "olga"), say(world, transfer, "omar"))

    made = await return_made(world, transfer)
    assert sorted(waits_for(answer)[0] for answer in answers) == [BankStatus.ACCEPTED, BankStatus.UNKNOWN]
    assert made.request is not None
    assert {made.request.requested_by, made.ended_by} == {"olga", "omar"}


@pytest.mark.parametrize("by", ["olga", "omar"])
async def test_another_reference_is_a_conflict_and_changes_nothing(world: World, by: str) -> None:
    transfer = await returning(world)
    await say(world, transfer, "olga")
    before = await return_made(world, transfer)

    answer = await say(world, transfer, by, "NB booking 4712")

    assert isinstance(answer, OtherReference)
    assert "olga" in answer.detail
    assert await return_made(world, transfer) == before


async def test_a_word_that_nobody_confirms_expires_and_the_return_goes_on(world: World) -> None:
    transfer = await returning(world)
    await say(world, transfer, "olga")

    world.clock.move(timedelta(hours=72))
    answer = await say(world, transfer, "omar", "NB booking 4712")
    waiting = await return_made(world, transfer)
    world.clock.move(timedelta(hours=72))
    await rounds(world)

    assert waits_for(answer) == (BankStatus.UNKNOWN, "omar")
    assert waiting.proof is None
    assert len(world.bank.offered[transfer.end_to_end_id]) == 1
    assert (await instruction_of(world, transfer)).status is Status.RETURNED


@pytest.mark.parametrize("by", ["olga", "omar"])
async def test_a_word_is_withdrawn_by_anybody_and_the_return_goes_on_at_once(world: World, by: str) -> None:
    transfer = await returning(world)
    await say(world, transfer, "olga")

    answer = await withdraw(world, transfer, by)
    again = await withdraw(world, transfer, by)
    await rounds(world)

    assert waits_for(answer) == (BankStatus.UNKNOWN, None)
    assert again == answer
    assert (await return_made(world, transfer)).proof is None
    assert len(world.bank.offered[transfer.end_to_end_id]) == 1


async def test_what_was_ended_cannot_be_withdrawn_and_without_a_return_there_is_nothing_to_withdraw(
    world: World,
) -> None:
    transfer = await returning(world)
    waiting = await held(world, await world.account())
    await say(world, transfer, "olga")
    ended = await say(world, transfer, "omar")

    assert await withdraw(world, transfer, "olga") == ended
    assert isinstance(await withdraw(world, waiting, "olga"), InstructionNotFound)


async def test_while_it_waits_an_enquiry_asks_and_sends_nothing(world: World) -> None:
    transfer = await waiting_behind_a_return(world, arrived=False)

    await world.api.enquire([Enquire(payment_id=(await return_made(world, transfer)).return_id)])

    assert len(world.bank.enquiries) == 1
    assert world.bank.offered == {}


async def test_what_was_sent_is_asked_about_while_a_word_waits_and_is_not_sent_again(world: World) -> None:
    transfer = await waiting_behind_a_return(world, arrived=False)

    for _ in range(5):
        world.clock.move(timedelta(minutes=30))
        await rounds(world)
    made = await return_made(world, transfer)

    assert len(world.bank.enquiries) >= 3
    assert world.bank.offered == {}
    assert made.next_attempt_at is not None
    assert made.request is not None
    assert made.next_attempt_at <= made.request.expires_at


async def test_a_return_that_its_bank_has_taken_is_booked_by_that_while_a_word_waits(world: World) -> None:
    transfer = await waiting_behind_a_return(world, arrived=True)

    world.clock.move(timedelta(minutes=5))
    await rounds(world)

    made = await return_made(world, transfer)
    assert (made.status, made.proof) == (Status.ACCEPTED, None)
    assert (await instruction_of(world, transfer)).status is Status.RETURNED


@pytest.mark.parametrize("people", [["olga"], ["olga", "omar"]])
async def test_a_word_that_comes_while_the_bank_is_asked_keeps_the_return_back(world: World, people: list[str]) -> None:
    transfer = await returning(world)
    world.bank.receives = False
    await world.api.offer_returns()
    world.bank.receives = True

    async def give_word() -> None:
        for one in people:
            await say(world, transfer, one)

    world.bank.before_it_answers = give_word
    world.clock.move(timedelta(minutes=5))
    await world.api.offer_returns()

    assert len(world.bank.enquiries) == 1
    assert world.bank.offered == {}


async def test_a_return_that_its_bank_takes_though_it_has_the_money_otherwise_is_an_error_in_the_log(
    world: World,
) -> None:
    transfer = await returning(world, amount="25.00")
    world.bank.answers = False
    await world.api.offer_returns()
    world.bank.answers = True

    async def give_word() -> None:
        await say(world, transfer, "olga")

    world.bank.before_it_answers = give_word
    world.clock.move(timedelta(minutes=5))
    with structlog.testing.capture_logs() as logs:
        await world.api.offer_returns()

    (line,) = [line for line in logs if line["event"] == "bank.return_taken_twice"]
    assert (line["log_level"], line["reference"]) == ("error", REFERENCE)


async def test_a_word_that_has_expired_is_not_shown_as_one_that_waits(world: World) -> None:
    transfer = await returning(world)
    await say(world, transfer, "olga")

    world.clock.move(timedelta(hours=72))

    view = await listed(world, transfer)
    assert (view.end_requested_by, view.end_reference, view.end_expires_at) == (None, None, None)


async def test_a_bank_that_takes_the_return_meanwhile_is_believed(world: World) -> None:
    transfer = await waiting_behind_a_return(world, arrived=True)

    await world.api.enquire([Enquire(payment_id=(await return_made(world, transfer)).return_id)])
    late = await say(world, transfer, "omar")
    await rounds(world)

    made = await return_made(world, transfer)
    assert isinstance(late, ReturnEnding)
    assert (late.status, made.proof, made.ended_by) == (BankStatus.ACCEPTED, None, None)
    assert (await instruction_of(world, transfer)).status is Status.RETURNED


async def test_a_bank_that_refuses_the_return_meanwhile_is_offered_the_money_anew_only_when_the_word_has_expired(
    world: World,
) -> None:
    transfer = await returning(world)
    world.bank.word, world.bank.answers = BankWord(Word.REJECTED, "AC04"), False
    await world.api.offer_returns()
    await say(world, transfer, "olga")
    world.bank.answers = True
    await world.api.enquire([Enquire(payment_id=(await return_made(world, transfer)).return_id)])

    anew = await return_made(world, transfer, 2)
    ended = await say(world, transfer, "omar")

    assert anew.request is not None
    assert anew.next_attempt_at == anew.request.expires_at
    assert waits_for(ended) == (BankStatus.ACCEPTED, "olga")
    assert (await return_made(world, transfer, 2)).ended_by == "omar"


async def test_a_request_that_waits_is_shown_with_its_return(world: World) -> None:
    transfer = await returning(world)
    before = await listed(world, transfer)
    await say(world, transfer, "olga")
    waiting = await listed(world, transfer)
    await withdraw(world, transfer, "olga")
    after = await listed(world, transfer)

    made = await return_made(world, transfer)
    assert (before.end_requested_by, after.end_requested_by) == (None, None)
    assert (waiting.end_requested_by, waiting.end_reference) == ("olga", REFERENCE)
    assert waiting.end_expires_at == waiting.next_attempt_at == world.clock.now() + timedelta(hours=72)
    assert after.next_attempt_at == made.next_attempt_at


@pytest.mark.parametrize(
    ("written", "constraint"),
    [
        ("ended_by = 'Olga', proof = end_reference", "four_eyes_are_two_people"),
        (
            "ended_by = 'omar', proof = 'NB', end_reference = NULL, end_requested_by = NULL, end_requested_at = NULL, "
            "end_expires_at = NULL",
            "a_return_above_the_limit_is_ended_by_a_second_person",
        ),
        ("ended_by = 'omar', proof = 'NB booking 4712'", "two_people_name_one_reference"),
    ],
)
async def test_the_database_takes_no_end_above_the_limit_by_one_person(
    stored_world: World, database_url: str, written: str, constraint: str
) -> None:
    transfer = await returning(stored_world)
    await say(stored_world, transfer, "olga")
    made: UUID = (await return_made(stored_world, transfer)).return_id
    owner = await asyncpg.connect(database_url)

    with pytest.raises(asyncpg.CheckViolationError, match=constraint):
        await owner.execute(
            f"UPDATE partner_bank.incoming_return SET status = 'ACCEPTED', {written} WHERE return_id = $1", made
        )
    await owner.close()
