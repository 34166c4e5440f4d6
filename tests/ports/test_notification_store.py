"""One suite for the notification service over its in-memory ports and over PostgreSQL, through the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from payflow.contracts.account import Account, CustomerNotFound
from payflow.contracts.notification import (
    DemoCode,
    FindDemoCode,
    ListMessages,
    MessageAccepted,
    MessageList,
    MessageView,
    NoDemoChannel,
    NoMessage,
    Notification,
    Preferences,
    SendOtpCode,
    UnknownPreference,
)
from payflow.contracts.topics import PaymentChanged
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import event_of
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.notification.api import NotificationApi
from payflow.services.notification.channels.demo import DemoChannel
from payflow.services.notification.channels.log import LogChannel
from payflow.services.notification.contacts import AccountContacts
from payflow.services.notification.domain import Contact, PermanentFailure, TemporaryFailure
from payflow.services.notification.store import PostgresStore
from payflow.services.notification.templates import FileTemplates
from payflow.services.notification.usecases.notices import queue_notices
from tests.builders import NOON, FixedClock, new_id
from tests.fakes_notification import FakeChannel, FakeContacts, FakeDemoChannel, FakeNotificationStore


class RisingIds:
    """Identifiers that rise also within one millisecond, so that "newest first" can be told."""

    def __init__(self) -> None:
        self._last = new_id().int

    def new(self) -> UUID:
        self._last += 1
        return UUID(int=self._last)


class World:
    """The notification service with customers of a test's own."""

    def __init__(self, store: Any, demo: Any, clock: FixedClock) -> None:
        self.store = store
        self.demo = demo
        self.clock = clock
        self.ids = RisingIds()
        self.contacts = FakeContacts()
        self.templates = FileTemplates.load()
        self.customer_id = f"cust_{new_id().hex}"
        self.use(demo, LogChannel())

    def use(self, *channels: Any, contacts: Any = None) -> None:
        """Go on with these channels, the preferred one first."""
        self.channels = [channel.name for channel in channels]
        self.api = NotificationApi(
            store=self.store,
            channels=channels,
            demo=self.demo if self.demo in channels else None,
            contacts=contacts or self.contacts,
            templates=self.templates,
            clock=self.clock,
            ids=self.ids,
        )
        self.otp: Notification = in_process(Notification, self.api, caller="otp")
        self.cli: Notification = in_process(Notification, self.api, caller="cli")

    async def hear(self, *events: Event) -> None:
        async with self.store.transaction() as messages:
            await queue_notices(
                events=events,
                messages=messages,
                channels=self.channels,
                templates=self.templates,
                ids=self.ids,
                now=self.clock.now(),
            )

    async def messages(self, customer_id: str = "") -> list[MessageView]:
        (answer,) = await self.cli.list_messages([ListMessages(customer_id=customer_id or self.customer_id)])
        assert isinstance(answer, MessageList)
        return answer.messages

    def a_code(self, code: str = "012345", **changes: Any) -> SendOtpCode:
        values: dict[str, Any] = {
            "challenge_id": new_id(),
            "customer_id": self.customer_id,
            "transaction_id": f"txn_{new_id().hex}",
            "code": code,
            "amount": "15000.00",
            "currency": "USD",
            "creditor": "…1001",
            "expires_at": self.clock.now() + timedelta(minutes=5),
        }
        return SendOtpCode(**{**values, **changes})

    def an_event(self, type_: str = "payment.completed", *, payment_id: UUID | None = None) -> Event:
        payment_id = payment_id or new_id()
        data = PaymentChanged(
            payment_id=payment_id,
            transaction_id="txn_001",
            customer_id=self.customer_id,
            state="COMPLETED",
            path=["RECEIVED", "COMPLETED"],
            amount_minor=100_000,
            currency="USD",
            debtor_account="…C001",
            creditor_account="…C002",
        )
        return event_of(
            id=new_id(),
            source="confirm",
            type=type_,
            subject=str(payment_id),
            version=1,
            time=NOON,
            data=data,
            traceparent="",
        )


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> World:
    clock = FixedClock()
    if request.param == "memory":
        return World(FakeNotificationStore(), FakeDemoChannel(clock), clock)
    database = await connect_as("notification")
    # Messages of the other tests of this module are not due in this one's time.
    await database.execute("UPDATE delivery SET next_try_at = 'infinity' WHERE state = 'PENDING'")
    return World(PostgresStore(database=database), DemoChannel(database=database, cipher=cipher, clock=clock), clock)


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


async def test_an_event_becomes_one_message_that_the_duty_delivers(world: World) -> None:
    event = world.an_event()
    await world.hear(event)
    world.clock.move(timedelta(seconds=1))

    queued = await world.messages()
    await world.api.deliver_due()
    delivered = await world.messages()

    assert [(view.kind, view.channel, view.state, view.delivered_at) for view in queued] == [
        ("payment_completed", "demo", "PENDING", None)
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
    await world.hear(world.an_event())
    now = world.clock.now()

    first = await world.store.claim_due(now=now, until=now + timedelta(seconds=30), limit=10)
    meanwhile = await world.store.claim_due(now=now, until=now + timedelta(seconds=30), limit=10)
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
    await world.cli.set_preferences([Preferences(customer_id=world.customer_id, channels=["push", "sms"])])
    await world.hear(world.an_event())

    await world.api.deliver_due()

    assert [(view.channel, view.state) for view in await world.messages()] == [
        ("push", "DELIVERED"),
        ("sms", "PENDING"),
    ]


async def test_a_customer_is_written_to_in_the_language_and_by_the_channel_it_prefers(world: World) -> None:
    preference = Preferences(customer_id=world.customer_id, language="de", channels=["log"])
    await world.cli.set_preferences([Preferences(customer_id=world.customer_id)])

    answers = await world.cli.set_preferences([preference])
    await world.hear(world.an_event())
    await world.otp.send_otp_codes([world.a_code()])

    assert answers == [preference]
    assert [(view.channel, view.subject) for view in await world.messages()] == [
        ("demo", "Ihr Code für eine Zahlung über 15000.00 USD"),
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
