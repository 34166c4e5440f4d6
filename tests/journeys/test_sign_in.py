"""Signing in, staying signed in, and signing out."""

from __future__ import annotations

import asyncio
import base64
import functools
import hmac
import json
import time
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet

from tests.support.api import PASSWORD, Api, Client, Factory, eventually
from tests.support.system import System


def claims_of(client: Client, keys: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims of a client's access token, its signature verified with published keys."""
    token = jwt.decode(client.token, KeySet.import_key_set(keys), algorithms=["ES256", "EdDSA"])
    return token.header, token.claims


async def published_keys(api: Api) -> Any:
    answer = await api.send("GET", "/.well-known/jwks.json")
    assert answer.status == 200
    return answer.json


async def test_a_right_password_gives_a_bearer_token_for_an_hour(api: Api, make: Factory) -> None:
    customer = await make.customer()

    answer = await api.login(customer.username)

    assert answer.status == 200
    assert answer.json.keys() == {"success", "access_token", "token_type", "expires_in", "refresh_token"}
    assert answer.json["success"] is True
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 3600
    assert b'"token_type":"Bearer"' in answer.body


@pytest.mark.parametrize(
    ("username", "password"),
    [("demo", "wrong"), ("nobody-of-that-name", "password123"), ("demo", "password123 "), ("' OR 1=1 --", "x")],
)
async def test_a_wrong_name_and_a_wrong_password_are_told_alike(api: Api, username: str, password: str) -> None:
    answer = await api.login(username, password)

    assert (answer.status, answer.error) == (401, "INVALID_CREDENTIALS")
    assert answer.json["detail"] == "User name or password is wrong."


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"username": "demo"}, "MISSING_REQUIRED_FIELDS"),
        ({"password": "x"}, "MISSING_REQUIRED_FIELDS"),
        ({"username": "demo", "password": "x", "remember": True}, "MALFORMED_REQUEST"),
        ({"username": 7, "password": "x"}, "MALFORMED_REQUEST"),
        (["demo", "x"], "MALFORMED_REQUEST"),
    ],
)
async def test_a_sign_in_that_cannot_be_read_is_a_400(api: Api, body: Any, code: str) -> None:
    answer = await api.send("POST", "/auth/login", json_body=body)

    assert (answer.status, answer.error) == (400, code)


async def test_a_token_names_its_customer_and_verifies_with_the_published_keys(api: Api, make: Factory) -> None:
    customer = await make.customer()

    header, claims = claims_of(customer.client, await published_keys(api))

    assert header["typ"] == "at+jwt"
    assert claims["sub"] == customer.username
    assert claims["customer_id"] == customer.customer_id
    assert claims["role"] == "customer"
    assert {"iss", "aud", "sub", "iat", "exp", "jti"} <= claims.keys()
    assert claims["exp"] - claims["iat"] == 3600


async def test_the_published_keys_hold_nothing_private(api: Api) -> None:
    keys = await published_keys(api)

    assert keys["keys"]
    assert all("d" not in key and key["kid"] and key["use"] == "sig" for key in keys["keys"])


async def test_a_refresh_token_gives_a_new_pair_that_works(api: Api, make: Factory) -> None:
    customer = await make.customer()

    answer = await api.send("POST", "/auth/refresh", json_body={"refresh_token": customer.client.refresh_token})

    assert answer.status == 200
    assert answer.json["refresh_token"] != customer.client.refresh_token
    assert answer.json["access_token"] != customer.client.token
    used = await api.send("GET", "/accounts", token=answer.json["access_token"])
    assert used.status == 200


async def test_using_a_refresh_token_twice_ends_the_whole_session(api: Api, make: Factory) -> None:
    customer = await make.customer()
    old = {"refresh_token": customer.client.refresh_token}
    renewed = await api.send("POST", "/auth/refresh", json_body=old)

    reused = await api.send("POST", "/auth/refresh", json_body=old)

    assert (reused.status, reused.error) == (401, "TOKEN_REVOKED")
    after = await api.send("POST", "/auth/refresh", json_body={"refresh_token": renewed.json["refresh_token"]})
    assert (after.status, after.error) == (401, "TOKEN_REVOKED")
    access = await api.send("GET", "/accounts", token=renewed.json["access_token"])
    assert (access.status, access.error) == (401, "TOKEN_REVOKED")


async def test_of_two_uses_of_a_refresh_token_at_once_at_most_one_succeeds(
    api: Api, make: Factory, system: System
) -> None:
    customer = await make.customer()
    body = {"refresh_token": customer.client.refresh_token}

    answers = await asyncio.gather(
        *(api.at(url).send("POST", "/auth/refresh", json_body=body) for url in system.gateway_urls * 3)
    )

    assert sum(answer.status == 200 for answer in answers) <= 1
    assert {answer.status for answer in answers} <= {200, 401}


async def test_a_refresh_token_that_nobody_gave_out_is_refused(api: Api) -> None:
    answer = await api.send("POST", "/auth/refresh", json_body={"refresh_token": "made-up"})

    assert answer.status == 401


async def test_signing_out_at_one_gateway_is_seen_at_once_by_both(api: Api, make: Factory, system: System) -> None:
    customer = await make.customer()
    gateways = [customer.client.at(url) for url in system.gateway_urls]
    before = [(await gateway.get("/accounts")).status for gateway in gateways]

    out = await gateways[0].post("/auth/logout")
    after = [await gateway.get("/accounts") for gateway in gateways]

    assert before == [200, 200]
    assert (out.status, out.json) == (200, {"success": True})
    assert [(answer.status, answer.error) for answer in after] == [(401, "TOKEN_REVOKED")] * 2


async def test_signing_out_ends_the_session_s_refresh_token_too(api: Api, make: Factory) -> None:
    customer = await make.customer()
    tokens = {"refresh_token": customer.client.refresh_token}

    await customer.client.post("/auth/logout", tokens)

    renewed = await api.send("POST", "/auth/refresh", json_body=tokens)
    assert (renewed.status, renewed.error) == (401, "TOKEN_REVOKED")


async def test_signing_out_in_one_session_leaves_another_alone(api: Api, make: Factory) -> None:
    customer = await make.customer()
    elsewhere = await api.sign_in(customer.username)

    await customer.client.post("/auth/logout")

    assert (await elsewhere.get("/accounts")).status == 200


def hmac_signed(header: dict[str, Any], payload: str, *, secret: bytes) -> str:
    """A token signed with HMAC. By hand: a library worth its name refuses a public key as the secret."""
    head = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    mac = hmac.digest(secret, f"{head}.{payload}".encode(), "sha256")
    return f"{head}.{payload}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def signing_key(system: System) -> ECKey:
    """The key with which the instance signs."""
    newest = max(system.instance.secrets_dir.glob("token_keys/*.jwk"))
    return ECKey.import_key(json.loads(newest.read_text())["key"])


def tampered_tokens(system: System, good: str) -> dict[str, str]:
    """Tokens that must not work, by what is wrong with them."""
    key = signing_key(system)
    decoded = jwt.decode(good, key, algorithms=["ES256"])
    header, claims, now = dict(decoded.header), dict(decoded.claims), int(time.time())
    stranger = ECKey.generate_key("P-256")
    payload = good.split(".")[1]

    def signed(over: dict[str, Any], *, with_header: dict[str, Any] | None = None, by: Any = key) -> str:
        kept = {name: value for name, value in (claims | over).items() if value is not None}
        return jwt.encode(header | (with_header or {}), kept, by, algorithms=["ES256", "HS256"])

    return {
        "garbage": "garbage",
        "three-dots": "a.b.c",
        "not-ascii": "é.é.é",
        "expired": signed({"iat": now - 7200, "exp": now - 3600}),
        "another-audience": signed({"aud": "elsewhere"}),
        "another-issuer": signed({"iss": "elsewhere"}),
        "no-expiry": signed({"exp": None}),
        "no-id": signed({"jti": None}),
        "another-type": signed({}, with_header={"typ": "JWT"}),
        "a-strangers-key": signed({}, by=stranger),
        "an-unknown-key": signed({}, with_header={"kid": "nobody"}, by=stranger),
        "public-key-as-secret": hmac_signed(header | {"alg": "HS256"}, payload, secret=key.as_pem(private=False)),
        "no-signature": f"eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{payload}.",
        "cut": good[:-8],
        "changed": good[: len(good) // 2] + ("A" if good[len(good) // 2] != "A" else "B") + good[len(good) // 2 + 1 :],
    }


async def test_no_tampered_token_is_let_in(api: Api, make: Factory, system: System) -> None:
    customer = await make.customer()
    tokens = tampered_tokens(system, customer.client.token)

    answers = {what: await api.send("GET", "/accounts", token=token) for what, token in tokens.items()}

    told = {what: (answer.status, answer.error) for what, answer in answers.items()}
    assert told == dict.fromkeys(tokens, (401, "INVALID_TOKEN"))
    assert all(answer.headers["www-authenticate"].startswith("Bearer") for answer in answers.values())


async def test_the_keys_with_which_tokens_are_tampered_do_work_for_a_good_one(
    api: Api, make: Factory, system: System
) -> None:
    # Without this the test above would also pass if our own signing were wrong.
    customer = await make.customer()
    key = signing_key(system)
    decoded = jwt.decode(customer.client.token, key, algorithms=["ES256"])

    again = jwt.encode(dict(decoded.header), decoded.claims | {"jti": "another"}, key, algorithms=["ES256"])

    assert (await api.send("GET", "/accounts", token=again)).status == 200


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Basic ZGVtbzpwYXNzd29yZDEyMw==", "bearer"])
async def test_without_a_bearer_token_nothing_is_told(api: Api, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}

    answer = await api.send("GET", "/accounts", headers=headers)

    assert (answer.status, answer.error) == (401, "ACCESS_TOKEN_REQUIRED")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def kid_of(client: Client) -> str:
    """The id of the key that signed a client's token."""
    head = client.token.split(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"])


async def signed_with_another_key(api: Api, username: str, old_kid: str) -> Client | None:
    """A newly signed-in client, None while the old key still signs: a gateway looks for a new one every second."""
    client = await api.sign_in(username, PASSWORD)
    return client if kid_of(client) != old_kid else None


async def test_a_rotated_key_signs_new_tokens_and_the_old_ones_stay_good(
    api: Api, make: Factory, system: System
) -> None:
    customer = await make.customer()
    old_kid = kid_of(customer.client)

    rotated = await asyncio.to_thread(system.run, "keys", "rotate")

    assert rotated.returncode == 0, rotated.stderr
    for gateway in (api.at(url) for url in system.gateway_urls):
        sign_in = functools.partial(signed_with_another_key, gateway, customer.username, old_kid)
        fresh = await eventually(sign_in, seconds=3)
        kids = {key["kid"] for key in (await published_keys(gateway))["keys"]}
        assert kids >= {old_kid, kid_of(fresh)}
        for other in system.gateway_urls:
            assert (await customer.client.at(other).get("/accounts")).status == 200
            assert (await fresh.at(other).get("/accounts")).status == 200
