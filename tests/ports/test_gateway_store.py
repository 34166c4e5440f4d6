"""One suite for the gateway's use cases over its in-memory store and over PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from payflow.contracts.gateway import (
    InvalidCredentials,
    InvalidToken,
    NewUser,
    Role,
    TokenRevoked,
    UserExists,
    UserView,
)
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Database
from payflow.services.gateway.domain.sessions import Lifetimes, Revocation, digest
from payflow.services.gateway.store import PostgresStore
from payflow.services.gateway.usecases.sessions import SignedIn, SignIn, SignOut
from payflow.services.gateway.usecases.users import SetEnabled
from tests.builders import NOON, FixedClock, new_id
from tests.fakes_gateway import FakeGatewayStore, GatewayWorld

Connect = Callable[[str], Awaitable[Database]]


@pytest.fixture(params=["memory", "postgres"])
async def world(request: pytest.FixtureRequest, connect_as: Connect, tmp_path: Path) -> GatewayWorld:
    store: Any = FakeGatewayStore()
    if request.param == "postgres":
        database = await connect_as("gateway")
        store = PostgresStore(database=database, outbox=Outbox(database))
    return GatewayWorld(tmp_path / "keys", store=store)


def a_name() -> str:
    return f"user_{new_id().hex[-12:]}"


async def a_user(world: GatewayWorld) -> str:
    name = a_name()
    await world.user(name, customer_id=f"cust_{name}")
    return name


async def sign_in(world: GatewayWorld, name: str, password: str = "password123") -> Any:
    (answer,) = await world.api.sign_in([SignIn(username=name, password=password)])
    return answer


async def refresh(world: GatewayWorld, token: str) -> Any:
    (answer,) = await world.api.refresh([token])
    return answer


async def test_a_user_is_stored_as_given_and_found_whatever_the_case(world: GatewayWorld) -> None:
    name = a_name().upper()

    (made,) = await world.cli.create_users([NewUser(username=name, role=Role.AUDITOR, password="password123")])
    found = await world.store.users([name.lower()])

    assert isinstance(made, UserView)
    assert (made.username, made.role, made.customer_id, made.is_enabled) == (name, Role.AUDITOR, None, True)
    assert found[name.lower()].view() == made


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.CUSTOMER])
async def test_a_user_of_the_bank_may_be_a_customer_as_well(world: GatewayWorld, role: Role) -> None:
    name = a_name()
    command = NewUser(username=name, role=role, password="password123", customer_id="cust_own")

    (made,) = await world.cli.create_users([command])
    tokens = await sign_in(world, name)

    identity = world.tokens.verify(tokens.access_token.encode())
    assert isinstance(made, UserView)
    assert (made.role, made.customer_id) == (role, "cust_own")
    assert (identity.role, identity.customer_id) == (role, "cust_own")


async def test_no_customer_is_stored_without_a_customer_id(connect_as: Connect) -> None:
    database = await connect_as("gateway")

    with pytest.raises(asyncpg.CheckViolationError, match="a_customer_has_a_customer_id"):
        await database.execute(
            "INSERT INTO users (user_id, username, role, password_hash, created_at)"
            " VALUES ($1, 'x', 'customer', '$argon2id$', $2)",
            new_id(),
            NOON,
        )


async def test_of_many_who_make_one_user_at_once_all_get_that_user(world: GatewayWorld) -> None:
    command = NewUser(username=a_name(), role=Role.ADMIN, password="password123")

    answers = await asyncio.gather(*(world.api.create_users([command]) for _ in range(4)))

    assert {answer[0].created_at for answer in answers if isinstance(answer[0], UserView)} == {
        (await world.store.users([command.username]))[command.username].created_at
    }
    assert all(isinstance(answer[0], UserView) for answer in answers)


async def test_a_name_taken_meanwhile_by_another_is_refused(world: GatewayWorld) -> None:
    name = a_name()
    mine = NewUser(username=name, role=Role.ADMIN, password="password123")
    theirs = NewUser(username=name, role=Role.AUDITOR, password="password123")

    answers = [
        answer for (answer,) in await asyncio.gather(*(world.api.create_users([command]) for command in (mine, theirs)))
    ]

    assert sorted(isinstance(answer, UserExists) for answer in answers) == [False, True]


async def test_users_are_listed_page_by_page(world: GatewayWorld) -> None:
    names = sorted([await a_user(world) for _ in range(5)])

    told, after = [], None
    while True:
        page, after = await world.api.list_users(after=after, limit=2)
        told += [view.username for view in page]
        if after is None:
            break

    assert [name for name in told if name in names] == names


async def test_a_session_is_opened_and_renewed_and_ended(world: GatewayWorld) -> None:
    name = await a_user(world)

    first = await sign_in(world, name)
    second = await refresh(world, first.refresh_token)
    identity = world.tokens.verify(second.access_token.encode())
    await world.api.sign_out([SignOut(identity=identity)])

    assert isinstance(await refresh(world, second.refresh_token), TokenRevoked)
    assert await world.store.revoked_among([identity.token_id, identity.session_id, "other"]) == {
        identity.token_id,
        identity.session_id,
    }


async def test_two_gateways_that_use_one_refresh_token_at_once_give_one_pair_and_end_the_session(
    world: GatewayWorld,
) -> None:
    name = await a_user(world)
    tokens = await sign_in(world, name)

    answers = await asyncio.gather(*(refresh(world, tokens.refresh_token) for _ in range(3)))

    assert sum(isinstance(answer, SignedIn) for answer in answers) == 1
    assert sum(isinstance(answer, TokenRevoked) for answer in answers) == 2


async def test_one_list_with_one_refresh_token_twice_gives_one_pair(world: GatewayWorld) -> None:
    name = await a_user(world)
    tokens = await sign_in(world, name)

    first, second, third = await world.api.refresh([tokens.refresh_token, tokens.refresh_token, "unknown"])

    assert isinstance(first, SignedIn)
    assert isinstance(second, TokenRevoked)
    assert isinstance(third, InvalidToken)


async def test_a_user_disabled_while_signing_in_gets_no_session(world: GatewayWorld) -> None:
    name = await a_user(world)
    user = (await world.store.users([name]))[name]
    disable = SetEnabled(username=name, is_enabled=False, changed_by="admin")
    original = world.passwords.verify

    async def disable_meanwhile(*, password: str, password_hash: str | None) -> bool:
        await world.api.set_enabled([disable])
        return await original(password=password, password_hash=password_hash)

    world.passwords.verify = disable_meanwhile
    answer = await sign_in(world, name)

    assert isinstance(answer, InvalidCredentials)
    async with world.store.transaction() as transaction:
        assert await transaction.open_sessions_of([user.user_id], expiring_after=datetime.now(UTC)) == []


async def test_no_access_token_outlives_its_session(world: GatewayWorld, tmp_path: Path) -> None:
    signed_in_at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=50)
    clock = FixedClock(signed_in_at)
    lifetimes = Lifetimes(access=timedelta(hours=1), session=timedelta(minutes=55))
    world = GatewayWorld(tmp_path / "other_keys", store=world.store, lifetimes=lifetimes, clock=clock)
    first = await sign_in(world, await a_user(world))

    clock.move(timedelta(minutes=50))
    second = await refresh(world, first.refresh_token)

    session_ends_at = (signed_in_at + timedelta(minutes=55)).timestamp()
    ends = [world.tokens.verify(tokens.access_token.encode()).ends_at for tokens in (first, second)]
    assert ends == [session_ends_at, session_ends_at]
    assert (first.expires_in_s, second.expires_in_s) == (55 * 60, 5 * 60)


async def test_a_disabled_users_access_tokens_are_revoked_also_where_their_session_can_no_longer_be_renewed(
    world: GatewayWorld, tmp_path: Path
) -> None:
    clock = FixedClock(datetime.now(UTC))
    lifetimes = Lifetimes(access=timedelta(hours=1), session=timedelta(minutes=5))
    world = GatewayWorld(tmp_path / "other_keys", store=world.store, lifetimes=lifetimes, clock=clock)
    name = await a_user(world)
    tokens = await sign_in(world, name)
    identity = world.tokens.verify(tokens.access_token.encode())

    clock.move(timedelta(minutes=30))
    await world.api.set_enabled([SetEnabled(username=name, is_enabled=False, changed_by="admin")])

    assert await world.store.revoked_among([identity.session_id]) == {identity.session_id}


async def test_a_refresh_token_used_again_after_its_sessions_end_revokes_the_session_too(
    world: GatewayWorld, tmp_path: Path
) -> None:
    clock = FixedClock(datetime.now(UTC))
    lifetimes = Lifetimes(access=timedelta(hours=1), session=timedelta(minutes=5))
    world = GatewayWorld(tmp_path / "other_keys", store=world.store, lifetimes=lifetimes, clock=clock)
    first = await sign_in(world, await a_user(world))
    second = await refresh(world, first.refresh_token)
    identity = world.tokens.verify(second.access_token.encode())

    clock.move(timedelta(minutes=30))
    answer = await refresh(world, first.refresh_token)

    assert isinstance(answer, TokenRevoked)
    assert await world.store.revoked_among([identity.session_id]) == {identity.session_id}


async def test_signing_out_after_the_sessions_end_revokes_the_session_too(world: GatewayWorld, tmp_path: Path) -> None:
    clock = FixedClock(datetime.now(UTC))
    lifetimes = Lifetimes(access=timedelta(hours=1), session=timedelta(minutes=5))
    world = GatewayWorld(tmp_path / "other_keys", store=world.store, lifetimes=lifetimes, clock=clock)
    tokens = await sign_in(world, await a_user(world))
    identity = world.tokens.verify(tokens.access_token.encode())

    clock.move(timedelta(minutes=30))
    await world.api.sign_out([SignOut(identity=identity)])

    ids = [identity.token_id, identity.session_id]
    assert await world.store.revoked_among(ids) == set(ids)


async def test_a_user_enabled_again_signs_in(world: GatewayWorld) -> None:
    name = await a_user(world)

    for is_enabled in (False, False, True):
        await world.api.set_enabled([SetEnabled(username=name, is_enabled=is_enabled, changed_by="admin")])

    assert isinstance(await sign_in(world, name), SignedIn)


async def test_revocations_are_numbered_without_gaps_and_told_in_one_snapshot(world: GatewayWorld) -> None:
    before = await world.store.revocation_number()
    now = datetime.now(UTC)
    ids = [new_id().hex for _ in range(3)]

    for id_ in ids:
        async with world.store.transaction() as transaction:
            await transaction.revoke([Revocation(id=id_, ends_at=now + timedelta(hours=1), reason="test")], now)
    known = await world.store.revocations(now)

    assert await world.store.revocation_number() == before + 3
    assert known.number == before + 3
    assert set(ids) <= set(known.ends)


async def test_what_has_ended_is_forgotten(world: GatewayWorld) -> None:
    name = await a_user(world)
    tokens = await sign_in(world, name)
    id_ = new_id().hex
    async with world.store.transaction() as transaction:
        await transaction.revoke([Revocation(id=id_, ends_at=NOON, reason="test")], NOON)

    await world.store.forget(revoked_before=datetime.now(UTC), expired_before=datetime.now(UTC) + timedelta(days=2))

    assert await world.store.revoked_among([id_]) == set()
    async with world.store.transaction() as transaction:
        assert await transaction.lock_refresh_tokens([digest(tokens.refresh_token)]) == {}


async def test_the_stored_secrets_are_digests(connect_as: Connect, tmp_path: Path) -> None:
    database = await connect_as("gateway")
    world = GatewayWorld(tmp_path / "keys", store=PostgresStore(database=database, outbox=Outbox(database)))
    tokens = await sign_in(world, await a_user(world))

    rows = await database.fetch("SELECT token_sha256::text AS shown FROM refresh_token")

    assert rows
    assert not any(tokens.refresh_token in row["shown"] for row in rows)


async def test_the_service_s_role_can_change_no_other_service_and_delete_no_user(connect_as: Connect) -> None:
    database = await connect_as("gateway")

    for statement in ("DELETE FROM users", "SELECT * FROM account.accounts", "CREATE TABLE mine (a int)"):
        with pytest.raises(Exception, match=r"permission denied"):
            await database.execute(statement)


async def test_a_database_is_named_once(connect_as: Connect) -> None:
    database = await connect_as("gateway")
    store = PostgresStore(database=database, outbox=Outbox(database))

    names = await asyncio.gather(*(store.generation() for _ in range(4)))

    assert len(set(names)) == 1
