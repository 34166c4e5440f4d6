"""Deliveries to webhooks over the in-memory ports and over PostgreSQL, through the contract: tried, given up."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from payflow.contracts.notification import (
    GetWebhook,
    RedeliverWebhook,
    SendWebhookTest,
    WebhookDeliveryNotFound,
    WebhookDeliveryState,
    WebhookNotFound,
    WebhookState,
)
from payflow.kernel.errors import Unavailable
from payflow.platform.crypto import ColumnCipher
from payflow.services.notification.domain import webhooks as domain
from payflow.services.notification.domain.webhooks import Reply
from tests.builders import new_id
from tests.builders_webhooks import (
    ANYWHERE,
    WebhookWorld,
    a_payment_event,
    result,
    until_at_least,
    view,
    webhooks_in_memory,
    webhooks_over_postgres,
)
from tests.conftest import ConnectAs

PENDING, DELIVERED, FAILED = (
    WebhookDeliveryState.PENDING,
    WebhookDeliveryState.DELIVERED,
    WebhookDeliveryState.FAILED,
)


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: ConnectAs, database_url: str, cipher: ColumnCipher
) -> WebhookWorld:
    if request.param == "memory":
        return webhooks_in_memory()
    return await webhooks_over_postgres(connect_as, database_url, cipher)


async def test_a_registered_webhook_is_told_of_events_once_each(world: WebhookWorld) -> None:
    webhook_id = await world.register(event_types=("payment.completed",))
    wanted, other = a_payment_event(), a_payment_event("payment.rejected")

    await world.hear(wanted, other)
    await world.hear(wanted)
    calls = await world.send_due()

    (delivery,) = await world.deliveries(webhook_id)
    assert calls == 1
    assert (world.sender.sent[0].event_id, world.sender.sent[0].url) == (wanted.id, ANYWHERE)
    assert (delivery.state, delivery.attempts, delivery.status_code) == (DELIVERED, 1, 200)
    assert (delivery.event_id, delivery.subject, delivery.event_type) == (wanted.id, wanted.subject, wanted.type)
    assert (delivery.delivered_at, delivery.next_attempt_at) == (world.clock.now(), None)


async def test_each_webhook_hears_of_its_own_customer(world: WebhookWorld) -> None:
    first = await world.register(customer_id="cust_1")
    second = await world.register(customer_id="cust_2")
    everybody = await world.register()

    await world.hear(a_payment_event(customer_id="cust_1"), a_payment_event(customer_id="cust_3"))

    assert [len(await world.deliveries(webhook_id)) for webhook_id in (first, second, everybody)] == [1, 0, 2]


async def test_a_failed_call_is_made_again_on_schedule_with_the_same_event(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    world.sender.answer = lambda _: Reply(None, "CANNOT_CONNECT")
    await world.hear(a_payment_event())

    calls = [await world.send_due()]
    (waiting,) = await world.deliveries(webhook_id)
    world.clock.move(timedelta(seconds=4))
    calls.append(await world.send_due())
    world.clock.move(timedelta(seconds=1))
    world.sender.answer = lambda _: Reply(200)
    calls.append(await world.send_due())
    (delivered,) = await world.deliveries(webhook_id)

    assert calls == [1, 0, 1]
    assert (waiting.state, waiting.error, waiting.status_code) == (PENDING, "CANNOT_CONNECT", None)
    assert waiting.next_attempt_at == waiting.created_at + timedelta(seconds=5)
    assert (delivered.state, delivered.attempts, delivered.error) == (DELIVERED, 2, None)
    assert len({(attempt.event_id, attempt.body) for attempt in world.sender.sent}) == 1


async def test_a_delivery_is_given_up_after_the_last_try_and_can_be_asked_for_again(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    world.sender.answer = lambda _: Reply(500)
    await world.hear(a_payment_event())
    for _ in range(85):
        await world.send_due()
        world.clock.move(timedelta(hours=1))
    (given_up,) = await world.deliveries(webhook_id, state=FAILED)
    world.sender.answer = lambda _: Reply(200)

    (again,) = await world.api.redeliver_webhooks(
        [RedeliverWebhook(webhook_id=webhook_id, delivery_id=given_up.delivery_id)]
    )
    await world.send_due()

    (delivered,) = await world.deliveries(webhook_id)
    assert (given_up.attempts, given_up.error) == (10, "HTTP_500")
    assert (result(again).state, result(again).attempts) == (PENDING, 10)
    assert (delivered.state, delivered.attempts) == (DELIVERED, 11)


async def test_what_was_delivered_is_sent_again_with_the_same_id_when_asked_for(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    await world.hear(a_payment_event())
    await world.send_due()
    (delivery,) = await world.deliveries(webhook_id)

    await world.api.redeliver_webhooks([RedeliverWebhook(webhook_id=webhook_id, delivery_id=delivery.delivery_id)])
    await world.send_due()

    first, second = world.sender.sent
    assert first.event_id == second.event_id
    assert second.tries == 1


async def test_a_redelivery_of_what_is_not_there_is_refused(world: WebhookWorld) -> None:
    webhook_id, other = await world.register(), await world.register()
    await world.hear(a_payment_event())
    (of_other,) = await world.deliveries(other)

    answers = await world.api.redeliver_webhooks(
        [
            RedeliverWebhook(webhook_id=new_id(), delivery_id=of_other.delivery_id),
            RedeliverWebhook(webhook_id=webhook_id, delivery_id=of_other.delivery_id),
            RedeliverWebhook(webhook_id=webhook_id, delivery_id=new_id()),
        ]
    )

    assert [type(answer) for answer in answers] == [
        WebhookNotFound,
        WebhookDeliveryNotFound,
        WebhookDeliveryNotFound,
    ]


async def test_a_delivery_under_way_is_not_sent_twice_by_a_redelivery(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    await world.hear(a_payment_event())
    now = world.clock.now()
    (attempt,) = await world.store.claim_webhooks(now=now, until=now + timedelta(seconds=30), busy=[], limit=5)

    await world.api.redeliver_webhooks([RedeliverWebhook(webhook_id=webhook_id, delivery_id=attempt.delivery_id)])

    assert await world.send_due() == 0


async def test_what_a_process_left_behind_is_taken_again_and_its_late_word_is_dropped(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    await world.hear(a_payment_event())
    now = world.clock.now()
    (left,) = await world.store.claim_webhooks(now=now, until=now + timedelta(seconds=30), busy=[], limit=5)
    before = await world.send_due()
    world.clock.move(timedelta(seconds=30))

    after = await world.send_due()
    late = domain.Schedule().settle(left, Reply(500), now=world.clock.now(), jitter=0)
    async with world.store.transaction() as changes:
        written = await changes.settle([late])

    (delivery,) = await world.deliveries(webhook_id)
    assert (before, after, written) == (0, 1, set())
    assert (delivery.state, delivery.attempts) == (DELIVERED, 2)


async def test_two_processes_send_each_event_once(world: WebhookWorld) -> None:
    await world.register()
    await world.register()
    await world.hear(*(a_payment_event() for _ in range(40)))
    duties = [world.another_duty() for _ in range(2)]

    async def work(number: int) -> None:
        while await duties[number].step():
            await duties[number].finish()

    await asyncio.gather(work(0), work(1))
    await world.send_due()

    assert len(world.sender.sent) == 80
    assert len({(attempt.webhook_id, attempt.event_id) for attempt in world.sender.sent}) == 80


async def test_a_receiver_with_much_to_hear_leaves_room_for_the_others(world: WebhookWorld) -> None:
    slow = await world.register(customer_id="cust_slow")
    quick = await world.register(customer_id="cust_quick")
    events = [a_payment_event(customer_id="cust_slow") for _ in range(30)]
    await world.hear(*events, a_payment_event(customer_id="cust_quick"))
    now = world.clock.now()

    first = await world.store.claim_webhooks(now=now, until=now + timedelta(seconds=30), busy=[], limit=100)
    second = await world.store.claim_webhooks(now=now, until=now + timedelta(seconds=30), busy=[slow], limit=100)

    assert sorted(attempt.webhook_id == quick for attempt in first) == [False] * 16 + [True]
    assert second == []


async def test_a_webhook_that_answers_gone_is_disabled_and_it_is_told(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    world.sender.answer = lambda _: Reply(410)
    await world.hear(a_payment_event())

    await world.send_due()

    (found,) = await world.api.get_webhooks([GetWebhook(webhook_id=webhook_id)])
    (delivery,) = await world.deliveries(webhook_id)
    assert (view(found).state, view(found).disabled_reason) == (WebhookState.DISABLED, "GONE")
    assert delivery.state is FAILED
    assert (await world.told())[-1] == ("security.webhook_disabled", "notification")


async def test_a_webhook_without_a_success_for_five_days_is_disabled(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    world.sender.answer = lambda _: Reply(500)
    states = []
    for _ in range(7):
        await world.hear(a_payment_event())
        await world.send_due()
        (found,) = await world.api.get_webhooks([GetWebhook(webhook_id=webhook_id)])
        states.append(view(found).disabled_reason)
        world.clock.move(timedelta(days=1))

    assert states == [None] * 5 + ["FAILING"] * 2


async def test_a_success_ends_a_failing_time(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    world.sender.answer = lambda _: Reply(500)
    await world.hear(a_payment_event())
    await world.send_due()
    (failing,) = await world.api.get_webhooks([GetWebhook(webhook_id=webhook_id)])
    world.clock.move(timedelta(seconds=10))
    world.sender.answer = lambda _: Reply(200)

    await world.send_due()

    (whole,) = await world.api.get_webhooks([GetWebhook(webhook_id=webhook_id)])
    assert view(failing).failing_since is not None
    assert view(whole).failing_since is None


async def test_a_test_is_sent_whatever_the_event_types_and_once_for_an_id(world: WebhookWorld) -> None:
    webhook_id = await world.register(event_types=("payment.held",))
    command = SendWebhookTest(webhook_id=webhook_id, event_id=new_id(), asked_by="ann")

    (answer,) = await world.api.send_webhook_tests([command])
    await world.api.send_webhook_tests([command])
    calls = await world.send_due()

    assert (result(answer).event_type, result(answer).state, calls) == ("webhook.test", PENDING, 1)
    assert b'"type":"webhook.test"' in world.sender.sent[0].body
    assert b'"asked_by":"ann"' in world.sender.sent[0].body


async def test_deliveries_are_listed_newest_first_by_state_and_page(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    await world.hear(*(a_payment_event() for _ in range(3)))
    await world.send_due()
    await world.hear(a_payment_event())

    everything = await world.deliveries(webhook_id)
    delivered = await world.deliveries(webhook_id, state=DELIVERED)
    second = await world.deliveries(webhook_id, limit=2, cursor=everything[1].delivery_id)

    assert [one.state for one in everything] == [PENDING, DELIVERED, DELIVERED, DELIVERED]
    assert delivered == everything[1:]
    assert second == everything[2:]


async def test_old_deliveries_are_forgotten(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    await world.hear(a_payment_event())
    world.clock.move(timedelta(days=30, seconds=1))
    await world.hear(a_payment_event())

    await world.implementation.forget_old(timedelta(days=30))

    assert len(await world.deliveries(webhook_id)) == 1


async def test_calls_go_on_while_the_database_is_away_and_are_written_later(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    await world.hear(a_payment_event())
    await world.duty.step()
    real, away = world.store.transaction, [True, True]

    def sometimes_away() -> object:
        if away:
            away.pop()
            raise Unavailable("The database cannot be reached.")
        return real()

    world.store.transaction = sometimes_away
    running = asyncio.create_task(world.duty.run())
    try:
        await until_at_least(lambda: _delivered(world, webhook_id), 1)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    assert away == []
    assert len(world.sender.sent) == 1


async def _delivered(world: WebhookWorld, webhook_id: UUID) -> int:
    return len(await world.deliveries(webhook_id, state=DELIVERED))
