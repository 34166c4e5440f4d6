"""Webhooks over the in-memory ports and over PostgreSQL, through the contract: registered, changed, deleted."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from payflow.contracts.notification import (
    ChangeWebhook,
    DeleteWebhook,
    GetWebhook,
    InvalidWebhook,
    ListWebhooks,
    RegisterWebhook,
    RotateWebhookSecret,
    SendWebhookTest,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookNotFound,
    WebhookState,
)
from payflow.platform.crypto import ColumnCipher
from payflow.services.notification.domain import webhooks as domain
from tests.builders import new_id
from tests.builders_webhooks import (
    ANYWHERE,
    WebhookWorld,
    a_payment_event,
    result,
    view,
    webhooks_in_memory,
    webhooks_over_postgres,
)
from tests.conftest import ConnectAs


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: ConnectAs, database_url: str, cipher: ColumnCipher
) -> WebhookWorld:
    if request.param == "memory":
        return webhooks_in_memory()
    return await webhooks_over_postgres(connect_as, database_url, cipher)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "WEBHOOKS_MAX", 3)


async def test_a_repeated_registration_answers_the_same_webhook_and_secret(world: WebhookWorld) -> None:
    command = RegisterWebhook(webhook_id=world.ids.new(), url=ANYWHERE, event_types=["*"], registered_by="op")

    first = await world.api.register_webhooks([command])
    again = await world.api.register_webhooks([command])

    assert result(first[0]) == result(again[0])
    assert result(first[0]).secret.startswith("whsec_")
    assert await world.told() == [("security.webhook_registered", "op")]


async def test_what_cannot_be_called_is_not_registered(world: WebhookWorld) -> None:
    def command(url: str, event_type: str = "*") -> RegisterWebhook:
        return RegisterWebhook(webhook_id=world.ids.new(), url=url, event_types=[event_type], registered_by="op")

    answers = await world.api.register_webhooks(
        [
            command("http://example.org/"),
            command("https://10.0.0.1/"),
            command(ANYWHERE, "payment.x"),
            command(ANYWHERE),
        ]
    )

    assert [type(answer) for answer in answers[:3]] == [InvalidWebhook] * 3
    assert [answer.extra for answer in answers[:3]] == [{"field": "url"}, {"field": "url"}, {"field": "event_types"}]
    assert result(answers[3]).webhook.url == ANYWHERE


async def test_there_is_a_bound_on_webhooks(world: WebhookWorld, fast: None) -> None:
    commands = [
        RegisterWebhook(webhook_id=world.ids.new(), url=ANYWHERE, event_types=["*"], registered_by="op")
        for _ in range(5)
    ]

    one_by_one = await asyncio.gather(*(world.api.register_webhooks([command]) for command in commands))

    refused = [answer for (answer,) in one_by_one if isinstance(answer, TooManyWebhooks)]
    assert len(refused) == 2


async def test_webhooks_are_listed_newest_first_page_by_page(world: WebhookWorld) -> None:
    registered = [await world.register() for _ in range(3)]

    (first,) = await world.api.list_webhooks([ListWebhooks(limit=2)])
    (second,) = await world.api.list_webhooks([ListWebhooks(limit=2, cursor=result(first).next_cursor)])

    assert [one.webhook_id for one in result(first).webhooks] == registered[:0:-1]
    assert [one.webhook_id for one in result(second).webhooks] == registered[:1]
    assert result(second).next_cursor is None


async def test_a_change_changes_what_it_names_and_is_told(world: WebhookWorld) -> None:
    webhook_id = await world.register(description="old")

    (changed,) = await world.api.change_webhooks(
        [ChangeWebhook(webhook_id=webhook_id, changed_by="ann", event_types=["payment.held", "payment.held"])]
    )
    (same,) = await world.api.change_webhooks([ChangeWebhook(webhook_id=webhook_id, changed_by="ann")])
    (refused,) = await world.api.change_webhooks(
        [ChangeWebhook(webhook_id=webhook_id, changed_by="ann", url="https://localhost/")]
    )

    assert (view(changed).event_types, view(changed).description, view(changed).url) == (
        ["payment.held"],
        "old",
        ANYWHERE,
    )
    assert same == changed
    assert isinstance(refused, InvalidWebhook)
    assert await world.told() == [("security.webhook_registered", "op"), ("security.webhook_changed", "ann")]


async def test_a_disabled_webhook_hears_nothing_and_goes_on_with_what_waited(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    await world.hear(a_payment_event())

    async def change_to(state: WebhookState) -> None:
        await world.api.change_webhooks([ChangeWebhook(webhook_id=webhook_id, changed_by="op", state=state)])

    await change_to(WebhookState.DISABLED)
    await world.hear(a_payment_event())
    while_disabled = await world.send_due()
    test = await world.api.send_webhook_tests(
        [SendWebhookTest(webhook_id=webhook_id, event_id=new_id(), asked_by="op")]
    )
    await change_to(WebhookState.ENABLED)
    after = await world.send_due()

    assert (while_disabled, after) == (0, 1)
    assert isinstance(test[0], WebhookDisabled)


async def test_a_rotated_secret_signs_beside_the_old_one_for_a_day(world: WebhookWorld) -> None:
    registered = await world.registered()
    webhook_id = registered.webhook.webhook_id

    (rotated,) = await world.api.rotate_webhook_secrets([RotateWebhookSecret(webhook_id=webhook_id, rotated_by="op")])
    await world.hear(a_payment_event())
    await world.send_due()
    world.clock.move(timedelta(hours=24))
    await world.hear(a_payment_event())
    await world.send_due()

    new = result(rotated).secret
    assert result(rotated).previous_valid_until == world.clock.now()
    assert [attempt.secrets for attempt in world.sender.sent] == [(new, registered.secret), (new,)]
    assert (await world.told())[-1] == ("security.webhook_secret_rotated", "op")


async def test_a_deleted_webhook_is_gone_with_all_its_deliveries(world: WebhookWorld) -> None:
    webhook_id = await world.register()
    await world.hear(a_payment_event())

    deleted = await world.api.delete_webhooks([DeleteWebhook(webhook_id=webhook_id, deleted_by="op")])
    again = await world.api.delete_webhooks([DeleteWebhook(webhook_id=webhook_id, deleted_by="op")])

    assert result(deleted[0]).webhook_id == webhook_id
    assert isinstance(again[0], WebhookNotFound)
    assert await world.send_due() == 0
    assert [type(answer) for answer in await world.api.get_webhooks([GetWebhook(webhook_id=webhook_id)])] == [
        WebhookNotFound
    ]
    assert (await world.told())[-1] == ("security.webhook_deleted", "op")
