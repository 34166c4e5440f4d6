"""The edge before a whole Payflow: killed gateways, reloads and certificates under load, events, clients' addresses."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import aiohttp
import pytest
from cryptography import x509

from payflow.run.local_rpc import local_services
from tests.support.api import Answer, Api, Customer, Factory, eventually, new_key
from tests.support.nginx import Nginx, running_nginx
from tests.support.raw_http import RawAnswer, ask, request
from tests.support.system import RELAXED, System, kill, running_system

# Honest words for a payment of which the edge does not know what became: said so, and cleared up by a repeat.
UNSURE = {"SERVICE_UNAVAILABLE", "UNKNOWN_OUTCOME", "OVERLOADED", "PAYMENT_IN_PROGRESS"}


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """An instance whose gateways believe the edge."""
    with running_system(**RELAXED, PAYFLOW_TRUSTED_PROXIES="127.0.0.1/32") as system:
        yield system
        assert not system.logged_bugs()


@pytest.fixture(scope="module")
def nginx(system: System) -> Iterator[Nginx]:
    """The edge before the gateways' own ports, as in Compose. One client stands here for many: limits are tested
    elsewhere."""
    servers = [url.removeprefix("http://") for url in system.gateway_urls]
    changes = {"rate=200r/s;": "rate=100000r/s;"}
    with running_nginx(servers, **changes) as nginx:
        yield nginx


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64), timeout=timeout) as session:
        yield session


@pytest.fixture(scope="module")
async def fresh_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Every request on a connection of its own."""
    connector = aiohttp.TCPConnector(limit=64, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


@pytest.fixture(scope="module")
async def make(system: System, nginx: Nginx, session: aiohttp.ClientSession) -> AsyncIterator[Factory]:
    async with local_services(system.instance) as services:
        yield Factory(api=Api(session, nginx.url), services=services)


@dataclass
class Traffic:
    """Customers who look and pay all the time. `looks`, `pays`: what they were told, by status and problem."""

    payer: Customer
    payee: Customer
    payments: Api
    looks: Counter[str] = field(default_factory=Counter)
    pays: Counter[str] = field(default_factory=Counter)
    paid: int = 0
    _is_over: bool = False

    async def during(self, work: object) -> None:
        """Keep it going while `work` is awaited, and until every payment begun has its final answer."""
        tasks = [asyncio.create_task(self._look_on()) for _ in range(6)]
        tasks += [asyncio.create_task(self._pay_on()) for _ in range(4)]
        try:
            await work
        finally:
            self._is_over = True
            await asyncio.gather(*tasks)

    async def _look_on(self) -> None:
        while not self._is_over:
            try:
                self.looks[told(await self.payer.client.get("/accounts"))] += 1
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.looks[type(error).__name__] += 1
            await asyncio.sleep(0.01)

    async def _pay_on(self) -> None:
        while not self._is_over:
            body, key = self.payer.body(self.payee.account, "1.00"), new_key()
            answer = await self._pay_until_told(body, key)
            self.paid += answer == "200"

    async def _pay_until_told(self, body: dict[str, object], key: str) -> str:
        """What a client does whom nobody could tell what became of its payment: the same again, under the same key."""
        answer = ""
        for _ in range(300):
            answer = await self._pay(body, key)
            if answer not in UNSURE:
                break
            await asyncio.sleep(0.1)
        return answer

    async def _pay(self, body: dict[str, object], key: str) -> str:
        answer = await self.payments.send(
            "POST",
            "/payment/confirm",
            token=self.payer.client.token,
            json_body=body,
            headers={"Idempotency-Key": key},
        )
        self.pays[told(answer)] += 1
        return answer.error or str(answer.status)


def told(answer: Answer) -> str:
    """ "200", or "502 UNKNOWN_OUTCOME": what is no problem has no second word."""
    return f"{answer.status} {answer.error}" if answer.error else str(answer.status)


@pytest.fixture
async def traffic(make: Factory, nginx: Nginx, fresh_session: aiohttp.ClientSession) -> AsyncIterator[Traffic]:
    """Afterwards the books say what the customers were told."""
    payer, payee = await make.customer(USD="1000000.00"), await make.customer(USD="0.00")
    traffic = Traffic(payer, payee, Api(fresh_session, nginx.url))
    yield traffic
    posted, held, _ = await payee.balances()
    assert (Decimal(posted), Decimal(held)) == (traffic.paid, 0)
    assert traffic.paid > 20


async def test_killed_gateways_fail_no_question_and_double_no_payment(system: System, traffic: Traffic) -> None:
    async def kill_both() -> None:
        await asyncio.sleep(1)
        for name in ("gateway-1", "gateway-2", "gateway-1"):
            kill(system.processes()[name]["pid"])
            await eventually(lambda name=name: is_healthy(system, name), seconds=20)
            await asyncio.sleep(1.2)  # as long as the edge leaves a gateway out

    await traffic.during(kill_both())

    assert set(traffic.looks) == {"200"}, traffic.looks
    assert set(traffic.pays) <= {"200", "502 UNKNOWN_OUTCOME", "503 SERVICE_UNAVAILABLE", "409 PAYMENT_IN_PROGRESS"}


async def is_healthy(system: System, name: str) -> bool:
    return (await asyncio.to_thread(system.processes))[name]["health"] == "healthy"


async def test_reloads_under_load_fail_nothing(nginx: Nginx, traffic: Traffic) -> None:
    async def reload() -> None:
        for _ in range(5):
            await asyncio.sleep(0.8)
            await asyncio.to_thread(nginx.reload)

    await traffic.during(reload())

    assert set(traffic.looks) == {"200"}, traffic.looks
    assert set(traffic.pays) == {"200"}, traffic.pays


async def test_a_new_certificate_is_shown_after_a_reload_and_no_connection_ends(nginx: Nginx) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", nginx.https, ssl=context)
    before = serial_shown(nginx)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")

    changed = nginx.new_certificate()
    nginx.reload()
    writer.write(b"\r\n")  # the request that was under way is answered by the old worker
    status = await asyncio.wait_for(reader.readline(), 10)
    writer.close()

    assert status == b"HTTP/1.1 200 OK\r\n"
    assert before != changed
    await eventually(lambda: shows(nginx, changed), seconds=5)


async def shows(nginx: Nginx, serial: int) -> bool:
    return await asyncio.to_thread(serial_shown, nginx) == serial


def serial_shown(nginx: Nginx) -> int:
    pem = ssl.get_server_certificate(("127.0.0.1", nginx.https), timeout=5)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_events_of_a_payment_come_as_they_happen(make: Factory, nginx: Nginx) -> None:
    payer, payee = await make.customer(USD="50000.00"), await make.customer()
    waiting = await payer.pay(payee.account, "15000.00", key="events-1", transaction_id="events-1")
    assert waiting.json["status"] == "OTP_REQUIRED", waiting
    heard: list[tuple[str, float]] = []

    async def listen() -> None:
        url = f"{nginx.url}/payments/events-1/events"
        headers = {"Authorization": f"Bearer {payer.client.token}"}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
            async for line in response.content:
                if line.startswith(b"event: "):
                    heard.append((line[7:].strip().decode(), time.monotonic()))

    listener = asyncio.create_task(listen())
    await eventually(lambda: at_least(heard, 2))
    paid_at = time.monotonic()
    done = await payer.pay(
        payee.account,
        "15000.00",
        key="events-1",
        transaction_id="events-1",
        otp=await payer.otp("events-1"),
    )
    await asyncio.wait_for(listener, 10)

    assert done.json["status"] == "SUCCESS", done
    assert [name for name, _ in heard][-1] == "COMPLETED"
    assert any(at < paid_at for name, at in heard if name == "AWAITING_OTP")


async def at_least(heard: list[tuple[str, float]], count: int) -> bool:
    return len(heard) >= count


def test_a_clients_address_is_its_own_whatever_it_says(nginx: Nginx) -> None:
    def left(source: str, *fields: str) -> int:
        answer = ask(nginx.http, request("GET", "/accounts", *fields), source=source)
        assert answer.error == "ACCESS_TOKEN_REQUIRED"
        return int(answer.one("ratelimit-remaining"))

    first = left("127.0.0.40")
    spoofed = [left("127.0.0.40", f"X-Forwarded-For: 10.0.0.{number}") for number in range(3)]
    another = left("127.0.0.41", "X-Forwarded-For: 127.0.0.40")

    assert spoofed == [first - 1, first - 2, first - 3]
    assert another == first


def test_whoever_is_not_the_edge_is_counted_as_itself(system: System) -> None:
    port = int(system.gateway_urls[0].rsplit(":", 1)[1])

    def left(source: str) -> int:
        answer = ask(port, request("GET", "/accounts", "X-Forwarded-For: 203.0.113.7"), source=source)
        return int(answer.one("ratelimit-remaining"))

    first = left("127.0.0.50")

    assert left("127.0.0.51") == first
    assert left("127.0.0.50") == first - 1


ANSWERS = [
    ("GET", "/health", 200),
    ("GET", "/docs", 200),
    ("GET", "/accounts", 401),
    ("GET", "/payments/no-such-thing/there", 404),
    ("PUT", "/payments", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
def test_no_header_field_is_there_twice(nginx: Nginx, method: str, path: str, status: int) -> None:
    answer = ask(nginx.http, request(method, path))

    names = [name for name, _ in answer.fields]
    assert answer.status == status
    assert len(names) == len(set(names)), names
    assert {"x-content-type-options", "strict-transport-security", "traceresponse"} <= set(names)


@pytest.mark.parametrize("path", ["/metrics", "/rpc/gateway/rotate_keys"])
def test_what_a_gateways_own_port_answers_is_hidden_by_the_edge(system: System, nginx: Nginx, path: str) -> None:
    own = int(system.gateway_urls[0].rsplit(":", 1)[1])

    inside = ask(own, request("POST" if "rpc" in path else "GET", path))
    outside = [ask(nginx.http, request(method, path)) for method in ("GET", "POST")]

    assert inside.status in (200, 401)
    assert [answer.error for answer in outside] == ["NOT_FOUND", "NOT_FOUND"]


def test_a_problem_of_the_edge_and_one_of_the_gateway_have_the_same_members(nginx: Nginx) -> None:
    edge: RawAnswer = ask(nginx.http, request("GET", "/nothing"))
    gateway: RawAnswer = ask(nginx.http, request("GET", "/docs/nothing"))

    same = ("type", "title", "status", "detail", "error")
    assert {name: edge.problem[name] for name in same} == {name: gateway.problem[name] for name in same}
    assert edge.problem.keys() == gateway.problem.keys()
