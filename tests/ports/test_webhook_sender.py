"""Calls of webhooks to a real receiver: signed, bounded, and never to an address inside."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import WebhookVerificationError

from payflow.services.notification.channels.webhook import HttpSender, SystemSecrets
from payflow.services.notification.domain.addresses import AddressPolicy
from payflow.services.notification.domain.webhooks import Attempt, Reply
from tests.builders import new_id
from tests.support.receiver import Receiver, receiving

DEVELOPMENT = AddressPolicy(is_production=False)
PRODUCTION = AddressPolicy(is_production=True)
BODY = '{"type":"payment.completed","data":{"to_account":"…1001"}}'.encode()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


def an_attempt(url: str, *secrets: str) -> Attempt:
    return Attempt(
        delivery_id=new_id(),
        webhook_id=new_id(),
        event_id=new_id(),
        body=BODY,
        attempts=1,
        tries=1,
        url=url,
        secrets=secrets or (SystemSecrets().new(),),
        failing_since=None,
    )


async def call(attempt: Attempt, policy: AddressPolicy = DEVELOPMENT, *, timeout_s: float = 5.0) -> Reply:
    sender = HttpSender(policy=policy, timeout_s=timeout_s)
    try:
        return await sender.send(attempt, now=datetime.now(UTC))
    finally:
        await sender.close()


async def test_a_call_is_verified_by_the_library_that_receivers_use(receiver: Receiver) -> None:
    old, new = SystemSecrets().new(), SystemSecrets().new()
    attempt = an_attempt(receiver.url("/hook?tenant=1"), new, old)

    reply = await call(attempt)

    (received,) = receiver.received
    assert reply == Reply(204)
    assert received.verify(new) == received.verify(old) == received.json
    assert (received.body, received.id) == (BODY, str(attempt.event_id))
    assert received.headers["Content-Type"] == "application/json"
    assert received.headers["User-Agent"].startswith("Payflow-Webhooks/")
    with pytest.raises(WebhookVerificationError):
        received.verify(SystemSecrets().new())
    with pytest.raises(WebhookVerificationError):
        replace(received, body=BODY + b" ").verify(new)


def test_secrets_are_32_random_bytes_as_the_specification_writes_them() -> None:
    first, second = SystemSecrets().new(), SystemSecrets().new()

    assert first != second
    assert first.startswith("whsec_")
    assert len(base64.b64decode(first.removeprefix("whsec_"), validate=True)) == 32


@pytest.mark.parametrize("status", [200, 201, 400, 410, 429, 500, 503])
async def test_the_receivers_status_is_told(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda: web.Response(status=status, text="nobody reads this")

    assert await call(an_attempt(receiver.url())) == Reply(status)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    receiver.answer = lambda: web.Response(status=status, headers={"Location": receiver.url("/elsewhere")})

    reply = await call(an_attempt(receiver.url()))

    assert (reply.status_code, reply.is_success) == (status, False)
    assert [received.path for received in receiver.received] == ["/hook"]


async def test_a_slow_receiver_is_left_after_the_timeout(receiver: Receiver) -> None:
    receiver.delay_s = 2.0

    assert await call(an_attempt(receiver.url()), timeout_s=0.2) == Reply(None, "TIMEOUT")


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    sent = 0

    async def answer_without_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Encoding: gzip\r\n\r\n")
        try:
            while sent < 50_000_000:
                writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                await writer.drain()
                sent += 65536
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer_without_end, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reply = await call(an_attempt(f"http://127.0.0.1:{port}/"))

    assert reply == Reply(200)
    assert sent < 50_000_000


async def test_nobody_there_is_told_as_such(receiver: Receiver) -> None:
    url = receiver.url()
    await receiver.stop()

    assert await call(an_attempt(url)) == Reply(None, "CANNOT_CONNECT")


async def test_an_answer_that_is_no_http_is_told_as_such() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x00\x01 nonsense\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        reply = await call(an_attempt(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))

    assert reply == Reply(None, "NO_ANSWER")


async def test_a_plain_receiver_behind_an_https_address_fails_as_tls(receiver: Receiver) -> None:
    reply = await call(an_attempt(receiver.url().replace("http://", "https://")))

    assert reply == Reply(None, "TLS_FAILED")
    assert receiver.received == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.0.0.1", "0x7f000001", "[::ffff:127.0.0.1]"])
async def test_no_connection_is_made_to_an_address_inside_in_production(receiver: Receiver, host: str) -> None:
    attempt = an_attempt(receiver.url(host=host))

    reply = await call(attempt, PRODUCTION)

    assert reply == Reply(None, "ADDRESS_REFUSED")
    assert receiver.received == []


async def test_a_name_that_leads_inside_later_is_refused_when_it_does(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = receiver.url(host="hooks.example.org")
    assert PRODUCTION.flaw_of_url(url.replace("http://", "https://")) is None
    lead_to(monkeypatch, "10.0.0.1", "127.0.0.1")

    reply = await call(an_attempt(url), PRODUCTION)

    assert reply == Reply(None, "ADDRESS_REFUSED")
    assert receiver.received == []


async def test_an_allowed_network_is_called_in_production(receiver: Receiver) -> None:
    policy = AddressPolicy(is_production=True, allowed=(ip_network("127.0.0.0/8"),))

    assert await call(an_attempt(receiver.url()), policy) == Reply(204)


async def test_a_name_that_leads_nowhere_is_told_as_such() -> None:
    assert await call(an_attempt("http://nowhere.invalid/")) == Reply(None, "NAME_NOT_FOUND")


def lead_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have the system's resolver answer these, as a name server under somebody else's control may."""

    def answer(_host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in addresses]

    async def answer_soon(_self: Any, host: Any, port: Any, **_: Any) -> list[Any]:
        return answer(host, port)

    monkeypatch.setattr(type(asyncio.get_running_loop()), "getaddrinfo", answer_soon)
