"""Messages, deliveries and preferences over the in-memory ports and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from payflow.contracts.account import Account, CustomerNotFound
from payflow.contracts.notification import (
    ListMessages,
    MessageList,
    Preferences,
    UnknownPreference,
)
from payflow.kernel.errors import Unavailable
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.notification.contacts import AccountContacts
from payflow.services.notification.domain import Contact, TemporaryFailure
from tests.builders_notification import World, in_memory, over_postgres
from tests.fakes_notification import FakeChannel, FakeContacts


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> World:
    if request.param == "memory":
        return in_memory()
    return await over_postgres(await connect_as("notification"), cipher)


async def test_a_channel_that_only_keeps_messages_has_delivered_one_when_it_is_stored(world: World) -> None:
    event = world.an_event()
    await world.hear(event)
    await world.hear(event)

    (view,) = await world.messages()
    now = world.clock.now()
    due = await world.store.claim_due(channel="demo", in_use=["demo"], now=now, until=now, limit=10)

    assert (view.channel, view.state, view.delivered_at) == ("demo", "DELIVERED", world.clock.now())
    assert due == []


async def test_an_event_becomes_one_message_that_the_duty_delivers(world: World) -> None:
    world.use(FakeChannel())
    event = world.an_event()
    await world.hear(event)
    world.clock.move(timedelta(seconds=1))

    queued = await world.messages()
    await world.api.deliver_due()
    delivered = await world.messages()

    assert [(view.kind, view.channel, view.state, view.delivered_at) for view in queued] == [
        ("payment_completed", "sms", "PENDING", None)
    ]
    assert [(view.state, view.subject, view.delivered_at) for view in delivered] == [
        ("DELIVERED", "Payment txn_001 was made", world.clock.now())
    ]


async def test_an_event_that_comes_again_is_told_once(world: World) -> None:
    event = world.an_event()
    other_kind = world.an_event("payment.under_review", payment_id=UUID(event.subject))

    await world.hear(event, event, other_kind)
    await world.hear(event, other_kind)

    assert sorted(view.kind for view in await world.messages()) == ["payment_completed", "payment_under_review"]


async def test_messages_are_listed_newest_first_and_as_many_as_asked_for(world: World) -> None:
    for _ in range(3):
        await world.hear(world.an_event())
    await world.otp.send_otp_codes([world.a_code()])

    (answer,) = await world.cli.list_messages([ListMessages(customer_id=world.customer_id, limit=2)])

    everything = await world.messages()
    assert isinstance(answer, MessageList)
    assert [view.kind for view in everything] == ["otp_code", *["payment_completed"] * 3]
    assert answer.messages == everything[:2]
    assert await world.messages("cust_nobody") == []


async def test_a_failed_delivery_is_tried_again_later_and_given_up_at_last(world: World) -> None:
    sms = FakeChannel()
    sms.answer = lambda _: TemporaryFailure("busy")
    world.use(sms)
    await world.hear(world.an_event())
    tries = []
    for _ in range(12):
        await world.api.deliver_due()
        await world.api.deliver_due()
        tries.append(len(sms.sent))
        world.clock.move(timedelta(hours=2))

    (view,) = await world.messages()

    assert tries == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 8, 8]
    assert (view.state, view.delivered_at) == ("FAILED", None)


async def test_a_message_that_its_process_left_behind_is_taken_again_when_the_claim_runs_out(world: World) -> None:
    world.use(FakeChannel())
    await world.hear(world.an_event())
    now = world.clock.now()

    until = now + timedelta(seconds=30)
    first = await world.store.claim_due(channel="sms", in_use=["sms"], now=now, until=until, limit=10)
    meanwhile = await world.store.claim_due(channel="sms", in_use=["sms"], now=now, until=until, limit=10)
    world.clock.move(timedelta(seconds=30))
    await world.api.deliver_due()

    assert [len(first), len(meanwhile)] == [1, 0]
    assert [view.state for view in await world.messages()] == ["DELIVERED"]


async def test_two_processes_send_each_message_once(world: World) -> None:
    sms = FakeChannel()
    world.use(sms)
    await world.hear(*(world.an_event() for _ in range(50)))

    await asyncio.gather(*(world.api.deliver_due() for _ in range(3)))

    assert len(sms.sent) == 50
    assert len({message.message_id for message in sms.sent}) == 50


async def test_a_broken_channel_does_not_keep_the_messages_of_the_others(world: World) -> None:
    def break_down(_: object) -> Any:
        raise RuntimeError("broken")

    sms, push = FakeChannel("sms"), FakeChannel("push")
    sms.answer = break_down
    world.use(sms, push)
    other = world.another_customer()
    await world.cli.set_preferences([Preferences(customer_id=world.customer_id, channels=["sms"])])
    await world.cli.set_preferences([Preferences(customer_id=other, channels=["push"])])
    await world.hear(world.an_event(), world.an_event(customer_id=other))

    await world.api.deliver_due()

    assert [(view.channel, view.state) for view in await world.messages()] == [("sms", "PENDING")]
    assert [(view.channel, view.state) for view in await world.messages(other)] == [("push", "DELIVERED")]


async def test_a_customer_is_written_to_in_the_language_and_by_the_channel_it_prefers(world: World) -> None:
    preference = Preferences(customer_id=world.customer_id, language="de", channels=["log"])
    await world.cli.set_preferences([Preferences(customer_id=world.customer_id)])

    answers = await world.cli.set_preferences([preference])
    await world.hear(world.an_event())
    await world.otp.send_otp_codes([world.a_code()])

    assert answers == [preference]
    assert [(view.channel, view.subject) for view in await world.messages()] == [
        ("demo", "Ihr Code für eine Zahlung über 15.000,00 USD"),
        ("log", "Zahlung txn_001 wurde ausgeführt"),
    ]


@pytest.mark.parametrize(
    "wrong", [{"language": "xx"}, {"channels": ["sms"]}, {"channels": ["log", "log"]}, {"language": ""}]
)
async def test_an_unknown_language_or_channel_is_refused_alone(world: World, wrong: dict[str, Any]) -> None:
    answers = await world.cli.set_preferences(
        [Preferences(customer_id="cust_x", **wrong), Preferences(customer_id=world.customer_id, language="de")]
    )

    assert [type(answer) for answer in answers] == [UnknownPreference, Preferences]


async def test_contact_data_is_asked_for_only_by_a_channel_that_needs_it(world: World) -> None:
    await world.hear(world.an_event())
    await world.otp.send_otp_codes([world.a_code()])
    await world.api.deliver_due()
    asked_by_demo = list(world.contacts.asked)
    sms = FakeChannel(needs_contact=True)
    contact = Contact(name="Ada", email=None, phone="+441")
    world.use(sms, contacts=FakeContacts({world.customer_id: contact}))

    await world.otp.send_otp_codes([world.a_code()])

    assert asked_by_demo == []
    assert [message.contact for message in sms.sent] == [contact]


async def test_a_customer_who_is_not_known_gets_nothing_and_one_who_cannot_be_asked_for_gets_it_later(
    world: World,
) -> None:
    sms = FakeChannel(needs_contact=True)
    world.use(sms, contacts=FakeContacts({world.customer_id: CustomerNotFound()}))
    await world.hear(world.an_event())
    await world.api.deliver_due()
    world.use(sms, contacts=FakeContacts({world.customer_id: Unavailable("down")}))
    await world.hear(world.an_event())
    await world.api.deliver_due()

    assert [view.state for view in await world.messages()] == ["PENDING", "FAILED"]
    assert sms.sent == []


async def test_contact_data_comes_from_the_account_service() -> None:
    class Customers:
        """The one operation of the account service that is used."""

        def __getattr__(self, name: str) -> Any:
            async def answer(queries: list[Any]) -> list[Any]:
                assert name == "get_customers"
                return [CustomerNotFound() for _ in queries]

            return answer

    contacts = AccountContacts(in_process(Account, Customers(), caller="notification"))

    assert await contacts.contacts(["cust_001"]) == {"cust_001": CustomerNotFound()}


async def test_old_messages_are_forgotten_with_their_deliveries(world: World) -> None:
    await world.hear(world.an_event())
    await world.otp.send_otp_codes([world.a_code()])
    world.clock.move(timedelta(days=91))
    await world.hear(world.an_event())

    await world.api.forget_old(timedelta(days=90))

    assert len(await world.messages()) == 1
