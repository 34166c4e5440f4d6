"""The suite that every channel passes, each over its vendor's stand-in, and the fake beside them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from payflow.contracts.notification import Preferences
from payflow.services.notification.channels.vendor import VendorChannel
from payflow.services.notification.domain import (
    NO_ANSWER,
    NO_TIME_LEFT,
    NOT_REACHED,
    UNREADABLE_ANSWER,
    VENDOR_OUT,
    Outgoing,
    PermanentFailure,
    Sent,
    TemporaryFailure,
)
from payflow_dev.vendors.desk import Mood
from tests.builders_channels import RIGS, rigged
from tests.builders_notification import in_memory
from tests.fakes_notification import FakeContacts

TIMEOUT_S = 0.4


@pytest.fixture(params=list(RIGS))
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    async with rigged(request.param) as made:
        yield made


async def test_a_message_is_taken_once_and_the_vendors_id_of_it_is_kept(rig: Any) -> None:
    message = await rig.a_message()

    (result,) = await rig.send(message)

    (taken,) = rig.taken
    assert isinstance(result, Sent)
    assert result.vendor_id
    assert taken.recipient == rig.good
    assert taken.text in (message.short, message.body)


async def test_each_message_goes_to_its_own_customer(rig: Any) -> None:
    messages = [await rig.a_message(place, code=code) for place, code in ((rig.good, "111111"), (rig.other, "222222"))]

    results = await rig.send(*messages)

    assert [type(result) for result in results] == [Sent, Sent]
    assert {(taken.recipient, "111111" in taken.text, "222222" in taken.text) for taken in rig.taken} == {
        (rig.good, True, False),
        (rig.other, False, True),
    }


@pytest.mark.parametrize("mood", [Mood.BUSY, Mood.OUT, Mood.LOCKED])
async def test_a_refusal_for_now_is_temporary_and_the_next_try_succeeds(rig: Any, mood: Mood) -> None:
    rig.desk.be(mood)
    message = await rig.a_message()

    (first,) = await rig.send(message)
    rig.desk.be(Mood.FINE)
    # As after a pause: another process, whose breaker has seen nothing.
    rig.channel = rig.a_channel()
    (second,) = await rig.send(message)

    assert isinstance(first, TemporaryFailure)
    assert first.reason == rig.reasons[mood.value]
    assert isinstance(second, Sent)
    assert len(rig.taken) == 1


async def test_a_customer_whom_the_vendor_refuses_is_refused_at_once_and_the_neighbour_is_not(rig: Any) -> None:
    messages = [await rig.a_message(rig.refused), await rig.a_message(rig.good)]

    refused, sent = await rig.send(*messages)

    assert refused == PermanentFailure(rig.reasons["refused"])
    assert isinstance(sent, Sent)
    assert [taken.recipient for taken in rig.taken] == [rig.good]


async def test_a_customer_without_an_address_is_refused_without_a_call(rig: Any) -> None:
    message = await rig.a_message()
    if rig.name == "fake":
        pytest.skip("The fake takes any address.")
    contact = message.contact and replace(message.contact, email=None, phone=None)

    (result,) = await rig.send(replace(message, customer_id="cust_nobody", contact=contact))

    assert isinstance(result, PermanentFailure)
    assert result.reason in ("NO_ADDRESS", "NO_DEVICE")
    assert rig.desk.calls == 0


async def test_an_answer_in_another_format_is_no_success(rig: Any) -> None:
    rig.desk.be(Mood.GARBAGE)

    (result,) = await rig.send(await rig.a_message())

    assert isinstance(result, TemporaryFailure)
    assert result.reason == UNREADABLE_ANSWER
    assert result.is_outage


async def test_a_call_whose_answer_is_cut_off_may_have_arrived(rig: Any) -> None:
    rig.desk.be(Mood.CUT)

    (result,) = await rig.send(await rig.a_message())

    assert result == TemporaryFailure(NO_ANSWER, is_outage=True, is_unanswered=True)


@pytest.mark.parametrize("within_s", [None, 0.15])
async def test_a_vendor_that_says_nothing_is_not_waited_for(rig: Any, within_s: float | None) -> None:
    rig.channel = rig.a_channel(timeout_s=TIMEOUT_S)
    rig.desk.be(Mood.SILENT)
    message = await rig.a_message(code="111111" if within_s else None)
    began_at = time.monotonic()

    (result,) = await rig.send(message, within_s=within_s)

    assert result == TemporaryFailure(NO_ANSWER, is_outage=True, is_unanswered=True)
    assert time.monotonic() - began_at < (within_s or TIMEOUT_S) + 1.5


async def test_a_vendor_that_is_very_slow_counts_as_one_that_says_nothing(rig: Any) -> None:
    rig.channel = rig.a_channel(timeout_s=TIMEOUT_S)
    rig.desk.be(Mood.FINE, delay_s=TIMEOUT_S + 0.4)

    (result,) = await rig.send(await rig.a_message())

    assert result == TemporaryFailure(NO_ANSWER, is_outage=True, is_unanswered=True)


async def test_a_vendor_that_cannot_be_reached_has_certainly_nothing(rig: Any) -> None:
    await rig.hang_up()

    (result,) = await rig.send(await rig.a_message())

    assert result == TemporaryFailure(NOT_REACHED, is_outage=True)


async def test_a_vendor_that_is_out_is_left_alone_and_costs_no_time(rig: Any) -> None:
    rig.desk.be(Mood.OUT)
    for _ in range(5):
        await rig.send(await rig.a_message())
    calls, began_at = rig.desk.calls, time.monotonic()

    results = await rig.send(*[await rig.a_message(code="111111") for _ in range(20)], within_s=1.0)

    assert {result.reason for result in results} == {VENDOR_OUT}
    assert rig.desk.calls == calls
    assert time.monotonic() - began_at < 0.2


async def test_a_vendor_that_asks_for_a_pause_gets_it(rig: Any) -> None:
    rig.desk.be(Mood.BUSY, retry_after_s=30)
    (first,) = await rig.send(await rig.a_message())
    if first.retry_after is None:
        pytest.skip("The vendor has no way to ask for a pause.")

    (second,) = await rig.send(await rig.a_message())

    assert timedelta(seconds=25) < first.retry_after <= timedelta(seconds=31)
    assert second.reason == VENDOR_OUT
    assert timedelta(seconds=20) < second.retry_after <= first.retry_after
    assert rig.desk.calls == 1


async def test_a_code_does_not_wait_behind_messages_that_get_no_answer(rig: Any) -> None:
    rig.channel = rig.a_channel(timeout_s=3.0)
    await rig.send(await rig.a_message())  # signs in, where that is a call of its own
    calls = rig.desk.calls
    rig.desk.be(Mood.SILENT, calls=8)
    messages = [await rig.a_message() for _ in range(8)]
    slow = asyncio.create_task(rig.channel.send(messages))
    while rig.desk.calls < calls + 8:  # noqa: ASYNC110 - it happens at the stand-in
        await asyncio.sleep(0.01)
    began_at = time.monotonic()

    (result,) = await rig.send(await rig.a_message(code="111111"), within_s=1.0)

    slow.cancel()
    await asyncio.gather(slow, return_exceptions=True)
    assert isinstance(result, Sent)
    assert time.monotonic() - began_at < 0.5


async def test_a_code_that_gets_no_place_in_time_is_told_so(rig: Any) -> None:
    rig.desk.be(Mood.SILENT)
    messages = [await rig.a_message(code="111111") for _ in range(66)]

    results = await rig.send(*messages, within_s=0.2)

    assert {result.reason for result in results} <= {NO_ANSWER, NO_TIME_LEFT, VENDOR_OUT}
    assert not any(isinstance(result, Sent) for result in results)


async def test_a_call_that_misses_its_end_is_ended_all_the_same() -> None:
    """As Python 3.11's `wait_for` does, where a cancellation comes together with an answer."""

    class Deaf:
        needs_contact = False

        async def deliver(self, message: Outgoing) -> Sent:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(20)
            await asyncio.sleep(20)
            return Sent("V-1")

    channel = VendorChannel(name="email", vendor=Deaf(), carries_codes=True, timeout_s=5, calls_max=1)
    async with rigged("fake") as rig:
        message = await rig.a_message(code="111111")
    began_at = time.monotonic()

    (result,) = await channel.send([message], within_s=0.2)

    assert result == TemporaryFailure(NO_ANSWER, is_outage=True, is_unanswered=True)
    assert time.monotonic() - began_at < 2


async def test_neither_a_log_nor_a_result_names_a_code_a_key_or_an_address(
    rig: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[Any] = []
    messages = [await rig.a_message(place, code="735264") for place in (rig.good, rig.refused)]
    with capture_logs() as lines:
        for mood in Mood:
            rig.desk.be(mood)
            rig.channel = rig.a_channel()
            told += await rig.send(*messages, within_s=0.3)
            told += [repr(message) for message in messages]
        await rig.hang_up()
        for _ in range(6):
            told += await rig.send(*messages, within_s=0.3)

    # Names and labels: six digits are soon found in the numbers, and any word in what explains a metric.
    lines_of_metrics = [line for line in generate_latest().decode().splitlines() if not line.startswith("#")]
    metrics = [line.rpartition(" ")[0] for line in lines_of_metrics]
    said = "\n".join(map(repr, [*told, *lines, *caplog.messages, *metrics]))
    assert "vendor_out" in said
    for secret in ("735264", rig.good, rig.refused, "Lovelace", *rig.secrets):
        assert secret.removeprefix("+") not in said


async def test_a_message_that_may_have_arrived_is_not_read_twice(rig: Any) -> None:
    rig.desk.be(Mood.CUT, calls=1)
    message = await rig.a_message()
    (lost,) = await rig.send(message)

    (result,) = await rig.send(replace(message, tries=2, is_doubtful=True))

    identities = {
        "sms": lambda taken: taken.reference,
        "email": lambda taken: taken.fields["headers"]["Message-ID"],
        "push": lambda taken: (
            taken.fields["android"]["notification"]["tag"],
            taken.fields["apns"]["headers"]["apns-collapse-id"],
        ),
        "fake": lambda taken: taken.reference,
    }
    assert lost.is_unanswered
    assert isinstance(result, Sent)
    # SMS: found in the account's list and not sent again. The others carry one identity, and are shown once.
    assert len({identities[rig.name](taken) for taken in rig.taken}) == 1
    assert len(rig.taken) == (1 if rig.name == "sms" else 2)


async def test_a_message_that_was_put_off_is_sent_after_a_pause_by_the_duty(rig: Any) -> None:
    world = in_memory()
    message = await rig.a_message()
    world.customer_id = message.customer_id
    world.use(rig.channel, contacts=FakeContacts({message.customer_id: rig.contact(rig.good)}))
    rig.desk.be(Mood.OUT, calls=1)
    await world.hear(world.an_event())

    await world.api.deliver_due()
    put_off = await world.messages()
    await world.api.deliver_due()
    world.clock.move(timedelta(seconds=5))
    await world.api.deliver_due()

    assert [(view.state, view.reason) for view in put_off] == [("PENDING", rig.reasons["out"])]
    assert [(view.state, view.reason, view.sent_at) for view in await world.messages()] == [
        ("SENT", None, world.clock.now())
    ]
    assert len(rig.taken) == 1


async def test_a_backlog_is_worked_off_whatever_its_length_and_costs_no_tries(rig: Any) -> None:
    world = in_memory()
    message = await rig.a_message()
    world.customer_id = message.customer_id
    world.use(rig.channel, contacts=FakeContacts({message.customer_id: rig.contact(rig.good)}))
    rig.desk.be(Mood.FINE, delay_s=0.05)
    await world.hear(*(world.an_event() for _ in range(40)))

    await world.api.deliver_due()

    assert {view.state for view in await world.messages()} == {"SENT"}
    assert len(rig.taken) == 40


async def test_a_message_that_is_refused_goes_the_customers_next_way(rig: Any) -> None:
    world = in_memory()
    async with rigged("fake") as second:
        message = await rig.a_message(rig.refused)
        world.customer_id = message.customer_id
        contact = rig.contact(rig.refused)
        second.channel.name = "second"
        world.use(second.channel, rig.channel, contacts=FakeContacts({message.customer_id: contact}))
        await world.cli.set_preferences([Preferences(customer_id=world.customer_id, channels=[rig.name, "second"])])
        if rig.name == "fake":
            second.desk.be(Mood.FINE)

        await world.hear(world.an_event())
        await world.api.deliver_due()
        await world.api.deliver_due()
        await world.otp.send_otp_codes([world.a_code()])

        views = [(view.kind, view.channel, view.state) for view in await world.messages()]
    refused_there = "FAILED" if contact.phone == "nobody" else "SENT"
    assert views == [
        ("otp_code", rig.name, "FAILED"),
        ("otp_code", "second", refused_there),
        ("payment_completed", rig.name, "FAILED"),
        ("payment_completed", "second", refused_there),
    ]
