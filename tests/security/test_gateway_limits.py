"""Who is counted, how, and what a client is told when the count is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from payflow.services.gateway.domain.limits import Limit
from payflow.services.gateway.gate import Limits
from tests.fakes_gateway import GENEROUS, GatewayWorld

OPEN_PATH = "/.well-known/jwks.json"


def limits(**changes: int) -> Limits:
    """Generous ones, but for those named."""
    return GENEROUS._replace(**{name: Limit(name, count, 900) for name, count in changes.items()})


async def statuses(world: GatewayWorld, times: int, path: str = OPEN_PATH, **how: object) -> list[int]:
    return [(await world.client.send("GET", path, **how)).status for _ in range(times)]


async def test_an_address_gets_so_many_requests_whatever_they_ask_for(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_ip=3))

    first = [
        (await world.client.send("GET", OPEN_PATH)).status,
        (await world.client.send("GET", "/nowhere")).status,
        (await world.client.send("POST", "/payment/confirm")).status,
    ]
    refused = await world.client.send("GET", OPEN_PATH)

    assert 429 not in first
    assert (refused.status, refused.json["error"]) == (429, "RATE_LIMITED")
    assert 1 <= int(refused.headers["retry-after"]) <= 1800
    assert refused.headers["ratelimit-limit"] == "3"
    assert refused.headers["ratelimit-remaining"] == "0"
    assert refused.headers["ratelimit-policy"] == '"per_ip";q=3;w=900'
    assert refused.headers["ratelimit"] == f'"per_ip";r=0;t={refused.headers["retry-after"]}'


async def test_another_address_is_not_touched(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_ip=2))
    await statuses(world, 5)

    assert await statuses(world, 2, address="192.0.2.99") == [200, 200]


async def test_a_user_is_counted_over_all_addresses(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_user=3))
    token = await world.token()

    told = [
        (await world.client.send("GET", "/accounts", token=token, address=f"198.51.100.{number}")).status
        for number in range(5)
    ]

    assert told == [200, 200, 200, 429, 429]


async def test_sign_ins_of_one_address_have_a_limit_of_their_own(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(login_per_ip=2))
    body = {"username": "demo", "password": "guess-number-1"}

    told = [(await world.client.send("POST", "/auth/login", body=body)).status for _ in range(4)]

    assert told == [401, 401, 429, 429]
    assert await statuses(world, 1) == [200]


async def test_a_vendors_callbacks_have_a_limit_of_their_own(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_ip=2, callbacks_per_ip=3))

    told = [(await world.client.send("POST", "/callbacks/twilio", body=b"")).status for _ in range(5)]
    others = [(await world.client.send("POST", path, body=b"")).status for path in ("/callbacks/x", "/callbacks/y")]

    assert told == [415, 415, 415, 429, 429]
    assert others == [404, 404]
    assert await statuses(world, 1) == [429]  # what is no callback counts as any other request


async def test_forged_tokens_are_counted_before_they_are_looked_at(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_ip=2))
    verified = 0
    original = world.tokens.verify

    def counting(token: bytes) -> object:
        nonlocal verified
        verified += 1
        return original(token)

    world.tokens.verify = counting

    told = [(await world.client.send("GET", "/accounts", token=f"forged.{n}.x")).status for n in range(6)]

    assert told == [401, 401, 429, 429, 429, 429]
    assert verified == 2


@pytest.mark.parametrize(
    ("peer", "forwarded", "twin"),
    [
        ("203.0.113.1", "198.51.100.{n}", "203.0.113.1"),  # no proxy: what it says counts for nothing
        ("10.0.0.1", "1.1.1.{n}, 198.51.100.7", "198.51.100.7"),  # the client's own part of the chain
        ("10.0.0.1", "198.51.100.7, 10.0.0.9", "198.51.100.7"),  # two proxies of ours
        ("10.0.0.1", "nonsense-{n}", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.7, nonsense-{n}", "10.0.0.1"),
    ],
)
async def test_only_trusted_proxies_say_for_whom_they_ask(tmp_path: Path, peer: str, forwarded: str, twin: str) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_ip=2), trusted_proxies="10.0.0.0/8")

    told = [
        (
            await world.client.send(
                "GET", OPEN_PATH, address=peer, headers=[("X-Forwarded-For", forwarded.format(n=number))]
            )
        ).status
        for number in range(3)
    ]

    assert told == [200, 200, 429]
    assert await statuses(world, 1, address=twin) == [429]


async def test_behind_a_trusted_proxy_clients_are_told_apart(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_ip=1), trusted_proxies="10.0.0.0/8, ::1")

    told = [
        (
            await world.client.send(
                "GET", OPEN_PATH, address="10.0.0.1", headers=[("X-Forwarded-For", f"198.51.100.{number}")]
            )
        ).status
        for number in range(3)
    ]

    assert told == [200, 200, 200]


async def test_no_proxy_is_trusted_by_default(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_ip=1))

    told = [
        (
            await world.client.send(
                "GET", OPEN_PATH, address="127.0.0.1", headers=[("X-Forwarded-For", f"198.51.100.{number}")]
            )
        ).status
        for number in range(2)
    ]

    assert told == [200, 429]


async def test_an_ipv6_subscriber_is_one_client_and_a_mapped_address_is_the_ipv4_one(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", limits=limits(per_ip=1))

    assert await statuses(world, 1, address="2001:db8:0:1::1") == [200]
    assert await statuses(world, 1, address="2001:db8:0:1:ffff::2") == [429]
    assert await statuses(world, 1, address="2001:db8:0:2::1") == [200]
    assert await statuses(world, 1, address="::ffff:192.0.2.7") == [200]
    assert await statuses(world, 1, address="192.0.2.7") == [429]
