"""A message goes the next way when one fails, over the in-memory ports and over PostgreSQL."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from payflow.contracts.notification import GetPreferences, MessageAccepted, Preferences
from payflow.kernel.errors import Unavailable
from payflow.platform.context import current_deadline
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.services.notification.channels.log import LogChannel
from payflow.services.notification.domain import PermanentFailure, Sent, TemporaryFailure
from tests.builders_notification import World, in_memory, over_postgres
from tests.fakes_notification import FakeChannel


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> World:
    if request.param == "memory":
        return in_memory()
    return await over_postgres(await connect_as("notification"), cipher)


def three(world: World) -> tuple[FakeChannel, FakeChannel, FakeChannel]:
    """SMS, push and e-mail in use; a vendor takes what it is given."""
    channels = FakeChannel("sms"), FakeChannel("push"), FakeChannel("email")
    for channel in channels:
        channel.answer = lambda message: Sent(f"V-{message.channel}")
    world.use(*channels, LogChannel())
    return channels


async def states(world: World) -> list[tuple[str, str, str | None]]:
    return [(view.channel, view.state, view.reason) for view in await world.messages()]


async def test_a_message_goes_one_way_while_that_way_works(world: World) -> None:
    sms, push, email = three(world)
    await world.hear(world.an_event())

    await world.api.deliver_due()
    await world.api.deliver_due()

    assert [len(channel.sent) for channel in (sms, push, email)] == [1, 0, 0]
    assert await states(world) == [("sms", "SENT", None)]


async def test_a_way_that_refuses_is_followed_by_the_next_at_once(world: World) -> None:
    sms, push, email = three(world)
    sms.answer = lambda _: PermanentFailure("NO_ADDRESS")
    push.answer = lambda _: PermanentFailure("NO_DEVICE")
    await world.hear(world.an_event())

    for _ in range(3):
        await world.api.deliver_due()

    assert await states(world) == [
        ("sms", "FAILED", "NO_ADDRESS"),
        ("push", "FAILED", "NO_DEVICE"),
        ("email", "SENT", None),
    ]
    assert [len(channel.sent) for channel in (sms, push, email)] == [1, 1, 1]


async def test_a_way_that_is_out_is_tried_four_times_and_then_the_next(world: World) -> None:
    sms, push, _ = three(world)
    sms.answer = lambda _: TemporaryFailure("OUT", is_outage=True)
    await world.hear(world.an_event())
    tried = []
    for _ in range(6):
        await world.api.deliver_due()
        tried.append((len(sms.sent), len(push.sent)))
        world.clock.move(timedelta(seconds=45))

    assert tried == [(1, 0), (2, 0), (3, 0), (4, 0), (4, 1), (4, 1)]
    assert await states(world) == [("sms", "FAILED", "OUT"), ("push", "SENT", None)]


async def test_the_ways_are_the_customers_own_in_their_own_order_and_no_others(world: World) -> None:
    sms, push, email = three(world)
    preference = Preferences(customer_id=world.customer_id, language="de", channels=["email", "push"])
    await world.cli.set_preferences([preference])
    for channel in (email, push):
        channel.answer = lambda _: PermanentFailure("GONE")
    await world.hear(world.an_event())

    for _ in range(4):
        await world.api.deliver_due()

    assert await world.cli.get_preferences([GetPreferences(customer_id=world.customer_id)]) == [preference]
    assert await world.cli.get_preferences([GetPreferences(customer_id="cust_nobody")]) == [
        Preferences(customer_id="cust_nobody")
    ]
    assert await states(world) == [("email", "FAILED", "GONE"), ("push", "FAILED", "GONE")]
    assert sms.sent == []


async def test_what_a_channel_that_is_no_longer_in_use_has_left_goes_the_next_way(world: World) -> None:
    three(world)
    await world.hear(world.an_event())
    email = FakeChannel("email")
    world.use(FakeChannel("push"), email)
    for _ in range(5):
        await world.api.deliver_due()
        world.clock.move(timedelta(minutes=2))

    assert await states(world) == [("sms", "FAILED", "CHANNEL_NOT_IN_USE"), ("push", "DELIVERED", None)]


async def test_a_try_that_was_not_answered_is_told_to_the_next_try_and_one_that_was_is_not(world: World) -> None:
    sms, _, _ = three(world)
    answers = iter([TemporaryFailure("NO_ANSWER", is_unanswered=True), TemporaryFailure("BUSY"), Sent("V-1")])
    sms.answer = lambda _: next(answers)
    await world.hear(world.an_event())
    for _ in range(3):
        await world.api.deliver_due()
        world.clock.move(timedelta(minutes=1))

    assert [(message.tries, message.is_doubtful) for message in sms.sent] == [(1, False), (2, True), (3, False)]


async def test_a_message_whose_process_died_in_the_middle_may_have_arrived(world: World) -> None:
    sms, _, _ = three(world)
    await world.hear(world.an_event())
    now = world.clock.now()
    await world.store.claim_due(channel="sms", in_use=["sms"], now=now, until=now + timedelta(seconds=30), limit=10)

    world.clock.move(timedelta(seconds=31))
    await world.api.deliver_due()

    assert [(message.tries, message.is_doubtful) for message in sms.sent] == [(2, True)]


async def test_a_code_goes_the_next_way_within_its_call(world: World) -> None:
    sms, push, email = three(world)
    sms.answer = lambda _: TemporaryFailure("OUT", is_outage=True)
    push.answer = lambda _: PermanentFailure("NO_DEVICE")
    command = world.a_code("111111")

    answers = await world.otp.send_otp_codes([command])
    again = await world.otp.send_otp_codes([command])

    (accepted,) = answers
    assert isinstance(accepted, MessageAccepted)
    assert accepted.channel == "email"
    assert again == answers
    assert [len(channel.sent) for channel in (sms, push, email)] == [1, 1, 1]
    assert [message.code for message in email.sent] == ["111111"]
    assert sorted(await states(world)) == [
        ("email", "SENT", None),
        ("push", "FAILED", "NO_DEVICE"),
        ("sms", "PENDING", "OUT"),
    ]


async def test_a_code_that_no_way_took_is_tried_by_all_that_may_still_help_when_it_is_asked_for_again(
    world: World,
) -> None:
    sms, push, email = three(world)
    for channel in (sms, email):
        channel.answer = lambda _: TemporaryFailure("OUT", is_outage=True)
    push.answer = lambda _: PermanentFailure("NO_DEVICE")
    command = world.a_code()

    (failed,) = await world.otp.send_otp_codes([command])
    sms.answer = lambda _: Sent("V-1")
    (repeated,) = await world.otp.send_otp_codes([command])

    assert isinstance(failed, Unavailable)
    assert isinstance(repeated, MessageAccepted)
    assert [len(channel.sent) for channel in (sms, push, email)] == [2, 1, 1]


async def test_codes_of_one_call_fall_over_each_for_itself(world: World) -> None:
    sms, push, _ = three(world)
    sms.answer = lambda message: Sent("V-1") if message.code == "111111" else PermanentFailure("BAD")

    answers = await world.otp.send_otp_codes([world.a_code("111111"), world.a_code("222222")])

    assert [answer.channel for answer in answers if isinstance(answer, MessageAccepted)] == ["sms", "push"]
    assert [message.code for message in push.sent] == ["222222"]


class SlowChannel(FakeChannel):
    """Never answers; gives up when it is told to."""

    async def send(self, messages: Any, *, within_s: float | None = None) -> Any:
        assert within_s is not None
        await asyncio.sleep(within_s)
        return [TemporaryFailure("NO_ANSWER", is_outage=True, is_unanswered=True) for _ in messages]


@pytest.mark.parametrize(("deadline_s", "slow_ones", "is_sent"), [(None, 1, True), (1.6, 1, True), (0.3, 1, False)])
async def test_a_code_falls_over_while_its_caller_still_waits(
    world: World, deadline_s: float | None, slow_ones: int, is_sent: bool
) -> None:
    email = FakeChannel("email")
    world.use(SlowChannel("sms"), email)
    began_at = time.monotonic()
    if deadline_s is not None:
        current_deadline.set(asyncio.get_running_loop().time() + deadline_s)

    try:
        (answer,) = await world.api.send_otp_codes([world.a_code()])
    finally:
        current_deadline.set(None)

    assert isinstance(answer, MessageAccepted) == is_sent
    assert isinstance(answer, MessageAccepted | Unavailable)
    assert time.monotonic() - began_at < (deadline_s or 2.5)
    assert len(email.sent) == is_sent


class SlowContacts:
    """The account service, which says nothing."""

    async def contacts(self, customer_ids: Any) -> Any:
        await asyncio.sleep(30)


async def test_a_code_does_not_wait_for_an_address_that_is_not_told(world: World) -> None:
    sms, push = FakeChannel("sms", needs_contact=True), FakeChannel("push")
    world.use(sms, push, contacts=SlowContacts())
    began_at = time.monotonic()

    (answer,) = await world.api.send_otp_codes([world.a_code()])

    assert isinstance(answer, MessageAccepted)
    assert (answer.channel, len(sms.sent)) == ("push", 0)
    assert time.monotonic() - began_at < 2.5


async def test_the_text_of_a_code_is_stored_nowhere_whichever_way_it_went(world: World) -> None:
    sms, _, _ = three(world)
    sms.answer = lambda _: PermanentFailure("BAD")
    await world.otp.send_otp_codes([world.a_code("735264")])

    views = await world.messages()

    assert "735264" not in repr(views)
    assert len(views) == 2
