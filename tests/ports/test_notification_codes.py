"""One-time codes over the in-memory ports and over PostgreSQL: sent once, found by the demo, kept nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from payflow.contracts.notification import (
    DemoCode,
    FindDemoCode,
    MessageAccepted,
    NoDemoChannel,
    NoMessage,
)
from payflow.kernel.errors import Unavailable
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.services.notification.channels.log import LogChannel
from payflow.services.notification.domain import PermanentFailure, TemporaryFailure
from tests.builders_notification import World, in_memory, over_postgres
from tests.fakes_notification import FakeChannel


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> World:
    if request.param == "memory":
        return in_memory()
    return await over_postgres(await connect_as("notification"), cipher)


async def test_a_code_is_found_by_its_transaction(world: World) -> None:
    command = world.a_code()

    sent = await world.otp.send_otp_codes([command])
    found = await world.cli.find_demo_codes([FindDemoCode(transaction_id=command.transaction_id)])

    assert [answer.channel for answer in sent if isinstance(answer, MessageAccepted)] == ["demo"]
    assert found == [
        DemoCode(
            transaction_id=command.transaction_id,
            customer_id=world.customer_id,
            code="012345",
            sent_at=world.clock.now(),
            expires_at=command.expires_at,
        )
    ]


async def test_the_newest_code_is_found_of_any_customer_or_of_the_one_named(world: World) -> None:
    first = world.a_code("111111")
    await world.otp.send_otp_codes([first])
    world.clock.move(timedelta(seconds=1))
    await world.otp.send_otp_codes([world.a_code("222222", transaction_id=first.transaction_id)])
    world.clock.move(timedelta(seconds=1))
    await world.otp.send_otp_codes(
        [world.a_code("333333", transaction_id=first.transaction_id, customer_id="cust_else")]
    )

    answers = await world.cli.find_demo_codes(
        [
            FindDemoCode(transaction_id=first.transaction_id),
            FindDemoCode(transaction_id=first.transaction_id, customer_id=world.customer_id),
            FindDemoCode(transaction_id=first.transaction_id, customer_id="cust_nobody"),
            FindDemoCode(transaction_id="txn_nobody"),
        ]
    )

    assert [answer.code for answer in answers] == ["333333", "222222", "MESSAGE_NOT_FOUND", "MESSAGE_NOT_FOUND"]
    assert isinstance(answers[-1], NoMessage)


async def test_a_repeat_for_the_same_challenge_sends_nothing_and_gets_the_same_message(world: World) -> None:
    sms, command = FakeChannel(), world.a_code()
    world.use(sms)

    first = await world.otp.send_otp_codes([command])
    again = await world.otp.send_otp_codes([command, command])

    assert isinstance(first[0], MessageAccepted)
    assert again == first * 2
    assert len(sms.sent) == 1
    assert len(await world.messages()) == 1


async def test_calls_at_the_same_moment_send_a_code_once(world: World) -> None:
    sms, command = FakeChannel(), world.a_code()
    world.use(sms)

    answers = await asyncio.gather(*(world.api.send_otp_codes([command]) for _ in range(10)))

    assert len(sms.sent) == 1
    assert {type(answer) for (answer,) in answers} <= {MessageAccepted, Unavailable}
    assert any(isinstance(answer, MessageAccepted) for (answer,) in answers)
    assert isinstance((await world.api.send_otp_codes([command]))[0], MessageAccepted)


async def test_a_code_that_the_channel_did_not_take_is_unavailable_and_sent_by_the_repeat(world: World) -> None:
    sms, commands = FakeChannel(), [world.a_code("111111"), world.a_code("222222")]
    sms.answer = lambda message: TemporaryFailure("busy") if message.code == "111111" else PermanentFailure("gone")
    world.use(sms)
    failed = await world.otp.send_otp_codes(commands)
    sms.answer = FakeChannel().answer

    repeated = await world.otp.send_otp_codes(commands)

    assert [type(answer) for answer in failed] == [Unavailable, Unavailable]
    assert [type(answer) for answer in repeated] == [MessageAccepted, Unavailable]
    assert sorted(message.code or "" for message in sms.sent) == ["111111", "111111", "222222"]


async def test_a_channel_that_breaks_down_leaves_the_code_to_the_repeat(world: World) -> None:
    def break_down(_: object) -> Any:
        raise OSError("the line with 111111 was cut")

    sms, command = FakeChannel(), world.a_code("111111")
    sms.answer = break_down
    world.use(sms)
    failed = await world.otp.send_otp_codes([command])
    sms.answer = FakeChannel().answer

    repeated = await world.otp.send_otp_codes([command])

    assert [type(failed[0]), type(repeated[0])] == [Unavailable, MessageAccepted]


async def test_without_a_channel_for_codes_nothing_is_sent_and_nothing_is_found(world: World) -> None:
    world.use(LogChannel())
    command = world.a_code()

    sent = await world.otp.send_otp_codes([command])
    found = await world.cli.find_demo_codes([FindDemoCode(transaction_id=command.transaction_id)])

    assert [type(sent[0]), type(found[0])] == [Unavailable, NoDemoChannel]
    assert await world.messages() == []
