"""The notification service as a process has it: settings, wiring, events from the log, and what the tables keep."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from structlog.testing import capture_logs

from payflow.contracts.notification import DemoCode, FindDemoCode, Notification
from payflow.contracts.otp import IssueOtp, Otp, OtpIssued, OtpPayment, OtpVerified, VerifyOtp
from payflow.contracts.topics import PaymentChanged, SecurityEvent, mask_account
from payflow.kernel.envelope import Event
from payflow.platform.eventlog import Outbox, event_of
from payflow.platform.http.asgi import with_lifespan
from payflow.platform.http.server import serve
from payflow.platform.postgres import Database
from payflow.platform.process import Build, running
from payflow.platform.rpc import RpcClients, in_process
from payflow.platform.rpc.identity import Signer, ensure_keys
from payflow.platform.service import Runtime
from payflow.platform.settings import SettingsError
from payflow.services.notification.app import build
from payflow.services.otp.app import build as build_otp
from tests.builders import NOON, new_id
from tests.support.servers import with_database

C = TypeVar("C")
ConnectAs = Callable[[str], Awaitable[Database]]
COLUMN_KEYS = json.dumps({"active": "k1", "keys": {"k1": base64.b64encode(secrets.token_bytes(32)).decode()}})

SMS = {"twilio_account_sid": "AC1", "twilio_auth_token": "token", "twilio_sender": "+15005550006"}
MAIL = {"smtp_host": "mail.example.org", "email_from": "no-reply@payflow.example"}


@pytest.fixture
def environ(database_url: str, password_files: dict[str, Path], tmp_path: Path) -> Callable[..., dict[str, str]]:
    """`environ("otp", env="production")`: the environment of a service's process."""
    ensure_keys(tmp_path, ["notification", "otp", "confirm", "cli"])
    name = database_url.split("?")[0].rsplit("/", 1)[1]

    def make(service: str, **settings: str) -> dict[str, str]:
        password = password_files[service].read_text()
        url = with_database(database_url, database=name, user=f"payflow_{service}", password=password)
        values = {"postgres_url": url, "service_keys_dir": str(tmp_path), "column_keys": COLUMN_KEYS, **settings}
        return {f"PAYFLOW_{key.upper()}": value for key, value in values.items()}

    return make


def a_runtime(environ: dict[str, str], service: str = "notification") -> Runtime:
    return Runtime(service=service, instance=f"{service}-test", environ=environ)


def a_payment_event(customer_id: str, payment_id: Any) -> Event:
    data = PaymentChanged(
        payment_id=payment_id,
        transaction_id="txn_001",
        customer_id=customer_id,
        state="COMPLETED",
        path=["RECEIVED", "COMPLETED"],
        amount_minor=100_000,
        currency="USD",
        debtor_account=mask_account("ACC0010010010"),
        creditor_account=mask_account("DE08990100100000001001"),
    )
    return an_event("payment.completed", str(payment_id), data)


def an_event(type_: str, subject: str, data: Any) -> Event:
    return event_of(
        id=new_id(), source="confirm", type=type_, subject=subject, version=1, time=NOON, data=data, traceparent=""
    )


async def until(condition: Callable[[], Awaitable[bool]], *, timeout_s: float = 10.0) -> None:
    """Wait for something that happens in the background."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110 - it happens in the database
            await asyncio.sleep(0.05)


@asynccontextmanager
async def served(runtime: Runtime, build: Build) -> AsyncIterator[str]:
    """A service on a free port, as its process serves it; yields its address."""
    stop, ready = asyncio.Event(), asyncio.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with running(runtime, build) as app:
        server = asyncio.create_task(
            serve(with_lifespan(app, nullcontext), [listener], drain_s=1, stop=stop, on_ready=ready.set)
        )
        try:
            await asyncio.wait_for(ready.wait(), 5)
            yield address
        finally:
            stop.set()
            await server


@asynccontextmanager
async def client_of(contract: type[C], *, caller: str, url: str, keys: str) -> AsyncIterator[C]:
    """A client as another service has it."""
    clients = RpcClients(signer=Signer.load(service=caller, directory=keys), queue_max=100)
    try:
        yield clients.connect(contract, url)
    finally:
        await clients.close()


@pytest.mark.parametrize("setting", [{"demo_channel": "true"}, {"demo_channel": "1"}])
async def test_production_refuses_the_demo_channel(environ: Callable[..., dict[str, str]], setting: Any) -> None:
    runtime = a_runtime(environ("notification", env="production", **setting))

    with pytest.raises(SettingsError, match="PAYFLOW_DEMO_CHANNEL"):
        await build(runtime)


REFUSALS: list[tuple[dict[str, str], str]] = [
    ({"env": "production"}, "no channel for one-time codes is set"),
    ({"env": "production", **MAIL, "code_channels": "sms,push"}, "no channel for one-time codes is set"),
    ({"env": "production", **SMS, "channels": "email"}, "no channel for one-time codes is set"),
    ({"env": "production", **SMS, "twilio_url": "http://api.example.org"}, "PAYFLOW_TWILIO_URL: in production"),
    ({"env": "production", **SMS, "public_url": "http://pay.example.org"}, "PAYFLOW_PUBLIC_URL: in production"),
    ({"twilio_account_sid": "AC1", "twilio_sender": "+1"}, "PAYFLOW_TWILIO_AUTH_TOKEN is not set"),
    ({"twilio_account_sid": "AC1", "twilio_auth_token": "t"}, "PAYFLOW_TWILIO_SENDER is not set"),
    ({**SMS, "twilio_api_key_sid": "SK1"}, "PAYFLOW_TWILIO_API_KEY_SECRET are set together"),
    ({"smtp_host": "mail.example.org"}, "PAYFLOW_EMAIL_FROM is not set"),
    ({**MAIL, "sendgrid_api_key": "SG.x"}, "choose one for e-mail"),
    ({**MAIL, "smtp_tls": "none"}, "only to a mail server on this machine"),
    ({**MAIL, "smtp_ca": "no certificate"}, "expected certificates as PEM"),
    ({"fcm_service_account_key": '{"project_id": "p"}'}, "PAYFLOW_FCM_SERVICE_ACCOUNT_KEY: expected a service account"),
    ({"sendgrid_event_public_key": "x"}, "PAYFLOW_SENDGRID_EVENT_PUBLIC_KEY: expected the verification key"),
    ({"channels": "sms,fax"}, "PAYFLOW_CHANNELS='sms,fax': expected some of sms, push, email"),
    ({"channels": "sms,sms"}, "each at most once"),
    ({"public_url": "pay.example.org"}, "PAYFLOW_PUBLIC_URL='pay.example.org': expected an address"),
    ({"message_time_zone": "Mars/Olympus"}, "there is no time zone"),
    ({"message_templates_dir": "/nowhere"}, "No such file"),
]


@pytest.mark.parametrize(("settings", "line"), REFUSALS)
async def test_settings_that_could_send_nothing_stop_the_start(
    environ: Callable[..., dict[str, str]], settings: dict[str, str], line: str
) -> None:
    runtime = a_runtime(environ("notification", **settings))

    with pytest.raises(SettingsError) as refused:
        await build(runtime)

    await runtime.close()
    assert line in str(refused.value)


async def test_networks_that_webhooks_may_call_are_networks(environ: Callable[..., dict[str, str]]) -> None:
    runtime = a_runtime(environ("notification", webhook_allowed_networks="10.1.0.0/16, intranet"))

    with pytest.raises(SettingsError, match="PAYFLOW_WEBHOOK_ALLOWED_NETWORKS"):
        await build(runtime)

    await runtime.close()


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"env": "production", **SMS}, "NO_DEMO_CHANNEL"),
        ({"env": "production", "demo_channel": "false", **SMS}, "NO_DEMO_CHANNEL"),
        (SMS, "NO_DEMO_CHANNEL"),
        ({"demo_channel": "true", **SMS}, "MESSAGE_NOT_FOUND"),
        ({"demo_channel": "false"}, "NO_DEMO_CHANNEL"),
        ({}, "MESSAGE_NOT_FOUND"),
        ({"demo_channel": "true"}, "MESSAGE_NOT_FOUND"),
    ],
)
async def test_the_demo_channel_is_on_in_development_unless_switched_off(
    environ: Callable[..., dict[str, str]], settings: dict[str, str], code: str
) -> None:
    runtime = a_runtime(environ("notification", **settings))
    service = await build(runtime)
    cli = in_process(Notification, dict(service.implementations)[Notification], caller="cli")

    (answer,) = await cli.find_demo_codes([FindDemoCode(transaction_id="txn_nobody")])
    await runtime.close()

    assert answer.code == code


@pytest.mark.parametrize("key", ["", "00" * 16, "not a key"])
async def test_otp_does_not_start_with_a_weak_or_unreadable_key(
    environ: Callable[..., dict[str, str]], key: str
) -> None:
    runtime = a_runtime(environ("otp", otp_key=key), "otp")

    with pytest.raises(SettingsError, match="PAYFLOW_OTP_KEY") as refused:
        await build_otp(runtime)

    assert not key or key not in str(refused.value)


async def test_otp_is_wired_and_healthy_with_its_default_limits(environ: Callable[..., dict[str, str]]) -> None:
    runtime = a_runtime(environ("otp", otp_key=secrets.token_hex(32)), "otp")

    service = await build_otp(runtime)
    await service.checks["postgres"]()
    await runtime.close()

    assert [contract for contract, _ in service.implementations] == [Otp]
    assert service.required == {"postgres"}


async def test_events_of_the_log_are_told_once_and_delivered_in_the_background(
    environ: Callable[..., dict[str, str]], connect_as: ConnectAs, database_url: str
) -> None:
    customer_id, payment_id = f"cust_{new_id().hex}", new_id()
    confirm = await connect_as("confirm")
    outbox = Outbox(confirm)
    completed = a_payment_event(customer_id, payment_id)
    reused = an_event("security.refresh_reused", "demo", SecurityEvent(actor="demo", customer_id=customer_id))
    owner = await asyncpg.connect(database_url)

    async def delivered() -> bool:
        query = (
            "SELECT count(*) FROM notification.message JOIN notification.delivery USING (message_id) "
            "WHERE customer_id = $1 AND state = 'DELIVERED'"
        )
        return bool(await owner.fetchval(query, customer_id) == 2)

    async with running(a_runtime(environ("notification", delivery_check_s="0.05")), build):
        for events in ([completed, reused], [completed]):
            async with confirm.transaction() as connection:
                await outbox.append(connection, events)
            outbox.wake_consumers()
        await until(delivered)

    rows = await owner.fetch(
        "SELECT kind, state FROM notification.message JOIN notification.delivery USING (message_id) "
        "WHERE customer_id = $1 ORDER BY kind",
        customer_id,
    )
    dead = await owner.fetchval("SELECT count(*) FROM event_log.dead_letter")
    await owner.close()
    assert [tuple(row) for row in rows] == [("payment_completed", "DELIVERED"), ("session_ended", "DELIVERED")]
    assert dead == 0


async def test_a_code_goes_from_otp_to_the_demo_outbox_and_is_nowhere_else(
    environ: Callable[..., dict[str, str]], connect_as: ConnectAs, database_url: str
) -> None:
    customer_id = f"cust_{new_id().hex}"
    payment = OtpPayment(
        payment_id=new_id(),
        customer_id=customer_id,
        amount_minor=1_500_000,
        currency="USD",
        debtor="ACC0010010010",
        creditor="DE08990100100000001001",
    )
    notification_environ = environ("notification")
    keys = notification_environ["PAYFLOW_SERVICE_KEYS_DIR"]
    with capture_logs() as lines:
        async with AsyncExitStack() as stack:
            notification_url = await stack.enter_async_context(served(a_runtime(notification_environ), build))
            otp_environ = environ("otp", otp_key=secrets.token_hex(32), notification_url=notification_url)
            otp_url = await stack.enter_async_context(served(a_runtime(otp_environ, "otp"), build_otp))
            confirm = await stack.enter_async_context(client_of(Otp, caller="confirm", url=otp_url, keys=keys))
            cli = await stack.enter_async_context(
                client_of(Notification, caller="cli", url=notification_url, keys=keys)
            )

            (issued,) = await confirm.issue([IssueOtp(payment=payment, transaction_id="txn_777")])
            (demo,) = await cli.find_demo_codes([FindDemoCode(transaction_id="txn_777", customer_id=customer_id)])
            assert isinstance(demo, DemoCode), demo
            (verified,) = await confirm.verify([VerifyOtp(payment=payment, code=demo.code, attempt_id=new_id())])

    rows = await contents_of(database_url, "notification", "otp", "event_log")
    assert isinstance(issued, OtpIssued)
    assert isinstance(verified, OtpVerified)
    assert verified.challenge_id == issued.challenge_id
    assert any(row.get("transaction_id") == "txn_777" for row in rows)
    assert any(line["event"] == "notification.codes" for line in lines)
    for secret in (demo.code, payment.creditor, payment.debtor):
        assert not [place for place in (*rows, *lines) for value in place.values() if mentions(value, secret)]


async def contents_of(database_url: str, *schemas: str) -> list[dict[str, Any]]:
    """Every row of every table of these schemas."""
    owner = await asyncpg.connect(database_url)
    tables = await owner.fetch(
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = ANY($1)", list(schemas)
    )
    rows = [dict(row) for (table,) in tables for row in await owner.fetch(f"SELECT * FROM {table}")]
    await owner.close()
    return rows


def mentions(value: Any, secret: str) -> bool:
    """Whether a value has the secret as a word of its own: digits inside an id or an instant are none."""
    if isinstance(value, bytes):
        return secret.encode() in value
    return secret in re.findall(r"\w+", str(value))


def test_a_secret_would_be_found_wherever_it_stood() -> None:
    places = ["012345", b"\x86code\xa6012345", {"messages": [{"code": "012345"}]}, "Your code is 012345."]

    assert all(mentions(place, "012345") for place in places)
    assert not mentions("01a20b94-0123457-", "012345")
