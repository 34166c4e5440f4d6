"""Signing in, renewing and signing out as clients see it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.gateway import NewUser, Role, UserExists, UserView
from payflow.contracts.topics import TOPIC_BY_TYPE
from payflow.kernel.errors import Overloaded, PayflowError
from payflow.services.gateway.domain.limits import Limit
from payflow.services.gateway.passwords import NOBODY, ArgonPasswords
from payflow.services.gateway.usecases.users import SetEnabled
from tests.fakes_gateway import GatewayWorld, Reply


@pytest.fixture
def world(tmp_path: Path) -> GatewayWorld:
    return GatewayWorld(tmp_path / "keys")


async def login(world: GatewayWorld, username: str, password: str) -> Reply:
    return await world.client.send("POST", "/auth/login", body={"username": username, "password": password})


async def renew(world: GatewayWorld, token: str) -> Reply:
    return await world.client.send("POST", "/auth/refresh", body={"refresh_token": token})


def told(world: GatewayWorld) -> list[tuple[str, str]]:
    return [(event.type.removeprefix("security."), event.data["actor"]) for event in world.store.events]


async def test_a_sign_in_gives_the_promised_fields(world: GatewayWorld) -> None:
    await world.user()

    reply = await login(world, "demo", "password123")

    assert reply.status == 200
    assert list(reply.json) == ["success", "access_token", "token_type", "expires_in", "refresh_token"]
    assert (reply.json["success"], reply.json["token_type"], reply.json["expires_in"]) == (True, "Bearer", 3600)
    assert told(world)[-1] == ("signed_in", "demo")


@pytest.mark.parametrize(("username", "password"), [("demo", "wrong-password"), ("nobody", "password123"), ("?", "x")])
async def test_a_wrong_name_and_a_wrong_password_are_told_alike_and_cost_the_same_work(
    world: GatewayWorld, username: str, password: str
) -> None:
    await world.user()
    before = world.passwords.verified

    reply = await login(world, username, password)

    assert (reply.status, reply.json["error"]) == (401, "INVALID_CREDENTIALS")
    assert reply.json["detail"] == "User name or password is wrong."
    assert world.passwords.verified == before + 1


async def test_names_are_told_apart_without_regard_to_case(world: GatewayWorld) -> None:
    await world.user("Demo")

    assert (await login(world, "dEMO", "password123")).status == 200


async def test_a_failed_sign_in_is_noted_without_a_name_that_no_user_has(world: GatewayWorld) -> None:
    await world.user()

    await login(world, "demo", "wrong-password")
    await login(world, "my-password-in-the-wrong-field", "x")

    assert told(world)[-2:] == [("sign_in_failed", "demo"), ("sign_in_failed", "unknown")]
    assert "my-password" not in repr(world.store.events)


async def test_failures_beyond_the_bound_are_refused_and_no_longer_noted(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", failures_noted=Limit("failures", 3, 600))
    await world.user()

    for _ in range(10):
        assert (await login(world, "demo", "wrong-password")).status == 401

    noted = [name for name, _ in told(world) if name == "sign_in_failed"]
    assert len(noted) == 4


@pytest.mark.parametrize(
    ("body", "missing"),
    [({}, ["username", "password"]), ({"username": "demo"}, ["password"]), ({"username": "", "password": "x"}, None)],
)
async def test_missing_fields_of_a_sign_in_are_named(world: GatewayWorld, body: Any, missing: Any) -> None:
    reply = await world.client.send("POST", "/auth/login", body=body)

    assert (reply.status, reply.json["error"]) == (400, "MISSING_REQUIRED_FIELDS")
    assert reply.json["missing_fields"] == (missing or ["username"])


async def test_a_refresh_token_is_good_for_one_new_pair(world: GatewayWorld) -> None:
    await world.user()
    first = await world.sign_in()

    second = await renew(world, first["refresh_token"])

    assert second.status == 200
    assert second.json["refresh_token"] != first["refresh_token"]
    assert (await world.client.send("GET", "/accounts", token=second.json["access_token"])).status == 200
    assert (await renew(world, second.json["refresh_token"])).status == 200


async def test_a_refresh_token_used_twice_ends_the_whole_session(world: GatewayWorld) -> None:
    await world.user()
    stolen = await world.sign_in()
    other_session = await world.sign_in()
    thief = (await renew(world, stolen["refresh_token"])).json

    reuse = await renew(world, stolen["refresh_token"])

    assert (reuse.status, reuse.json["error"]) == (401, "TOKEN_REVOKED")
    assert told(world)[-1] == ("refresh_reused", "demo")
    assert (await renew(world, thief["refresh_token"])).json["error"] == "TOKEN_REVOKED"
    for tokens in (stolen, thief):
        reply = await world.client.send("GET", "/accounts", token=tokens["access_token"])
        assert (reply.status, reply.json["error"]) == (401, "TOKEN_REVOKED")
    assert (await world.client.send("GET", "/accounts", token=other_session["access_token"])).status == 200


async def test_of_two_uses_of_a_refresh_token_at_once_one_succeeds_and_the_session_ends(world: GatewayWorld) -> None:
    await world.user()
    tokens = await world.sign_in()

    replies = await asyncio.gather(*(renew(world, tokens["refresh_token"]) for _ in range(5)))

    assert sorted(reply.status for reply in replies) == [200, 401, 401, 401, 401]
    winner = next(reply for reply in replies if reply.status == 200)
    assert (await renew(world, winner.json["refresh_token"])).json["error"] == "TOKEN_REVOKED"


async def test_an_unknown_refresh_token_is_invalid(world: GatewayWorld) -> None:
    reply = await renew(world, "made-up")

    assert (reply.status, reply.json["error"]) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize("body", [None, {}, {"refresh_token": "of somebody else"}])
async def test_signing_out_revokes_the_token_and_its_session(world: GatewayWorld, body: Any) -> None:
    await world.user()
    tokens = await world.sign_in()

    reply = await world.client.send("POST", "/auth/logout", token=tokens["access_token"], body=body)

    assert (reply.status, reply.json) == (200, {"success": True})
    again = await world.client.send("GET", "/accounts", token=tokens["access_token"])
    assert (again.status, again.json["error"]) == (401, "TOKEN_REVOKED")
    assert 'error="invalid_token"' in again.headers["www-authenticate"]
    assert (await renew(world, tokens["refresh_token"])).json["error"] == "TOKEN_REVOKED"
    assert told(world)[-1] == ("signed_out", "demo")


async def test_signing_out_ends_another_own_session_by_its_refresh_token_but_nobody_elses(world: GatewayWorld) -> None:
    await world.user()
    await world.user("second", customer_id="cust_002")
    here, elsewhere, others = await world.sign_in(), await world.sign_in(), await world.sign_in("second")

    for token in (elsewhere, others):
        here = await world.sign_in()
        body = {"refresh_token": token["refresh_token"]}
        await world.client.send("POST", "/auth/logout", token=here["access_token"], body=body)

    assert (await world.client.send("GET", "/accounts", token=elsewhere["access_token"])).status == 401
    assert (await world.client.send("GET", "/accounts", token=others["access_token"])).status == 200


async def test_a_disabled_user_is_out_at_once_and_cannot_come_back(world: GatewayWorld) -> None:
    await world.user()
    tokens = await world.sign_in()

    (view,) = await world.api.set_enabled([SetEnabled(username="demo", is_enabled=False, changed_by="admin")])

    assert isinstance(view, UserView)
    assert not view.is_enabled
    assert (await world.client.send("GET", "/accounts", token=tokens["access_token"])).json["error"] == "TOKEN_REVOKED"
    assert (await renew(world, tokens["refresh_token"])).json["error"] == "TOKEN_REVOKED"
    assert (await login(world, "demo", "password123")).json["error"] == "INVALID_CREDENTIALS"
    assert ("user_disabled", "admin") in told(world)


async def test_enabling_a_user_is_told_once_with_who_did_it(world: GatewayWorld) -> None:
    await world.user()
    await world.api.set_enabled([SetEnabled(username="demo", is_enabled=False, changed_by="admin")])

    for _ in range(2):
        await world.api.set_enabled([SetEnabled(username="demo", is_enabled=True, changed_by="grace")])

    assert told(world)[-2:] == [("user_disabled", "admin"), ("user_enabled", "grace")]
    event = world.store.events[-1]
    assert (event.subject, event.version) == ("user/demo", 3)
    assert event.type in TOPIC_BY_TYPE


async def test_making_a_user_again_gets_the_user_and_other_contents_are_refused(world: GatewayWorld) -> None:
    command = NewUser(username="demo", role=Role.CUSTOMER, customer_id="cust_001", password="password123")
    others = [
        NewUser(username="DEMO", role=Role.CUSTOMER, customer_id="cust_001", password="another-password"),
        NewUser(username="demo", role=Role.CUSTOMER, customer_id="cust_002", password="password123"),
        NewUser(username="demo", role=Role.ADMIN, password="password123"),
    ]

    first = await world.cli.create_users([command, command])
    again = await world.cli.create_users([command, *others])

    assert all(isinstance(view, UserView) for view in (*first, again[0]))
    assert all(isinstance(answer, UserExists) for answer in again[1:])
    assert told(world) == [("user_created", "cli")]


@pytest.mark.parametrize(
    "command",
    [
        NewUser(username="", role=Role.ADMIN, password="password123"),
        NewUser(username="a b", role=Role.ADMIN, password="password123"),
        NewUser(username="x" * 65, role=Role.ADMIN, password="password123"),
        NewUser(username="a", role=Role.ADMIN, password="short"),
        NewUser(username="a", role=Role.ADMIN, password="x" * 257),
        NewUser(username="a", role=Role.ADMIN),
        NewUser(username="a", role=Role.ADMIN, password="password123", password_hash="$argon2id$..."),
        NewUser(username="a", role=Role.CUSTOMER, password="password123"),
        NewUser(username="a", role=Role.ADMIN, password="password123", customer_id=""),
        NewUser(username="a", role=Role.ADMIN, password_hash="$2b$12$abcdefghijklmnopqrstuv"),
        NewUser(username="a", role=Role.ADMIN, password_hash="$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$" + "a" * 43),
        NewUser(
            username="a", role=Role.ADMIN, password_hash="$argon2id$v=19$m=9999999,t=3,p=4$c2FsdHNhbHQ$" + "a" * 43
        ),
        NewUser(username="a", role=Role.ADMIN, password_hash="$argon2id$v=19$m=65536,t=99,p=4$c2FsdHNhbHQ$" + "a" * 43),
    ],
)
async def test_a_user_that_cannot_be_is_refused_alone(world: GatewayWorld, command: NewUser) -> None:
    good = NewUser(username="good", role=Role.ADMIN, password="password123")

    refused, made = await world.cli.create_users([command, good])

    assert isinstance(refused, PayflowError)
    assert refused.code == "VALIDATION_FAILED"
    assert isinstance(made, UserView)


async def test_the_first_administrator_is_made_once_and_only_where_there_is_no_user(world: GatewayWorld) -> None:
    made = await asyncio.gather(
        world.api.bootstrap_admin("a-generated-one"), world.api.bootstrap_admin("a-generated-one")
    )
    later = await world.api.bootstrap_admin("another-one-now")

    assert any(made)
    assert not later
    assert (await login(world, "admin", "a-generated-one")).status == 200
    assert [name for name, _ in told(world)].count("user_created") == 1


async def test_an_imported_hash_signs_in(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys", real_passwords=True)
    hashed = await world.passwords.hash("imported-password")

    await world.cli.create_users([NewUser(username="old", role=Role.AUDITOR, password_hash=hashed)])

    assert (await login(world, "old", "imported-password")).status == 200
    assert (await login(world, "old", "wrong-password")).status == 401
    assert (await login(world, "none", "wrong-password")).status == 401


async def test_more_sign_ins_than_may_wait_are_refused_at_once() -> None:
    passwords = ArgonPasswords(threads=1, queue_max=2)

    answers = await asyncio.gather(*(passwords.hash("password123") for _ in range(10)), return_exceptions=True)

    assert sum(isinstance(answer, Overloaded) for answer in answers) == 7
    assert (await passwords.hash("password123")).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    await passwords.close()


async def test_a_user_who_does_not_exist_costs_as_much_as_one_who_does() -> None:
    passwords = ArgonPasswords()

    hashed = await passwords.hash("password123")

    assert NOBODY.split("$")[:4] == hashed.split("$")[:4]
    assert not await passwords.verify(password="password123", password_hash=None)
    await passwords.close()
