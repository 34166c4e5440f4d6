"""One suite for a bank that says, however often a return is sent, that it never came."""

from __future__ import annotations

from datetime import timedelta

import pytest
import structlog

from payflow.contracts.ofac import ReviewState
from payflow.contracts.partner_bank import RETURN, EndReturn, Enquire, InstructionView, ListInstructions
from payflow.services.partner_bank.domain import BankWord, IncomingTransfer, Status, Word
from tests.builders_partner_bank import World
from tests.builders_partner_bank import stored_world as stored_world
from tests.builders_partner_bank import world as world
from tests.builders_suspense import decide, held, instruction_of, look_after, return_made, rounds


async def denied(world: World, *, times: int, amount: str = "25.00") -> IncomingTransfer:
    """A return that was sent, and of which its bank then has said so often that it never came."""
    transfer = await held(world, await world.account(), amount=amount)
    decide(world, transfer, ReviewState.BLOCKED)
    world.bank.receives = False
    await look_after(world)
    await world.api.offer_returns()
    for _ in range(times):
        await wait_for_next_try(world, transfer)
        await world.api.offer_returns()
    return transfer


async def wait_for_next_try(world: World, transfer: IncomingTransfer) -> timedelta:
    made = await return_made(world, transfer)
    assert made.next_attempt_at is not None
    pause = made.next_attempt_at - world.clock.now()
    world.clock.move(pause)
    return pause


async def sent(world: World, transfer: IncomingTransfer) -> int:
    return world.bank.sent.count((await return_made(world, transfer)).return_id)


async def shown(world: World, transfer: IncomingTransfer) -> InstructionView:
    return_id = (await return_made(world, transfer)).return_id
    (page,) = await world.gateway.list_instructions([ListInstructions(direction=RETURN)])
    (found,) = [one for one in page.instructions if one.payment_id == return_id]
    return found


async def test_it_is_sent_again_ever_more_seldom_up_to_once_an_hour(world: World) -> None:
    transfer = await denied(world, times=1)

    pauses = []
    for _ in range(9):
        pauses.append((await wait_for_next_try(world, transfer)).total_seconds())
        await world.api.offer_returns()

    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert await sent(world, transfer) == 11
    assert (await instruction_of(world, transfer)).status is Status.RETURNING


async def test_it_is_booked_as_soon_as_the_bank_takes_it(world: World) -> None:
    transfer = await denied(world, times=4)
    world.bank.receives = True

    await wait_for_next_try(world, transfer)
    await world.api.offer_returns()
    await world.api.book_returns()

    assert (await instruction_of(world, transfer)).status is Status.RETURNED
    assert len({one.message_id for one in world.bank.offered[transfer.end_to_end_id]}) == 1


async def test_the_last_answer_and_the_next_try_are_shown_and_logged(world: World) -> None:
    before = await denied(world, times=0)
    never_said = await shown(world, before)
    with structlog.testing.capture_logs() as logs:
        transfer = await denied(world, times=3)

    made, view = await return_made(world, transfer), await shown(world, transfer)
    assert (never_said.last_answer, never_said.last_answer_at) == (None, None)
    assert (view.last_answer, view.last_answer_at) == ("AG09", world.clock.now())
    assert view.next_attempt_at == made.next_attempt_at == world.clock.now() + timedelta(minutes=2)
    said = [
        (line["tries"], line["log_level"])
        for line in logs
        if line["event"] == "bank.return_never_received" and line["return_id"] == str(made.return_id)
    ]
    assert said == [(1, "warning"), (2, "warning"), (3, "warning")]


async def test_an_operator_has_it_asked_about_and_sent_at_once(world: World) -> None:
    transfer = await denied(world, times=8)
    world.bank.receives = True

    made = await return_made(world, transfer)
    (answer,) = await world.gateway.enquire([Enquire(payment_id=made.return_id)])
    await rounds(world)

    assert not isinstance(answer, Exception)
    assert answer.status == "ACCEPTED"
    assert (await instruction_of(world, transfer)).status is Status.RETURNED


async def test_a_bank_that_only_does_not_answer_is_asked_each_half_minute_as_before(world: World) -> None:
    transfer = await denied(world, times=0)
    world.bank.receives, world.bank.answers = True, False
    pauses = []
    for _ in range(10):
        await world.api.offer_returns()
        pauses.append((await wait_for_next_try(world, transfer)).total_seconds())

    assert max(pauses) == pauses[-1] == 30
    assert (await shown(world, transfer)).last_answer is None


async def test_after_an_operators_word_has_expired_it_is_sent_again_at_once(world: World) -> None:
    transfer = await denied(world, times=8, amount="1000.01")
    payment_id = (await instruction_of(world, transfer)).payment_id
    world.clock.move(timedelta(minutes=-1))
    await world.gateway.end_return([EndReturn(payment_id=payment_id, reference="NB 4711", ended_by="olga")])
    for _ in range(71):
        world.clock.move(timedelta(hours=1))
        await world.api.offer_returns()
    before = await sent(world, transfer)

    await wait_for_next_try(world, transfer)
    await world.api.offer_returns()

    waited = (await return_made(world, transfer)).request
    assert waited is None
    assert await sent(world, transfer) == before + 1


async def test_however_often_an_operator_asks_it_is_not_sent_more_seldom(world: World) -> None:
    transfer = await denied(world, times=8)
    made = await return_made(world, transfer)
    for _ in range(5):
        await world.gateway.enquire([Enquire(payment_id=made.return_id)])

    after = await return_made(world, transfer)
    assert after.never_received == 8
    assert after.next_attempt_at is not None
    assert after.next_attempt_at - world.clock.now() <= timedelta(seconds=30)
    assert await sent(world, transfer) == 9 + 5


async def test_the_one_after_a_refusal_begins_anew(world: World) -> None:
    transfer = await denied(world, times=3)
    world.bank.receives, world.bank.word = True, BankWord(Word.REJECTED, "AC04")
    await wait_for_next_try(world, transfer)
    await world.api.offer_returns()

    anew = await return_made(world, transfer, 2)

    assert (anew.never_received, anew.last_answer, anew.last_answer_at) == (0, None, None)


@pytest.mark.parametrize("reason", ["AG09", "NOOR"])
async def test_each_code_for_it_is_shown_as_the_bank_gave_it(world: World, reason: str) -> None:
    world.bank.never_received = reason

    transfer = await denied(world, times=1)

    assert (await shown(world, transfer)).last_answer == reason
