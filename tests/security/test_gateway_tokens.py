"""Forged, altered, expired and foreign access tokens; signing keys shared and rotated."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey

from payflow.contracts.gateway import InvalidToken, KeysRotated, RotateKeys
from payflow.services.gateway.keys import FileKeyRing
from payflow.services.gateway.tokens import JwtAccessTokens
from tests.fakes_gateway import GatewayWorld

HOUR = timedelta(hours=1)


@pytest.fixture
def world(tmp_path: Path) -> GatewayWorld:
    return GatewayWorld(tmp_path / "keys")


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token; None takes one out."""
    now = int(time.time())
    values = {
        "iss": "payflow",
        "aud": "payflow-api",
        "sub": "demo",
        "client_id": "payflow",
        "iat": now,
        "exp": now + 3600,
        "jti": "a" * 32,
        "sid": "b" * 32,
        "role": "customer",
        "customer_id": "cust_001",
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def signed(world: GatewayWorld, values: dict[str, Any], **header: Any) -> str:
    active = world.keys.active
    head = {"alg": "ES256", "typ": "at+jwt", "kid": active.kid, **header}
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(head, values, active.key, algorithms=["ES256"])


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def status_of(world: GatewayWorld, token: str) -> tuple[int, str]:
    reply = await world.client.send("GET", "/accounts", token=token)
    return reply.status, reply.json.get("error", "") if reply.status != 200 else ""


async def test_a_token_with_the_right_claims_is_taken(world: GatewayWorld) -> None:
    assert await status_of(world, signed(world, claims())) == (200, "")


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in claims()),
        {"iss": "somebody else"},
        {"aud": "another-api"},
        {"aud": ["another-api"]},
        {"aud": 5},
        {"exp": int(time.time()) - 1},
        {"exp": "4102444800"},
        {"exp": True},
        {"iat": int(time.time()) + 3600},
        {"nbf": int(time.time()) + 3600},
        {"sub": ""},
        {"sub": 1},
        {"jti": ["a"]},
        {"sid": {}},
        {"role": "root"},
        {"customer_id": ""},
        {"customer_id": 7},
    ],
    ids=lambda changes: " ".join(changes),
)
async def test_a_token_with_a_wrong_or_missing_claim_is_invalid(world: GatewayWorld, change: dict[str, Any]) -> None:
    assert await status_of(world, signed(world, claims(**change))) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize("customer_id", ["", 7])
async def test_a_token_of_the_banks_own_people_with_a_broken_customer_id_is_invalid(
    world: GatewayWorld, customer_id: Any
) -> None:
    token = signed(world, claims(role="operator", customer_id=customer_id))

    assert await status_of(world, token) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize(
    "header", [{"typ": "JWT"}, {"typ": None}, {"kid": None}, {"kid": "unknown"}, {"kid": "../../etc/passwd"}], ids=str
)
async def test_a_token_of_another_type_or_key_is_invalid(world: GatewayWorld, header: dict[str, Any]) -> None:
    assert await status_of(world, signed(world, claims(), **header)) == (401, "INVALID_TOKEN")


async def test_a_token_without_a_signature_is_invalid(world: GatewayWorld) -> None:
    for algorithm in ("none", "None", "NONE", ""):
        head = {"alg": algorithm, "typ": "at+jwt", "kid": world.keys.active.kid}
        assert await status_of(world, f"{part(head)}.{part(claims())}.") == (401, "INVALID_TOKEN")


async def test_a_token_signed_with_the_public_key_as_a_secret_is_invalid(world: GatewayWorld) -> None:
    public = world.keys.active.key.as_pem(private=False)
    text = f"{part({'alg': 'HS256', 'typ': 'at+jwt', 'kid': world.keys.active.kid})}.{part(claims())}"
    tag = hmac.new(public, text.encode(), hashlib.sha256).digest()
    signature = base64.urlsafe_b64encode(tag).rstrip(b"=").decode()

    assert await status_of(world, f"{text}.{signature}") == (401, "INVALID_TOKEN")


async def test_a_token_signed_by_another_key_under_our_kid_is_invalid(world: GatewayWorld) -> None:
    kid = world.keys.active.kid
    elliptic = jwt.encode(
        {"alg": "ES256", "typ": "at+jwt", "kid": kid}, claims(), ECKey.generate_key("P-256"), algorithms=["ES256"]
    )
    edwards = jwt.encode(
        {"alg": "Ed25519", "typ": "at+jwt", "kid": kid},
        claims(),
        OKPKey.generate_key("Ed25519"),
        algorithms=["Ed25519"],
    )

    assert await status_of(world, elliptic) == (401, "INVALID_TOKEN")
    assert await status_of(world, edwards) == (401, "INVALID_TOKEN")


async def test_a_token_that_brings_its_own_key_is_invalid(world: GatewayWorld) -> None:
    own = ECKey.generate_key("P-256")
    head = {"alg": "ES256", "typ": "at+jwt", "kid": world.keys.active.kid, "jwk": own.as_dict(private=False)}

    assert await status_of(world, jwt.encode(head, claims(), own, algorithms=["ES256"])) == (401, "INVALID_TOKEN")


async def test_an_altered_token_is_invalid(world: GatewayWorld) -> None:
    head, _, signature = signed(world, claims()).split(".")

    altered = f"{head}.{part(claims(customer_id='cust_002'))}.{signature}"

    assert await status_of(world, altered) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize(
    "token", ["x", "a.b.c", "..", "a.b", "é.b.c", "A" * 5000, "{}.{}.{}", "e30.e30.e30", "e30.e30."]
)
async def test_nonsense_is_invalid(world: GatewayWorld, token: str) -> None:
    assert await status_of(world, token) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic ZGVtbzpkZW1v", "Token abc"])
async def test_no_bearer_token_is_asked_for(world: GatewayWorld, value: str) -> None:
    reply = await world.client.send("GET", "/accounts", headers=[("Authorization", value)])

    assert (reply.status, reply.json["error"]) == (401, "ACCESS_TOKEN_REQUIRED")
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_two_tokens_are_invalid(world: GatewayWorld) -> None:
    good = signed(world, claims())
    headers = [("Authorization", f"Bearer {good}"), ("Authorization", f"Bearer {good}")]

    reply = await world.client.send("GET", "/accounts", headers=headers)

    assert (reply.status, reply.json["error"]) == (401, "INVALID_TOKEN")


def test_a_remembered_token_ends_when_it_ends(tmp_path: Path) -> None:
    present = [time.time()]
    keys = FileKeyRing.open(tmp_path, token_lifetime=HOUR, now=datetime.now(UTC))
    tokens = JwtAccessTokens(keys=keys, issuer="payflow", audience="payflow-api", now=lambda: present[0])
    head = {"alg": "ES256", "typ": "at+jwt", "kid": keys.active.kid}
    token = jwt.encode(head, claims(), keys.active.key, algorithms=["ES256"]).encode()
    tokens.verify(token)

    present[0] += 3601

    assert tokens.known(token) is None
    with pytest.raises(InvalidToken):
        tokens.verify(token)


async def test_a_token_of_a_key_that_was_taken_away_is_invalid_though_it_was_remembered(world: GatewayWorld) -> None:
    token = signed(world, claims())
    assert (await status_of(world, token))[0] == 200
    (first,) = world.keys._directory.glob("*.jwk")

    world.keys.rotate(datetime.now(UTC))
    first.unlink()
    world.keys.reload_if_changed()

    assert await status_of(world, token) == (401, "INVALID_TOKEN")


async def test_rotation_signs_with_a_new_key_and_the_old_tokens_stay_good_at_both_gateways(tmp_path: Path) -> None:
    first, second = GatewayWorld(tmp_path / "keys"), GatewayWorld(tmp_path / "keys")
    old = signed(first, claims())

    (rotated,) = await first.cli.rotate_keys([RotateKeys()])
    new = signed(first, claims(jti="c" * 32))

    assert isinstance(rotated, KeysRotated)
    assert rotated.active_kid == first.keys.active.kid
    assert len(rotated.verifying_kids) == 2
    for gateway in (first, second):
        assert (await status_of(gateway, old))[0] == 200
        assert (await status_of(gateway, new))[0] == 200
    assert second.keys.active.kid == rotated.active_kid
    assert first.store.events[-1].type == "security.keys_rotated"


async def test_the_public_keys_are_told_and_verify(world: GatewayWorld) -> None:
    await world.cli.rotate_keys([RotateKeys()])

    reply = await world.client.send("GET", "/.well-known/jwks.json")

    assert reply.status == 200
    assert reply.json["keys"][0]["kid"] == world.keys.active.kid
    assert len(reply.json["keys"]) == 2
    assert not any({"d", "k"} & set(key) for key in reply.json["keys"])
    public = ECKey.import_key(reply.json["keys"][0])
    assert jwt.decode(signed(world, claims()), public, algorithms=["ES256"]).claims["sub"] == "demo"


def test_an_old_key_is_retired_when_its_tokens_have_ended(tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(hours=5)
    ring = FileKeyRing.open(tmp_path, token_lifetime=HOUR, now=long_ago)
    first = ring.active.kid

    ring.rotate(long_ago + HOUR)
    ring.rotate(datetime.now(UTC))

    assert ring.find(first) is None
    assert len(list(tmp_path.glob("*.jwk"))) == 2


async def test_a_key_on_its_way_to_all_gateways_verifies_before_it_signs(tmp_path: Path) -> None:
    late, early = GatewayWorld(tmp_path / "keys"), GatewayWorld(tmp_path / "keys")
    first = early.keys.active.kid
    number = early.keys.add(signs_from=datetime.now(UTC) + timedelta(minutes=10))

    assert number == 2
    for gateway in (early, late):
        gateway.keys.reload_if_changed()
        assert gateway.keys.active.kid == first
        assert len(gateway.keys._keys) == 2


def test_a_key_signs_from_its_time_on_without_a_change_of_the_folder(tmp_path: Path) -> None:
    ring = FileKeyRing.open(tmp_path, token_lifetime=HOUR, now=datetime.now(UTC))
    first = ring.active.kid
    ring.add(signs_from=datetime.now(UTC) + timedelta(seconds=5.4))
    assert ring.active.kid == first

    time.sleep(0.6)
    ring.retire_old(datetime.now(UTC))

    assert ring.active.kid != first
    assert ring.find(first) is not None


def test_gateways_that_start_at_once_make_one_key_between_them(tmp_path: Path) -> None:
    def start(_: int) -> str:
        return FileKeyRing.open(tmp_path / "keys", token_lifetime=HOUR, now=datetime.now(UTC)).active.kid

    with ThreadPoolExecutor(8) as pool:
        kids = set(pool.map(start, range(16)))

    assert len(kids) == 1
    (file,) = (tmp_path / "keys").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_a_broken_key_file_is_passed_over(tmp_path: Path) -> None:
    ring = FileKeyRing.open(tmp_path, token_lifetime=HOUR, now=datetime.now(UTC))
    (tmp_path / "0009.jwk").write_text("{")

    again = FileKeyRing.open(tmp_path, token_lifetime=HOUR, now=datetime.now(UTC))

    assert again.active.kid == ring.active.kid
