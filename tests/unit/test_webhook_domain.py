"""Which addresses may be called, what is sent, when again, and when a webhook is given up."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from payflow.contracts.notification import WebhookDeliveryState, WebhookState
from payflow.services.notification.domain import webhooks as domain
from payflow.services.notification.domain.addresses import AddressPolicy, read_networks
from payflow.services.notification.domain.webhooks import Attempt, Reply, Schedule, Secret, Webhook
from tests.builders import NOON, new_id

PRODUCTION = AddressPolicy(is_production=True)
DEVELOPMENT = AddressPolicy(is_production=False)
OK, DOWN, GONE = Reply(204), Reply(503), Reply(410)


def a_webhook(**changes: object) -> Webhook:
    webhook = Webhook(
        webhook_id=new_id(),
        url="https://example.org/",
        event_types=("payment.completed",),
        description="",
        customer_id=None,
        state=WebhookState.ENABLED,
        disabled_reason=None,
        secrets=(Secret("whsec_first"),),
        failing_since=None,
        version=1,
        created_by="op",
        created_at=NOON,
        updated_at=NOON,
    )
    return replace(webhook, **changes)


def an_attempt(tries: int = 1) -> Attempt:
    return Attempt(
        delivery_id=new_id(),
        webhook_id=new_id(),
        event_id=new_id(),
        body=b"{}",
        attempts=tries + 7,
        tries=tries,
        url="https://example.org/",
        secrets=(),
        failing_since=None,
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hooks?tenant=1",
        "https://example.org:8443",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]/",
    ],
)
def test_public_https_addresses_may_be_registered(url: str) -> None:
    assert PRODUCTION.flaw_of_url(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "//example.org/",
        "https://",
        "https:///path",
        "https://user:password@example.org/",
        "https://user@example.org/",
        "https://@example.org/",
        "https://example.org/#part",
        "https://example.org/#",
        "https://example.org:0/",
        "https://example.org:99999/",
        "https://example.org\\@evil.example/",
        "https://exa mple.org/",
        "https://example.org/\n",
        "https://bücher.example/",
        "https://" + "a" * 2050,
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[fe80::1%25eth0]/",
        "https://127.1/",
        "https://2130706433/",
        "https://0x7f.0.0.1/",
        "https://0x7f000001/",
        "https://./",
        "https://localhost/",
        "https://db.internal/",
        "",
    ],
)
def test_other_addresses_may_not(url: str) -> None:
    flaw = PRODUCTION.flaw_of_url(url)

    assert flaw is not None
    assert flaw.startswith("url: ")
    assert "password@" not in flaw


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:a01:203::80ff:fffe",
        "not an address",
    ],
)
def test_addresses_inside_are_not_called_in_production(address: str) -> None:
    assert PRODUCTION.refuses(address)


def test_public_addresses_are_called_and_private_ones_where_they_are_allowed() -> None:
    allowing = AddressPolicy(is_production=True, allowed=read_networks("10.1.0.0/16, fd00::/8"))

    assert [allowing.refuses(address) for address in ("8.8.8.8", "10.1.2.3", "::ffff:10.1.2.3", "fd12::1")] == [
        False
    ] * 4
    assert [allowing.refuses(address) for address in ("10.2.0.1", "127.0.0.1", "169.254.169.254")] == [True] * 3
    assert allowing.flaw_of_url("https://10.1.2.3/") is None


def test_development_calls_this_machine_but_never_link_local_addresses() -> None:
    assert DEVELOPMENT.flaw_of_url("http://127.0.0.1:8000/hook") is None
    assert DEVELOPMENT.flaw_of_url("http://localhost:8000/hook") is None
    assert [DEVELOPMENT.refuses(address) for address in ("127.0.0.1", "192.168.0.1", "::1")] == [False] * 3
    assert [DEVELOPMENT.refuses(address) for address in ("169.254.169.254", "fe80::1", "0.0.0.0")] == [True] * 3


@pytest.mark.parametrize(
    ("event_types", "customer_id", "type_", "about", "wants"),
    [
        (("payment.completed",), None, "payment.completed", "cust_1", True),
        (("payment.completed",), None, "payment.rejected", "cust_1", False),
        (("*",), None, "payment.rejected", "cust_1", True),
        (("*",), "cust_1", "payment.rejected", "cust_1", True),
        (("*",), "cust_1", "payment.rejected", "cust_2", False),
        (("*",), "cust_1", "incoming.credited", None, False),
    ],
)
def test_a_webhook_hears_what_it_asked_for(
    event_types: tuple[str, ...], customer_id: str | None, type_: str, about: str | None, wants: bool
) -> None:
    assert a_webhook(event_types=event_types, customer_id=customer_id).wants(type_, about) is wants


@pytest.mark.parametrize(("event_types", "word"), [(["payment.paid"], "payment.paid"), ([], "at least one")])
def test_event_types_that_do_not_exist_are_named(event_types: list[str], word: str) -> None:
    assert word in (domain.flaw_of_types(event_types) or "")
    assert domain.flaw_of_types(["payment.completed", "*"]) is None


def test_a_failure_is_tried_again_as_standard_webhooks_proposes_and_then_given_up() -> None:
    schedule = Schedule()

    settled = [schedule.settle(an_attempt(tries), DOWN, now=NOON, jitter=0.0) for tries in range(1, 11)]

    pauses = [(one.next_attempt_at - NOON).total_seconds() for one in settled[:9]]
    assert pauses == [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert {one.state for one in settled[:9]} == {WebhookDeliveryState.PENDING}
    assert (settled[9].state, settled[9].error) == (WebhookDeliveryState.FAILED, "HTTP_503")


def test_jitter_stretches_a_pause_by_a_fifth_at_most() -> None:
    settled = Schedule().settle(an_attempt(2), DOWN, now=NOON, jitter=1.0)

    assert settled.next_attempt_at == NOON + timedelta(minutes=6)


@pytest.mark.parametrize(
    ("reply", "state"),
    [
        (Reply(200), WebhookDeliveryState.DELIVERED),
        (Reply(299), WebhookDeliveryState.DELIVERED),
        (Reply(302), WebhookDeliveryState.PENDING),
        (Reply(400), WebhookDeliveryState.PENDING),
        (Reply(None, "TIMEOUT"), WebhookDeliveryState.PENDING),
        (GONE, WebhookDeliveryState.FAILED),
    ],
)
def test_only_2xx_is_delivered(reply: Reply, state: WebhookDeliveryState) -> None:
    assert Schedule().settle(an_attempt(), reply, now=NOON, jitter=0.0).state is state


def test_a_webhook_that_fails_for_five_days_is_disabled_and_a_success_in_between_saves_it() -> None:
    failing = domain.after_reply(a_webhook(), DOWN, now=NOON)

    before = domain.after_reply(failing, DOWN, now=NOON + timedelta(days=5, seconds=-1))
    after = domain.after_reply(failing, DOWN, now=NOON + timedelta(days=5))
    saved = domain.after_reply(failing, OK, now=NOON + timedelta(days=4))

    assert failing.failing_since == NOON
    assert before.is_enabled
    assert (after.state, after.disabled_reason) == (WebhookState.DISABLED, "FAILING")
    assert (saved.is_enabled, saved.failing_since) == (True, None)


def test_a_webhook_that_is_gone_is_disabled_at_once() -> None:
    gone = domain.after_reply(a_webhook(), GONE, now=NOON)

    assert (gone.state, gone.disabled_reason, gone.version) == (WebhookState.DISABLED, "GONE", 2)


@pytest.mark.parametrize(
    ("failing_since", "reply", "changes"),
    [
        (None, OK, False),
        (NOON, OK, True),
        (None, DOWN, True),
        (NOON, DOWN, False),
        (NOON - timedelta(days=5), DOWN, True),
        (NOON, GONE, True),
    ],
)
def test_few_replies_say_anything_about_the_webhook(failing_since: object, reply: Reply, changes: bool) -> None:
    attempt = replace(an_attempt(), failing_since=failing_since)

    assert domain.changes_webhook(attempt, reply, now=NOON) is changes


def test_old_secrets_sign_for_a_day_and_five_at_most() -> None:
    webhook = domain.rotated(a_webhook(), "whsec_second", now=NOON)

    def live(hours: float) -> list[str]:
        return [one.text for one in domain.live_secrets(webhook.secrets, now=NOON + timedelta(hours=hours))]

    assert live(23.9) == ["whsec_second", "whsec_first"]
    assert live(24) == ["whsec_second"]
    for number in range(10):
        webhook = domain.rotated(webhook, f"whsec_{number}", now=NOON)
    assert [one.text for one in webhook.secrets] == [f"whsec_{number}" for number in (9, 8, 7, 6, 5)]


def test_secrets_addresses_and_bodies_stay_out_of_logs() -> None:
    shown = repr(a_webhook(url="https://example.org/token")) + repr(an_attempt())

    assert "whsec_" not in shown
    assert "example.org" not in shown
