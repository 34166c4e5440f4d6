"""One suite for payments to other banks over the in-memory store and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg

from payflow.contracts.account import (
    StaleCommand,
)
from payflow.contracts.confirm import PaymentInProgress, PaymentNotFound
from payflow.contracts.partner_bank import (
    BankStatus,
    EndToEndIdTaken,
    Enquire,
    InstructionNotFound,
    InvalidInstruction,
    ListInstructions,
    SubmissionStatus,
    UnknownAgent,
)
from payflow.kernel.errors import Unavailable
from payflow.kernel.money import InvalidAmount
from payflow.services.partner_bank.domain import (
    BankWord,
    Status,
    Word,
)
from tests.builders import new_id
from tests.builders_partner_bank import (
    ERIKA,
    World,
    a_submission,
    status_of,
)
from tests.builders_partner_bank import stored_world as stored_world
from tests.builders_partner_bank import world as world


async def test_an_accepted_payment_is_told_and_told_again_without_asking_the_bank(world: World) -> None:
    command = a_submission()

    (first,) = await world.submit(command)
    (again,) = await world.submit(command)

    assert status_of(first) == (BankStatus.ACCEPTED, None)
    assert again == first
    assert len(world.bank.messages) == 1
    assert world.bank.enquiries == []


async def test_a_rejected_payment_carries_the_banks_reason(world: World) -> None:
    world.bank.word = BankWord(Word.REJECTED, "AC04")

    (answer,) = await world.submit(a_submission())

    assert status_of(answer) == (BankStatus.REJECTED, "AC04")


async def test_a_batch_travels_as_one_message_for_each_bank(world: World) -> None:
    nord = [a_submission() for _ in range(3)]
    lutece = a_submission(agent="LUTEFRPPXXX")

    answers = await world.submit(nord[0], lutece, nord[1], nord[2])

    assert [status_of(answer)[0] for answer in answers] == [BankStatus.ACCEPTED] * 4
    assert sorted(len(message) for message in world.bank.messages) == [1, 3]


async def test_the_instruction_is_stored_before_anything_is_sent(world: World) -> None:
    command = a_submission()
    seen: list[str] = []
    send = world.bank.send

    async def look_then_send(**arguments: object) -> object:
        known = await world.store.find([command.payment_id])
        seen.append(known[command.payment_id].status)
        return await send(**arguments)

    world.bank.send = look_then_send

    await world.submit(command)

    assert seen == ["UNKNOWN"]


async def test_a_repeat_without_an_answer_enquires_and_sends_nothing(world: World) -> None:
    command = a_submission()
    world.bank.answers = False
    (first,) = await world.submit(command)
    world.bank.answers = True

    (second,) = await world.submit(command)

    assert status_of(first) == (BankStatus.UNKNOWN, None)
    assert status_of(second) == (BankStatus.ACCEPTED, None)
    assert len(world.bank.messages) == 1
    assert world.bank.enquiries == [[command.payment_id]]


async def test_what_the_bank_never_received_is_sent_again_under_the_same_ids(world: World) -> None:
    command = a_submission()
    world.bank.receives = False
    await world.submit(command)
    (stored,) = (await world.store.find([command.payment_id])).values()
    world.bank.receives = True

    (answer,) = await world.submit(command)

    assert status_of(answer) == (BankStatus.ACCEPTED, None)
    assert len(world.bank.messages) == 2
    ids = (stored.message_id, stored.instruction_id, stored.uetr)
    assert world.bank.received[command.end_to_end_id] == [ids]


async def test_the_same_payment_twice_in_one_batch_is_sent_once(world: World) -> None:
    command = a_submission()

    answers = await world.submit(command, command)

    assert answers[0] == answers[1]
    assert world.bank.messages == [[command.payment_id]]


async def test_twenty_concurrent_repeats_reach_the_bank_under_one_set_of_ids(world: World) -> None:
    command = a_submission()

    answers = await asyncio.gather(*(world.api.submit([command]) for _ in range(20)))

    assert {status_of(answer)[0] for (answer,) in answers} <= {BankStatus.ACCEPTED, BankStatus.UNKNOWN}
    assert len(set(world.bank.received[command.end_to_end_id])) == 1
    assert status_of((await world.submit(command))[0])[0] is BankStatus.ACCEPTED


async def test_a_lower_fencing_token_is_refused_and_a_higher_one_is_kept(world: World) -> None:
    command = a_submission(token=5)
    await world.submit(command)

    answers = [
        *await world.submit(a_submission(payment_id=command.payment_id, token=4)),
        *await world.submit(a_submission(payment_id=command.payment_id, token=9)),
        *await world.submit(a_submission(payment_id=command.payment_id, token=8)),
    ]

    assert isinstance(answers[0], StaleCommand)
    assert status_of(answers[1]) == (BankStatus.ACCEPTED, None)
    assert isinstance(answers[2], StaleCommand)


async def test_an_end_to_end_id_belongs_to_one_payment_of_a_bank(world: World) -> None:
    first = a_submission()
    await world.submit(first)

    answers = await world.submit(
        a_submission(end_to_end_id=first.end_to_end_id),
        a_submission(end_to_end_id=first.end_to_end_id, agent="LUTEFRPPXXX"),
    )

    assert isinstance(answers[0], EndToEndIdTaken)
    assert status_of(answers[1]) == (BankStatus.ACCEPTED, None)


async def test_an_unknown_bank_is_refused_for_good_and_nothing_is_sent(world: World) -> None:
    command = a_submission(agent="NOSUDEFFXXX")

    answers = [*await world.submit(command), *await world.submit(command)]

    assert [type(answer) for answer in answers] == [UnknownAgent, UnknownAgent]
    assert world.bank.messages == []


async def test_what_cannot_be_told_to_a_bank_is_refused_alone(world: World) -> None:
    answers = await world.submit(
        a_submission(amount_minor=0),
        a_submission(end_to_end_id="x" * 36),
        a_submission(end_to_end_id="é"),
        a_submission(),
    )

    assert [type(answer) for answer in answers] == [
        InvalidAmount,
        InvalidInstruction,
        InvalidInstruction,
        SubmissionStatus,
    ]


async def test_an_enquiry_learns_the_word_and_an_unknown_payment_has_no_instruction(world: World) -> None:
    command = a_submission()
    world.bank.answers = False
    await world.submit(command)
    world.bank.answers = True

    answers = await world.cli.enquire([Enquire(payment_id=command.payment_id), Enquire(payment_id=new_id())])

    assert status_of(answers[0]) == (BankStatus.ACCEPTED, None)
    assert isinstance(answers[1], InstructionNotFound)


async def test_the_first_word_stays_whatever_the_bank_says_later(world: World) -> None:
    command = a_submission()
    await world.submit(command)
    world.bank.word = BankWord(Word.REJECTED, "AC01")

    (answer,) = await world.cli.enquire([Enquire(payment_id=command.payment_id)])

    assert status_of(answer) == (BankStatus.ACCEPTED, None)


async def test_the_duty_enquires_with_growing_pauses_and_tells_confirm_the_answer_once(world: World) -> None:
    command = a_submission()
    world.bank.answers = False
    await world.submit(command)
    asked_at: list[float] = []

    for step in range(100):
        before = len(world.bank.enquiries)
        await world.api.enquire_unknown()
        if any(command.payment_id in asked for asked in world.bank.enquiries[before:]):
            asked_at.append(step * 0.5)
        world.clock.move(timedelta(seconds=0.5))
    world.bank.answers = True
    world.clock.move(timedelta(seconds=30))
    await world.api.enquire_unknown()
    await world.api.deliver_answers()
    world.clock.move(timedelta(seconds=60))
    await world.api.deliver_answers()

    assert asked_at == [2.5, 3.0, 4.0, 6.0, 10.0, 18.0, 34.0]
    told = [answer for answer in world.confirm.told if answer.payment_id == command.payment_id]
    assert [(answer.is_accepted, answer.reason_code) for answer in told] == [(True, None)]


async def test_confirm_is_told_until_it_has_heard(world: World) -> None:
    command = a_submission()
    world.bank.word = BankWord(Word.REJECTED, "AC06")
    await world.submit(command)

    for failure in (Unavailable("away"), PaymentInProgress("busy"), None):
        world.confirm.failure = failure
        world.clock.move(timedelta(seconds=31))
        await world.api.deliver_answers()
    world.clock.move(timedelta(seconds=31))
    await world.api.deliver_answers()

    told = [answer for answer in world.confirm.told if answer.payment_id == command.payment_id]
    assert [(answer.is_accepted, answer.reason_code) for answer in told] == [(False, "AC06")]


async def test_an_answer_that_confirm_refuses_for_good_is_not_told_for_ever(world: World) -> None:
    command = a_submission()
    await world.submit(command)
    world.confirm.failure = PaymentNotFound()
    world.clock.move(timedelta(seconds=6))
    await world.api.deliver_answers()
    world.confirm.failure = None

    world.clock.move(timedelta(seconds=60))
    await world.api.deliver_answers()

    assert command.payment_id not in {answer.payment_id for answer in world.confirm.told}


async def test_instructions_are_listed_newest_first_page_by_page(world: World) -> None:
    world.clock.move(timedelta(days=new_id().int % 1000))
    commands = [a_submission() for _ in range(3)]
    for command in commands:
        world.clock.move(timedelta(seconds=1))
        await world.submit(command)

    (first,) = await world.cli.list_instructions([ListInstructions(direction="OUTGOING", limit=2)])
    assert not isinstance(first, Exception)
    (second,) = await world.cli.list_instructions(
        [ListInstructions(direction="OUTGOING", status="ACCEPTED", cursor=first.next_cursor, limit=1)]
    )

    newest = [view.payment_id for view in [*first.instructions, *second.instructions]]
    assert newest == [command.payment_id for command in reversed(commands)]


async def test_names_and_accounts_are_not_readable_in_the_table(stored_world: World, database_url: str) -> None:
    command = a_submission()
    await stored_world.submit(command)
    owner = await asyncpg.connect(database_url)

    row = await owner.fetchval(
        "SELECT encode(parties_encrypted, 'escape') || instruction::text FROM partner_bank.instruction "
        "WHERE payment_id = $1",
        command.payment_id,
    )
    await owner.close()

    assert command.end_to_end_id in row
    assert "Musterfrau" not in row
    assert ERIKA not in row


async def test_a_final_status_is_never_left_even_by_a_bug(world: World) -> None:
    command = a_submission()
    await world.submit(command)

    async with world.store.transaction() as book:
        (known,) = (await book.lock([command.payment_id])).values()
        await book.save([replace(known, status=Status.REJECTED, reason_code="MS03")])

    assert status_of((await world.submit(command))[0]) == (BankStatus.ACCEPTED, None)
