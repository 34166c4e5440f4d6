"""Limits and revocation over a real Valkey and a real PostgreSQL, by two gateways at once and when either is gone.

Valkey is one server, and then a cluster: the same must hold of both.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Database
from payflow.services.gateway.domain.limits import Limit
from payflow.services.gateway.domain.sessions import Revocation
from payflow.services.gateway.guard import Ask
from payflow.services.gateway.store import PostgresStore
from payflow.services.gateway.usecases.sessions import SignOut
from tests.fakes_gateway import NOWHERE, FakeGatewayStore, GatewayWorld
from tests.support.valkey_cluster import KINDS, running_valkey

Connect = Callable[[str], Awaitable[Database]]


@pytest.fixture(scope="module", params=KINDS)
def valkey_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with running_valkey(request.param) as url:
        yield url


@dataclass
class Pair:
    """Two gateways on one database and one Valkey."""

    first: GatewayWorld
    second: GatewayWorld

    async def close(self) -> None:
        for world in (self.first, self.second):
            await world.valkey.aclose()


@pytest.fixture
async def pair(connect_as: Connect, valkey_url: str, tmp_path: Path) -> Pair:
    database = await connect_as("gateway")
    # A name of this test's own: the suites share one Valkey.
    name = uuid4().hex

    def gateway() -> GatewayWorld:
        store = PostgresStore(database=database, outbox=Outbox(database))
        # A real Valkey answers, however long a busy machine lets it think.
        return GatewayWorld(
            tmp_path / "keys", store=store, valkey_url=valkey_url, generation=name, valkey_timeout_s=10.0
        )

    made = Pair(gateway(), gateway())
    await made.first.guard.look()
    await made.second.guard.look()
    return made


async def count(world: GatewayWorld, key: str, limit: Limit, times: int) -> int:
    verdicts = await asyncio.gather(*(world.guard.ask(Ask(((key, limit),), ())) for _ in range(times)))
    return sum(verdict.standings[0].is_allowed for verdict in verdicts)


async def is_revoked(world: GatewayWorld, *ids: str) -> bool:
    return (await world.guard.ask(Ask((), ids))).is_revoked


async def a_revocation(world: GatewayWorld, *, is_published: bool = True) -> str:
    now = datetime.now(UTC)
    revocation = Revocation(id=uuid4().hex, ends_at=now + timedelta(minutes=5), reason="test")
    async with world.store.transaction() as transaction:
        number = await transaction.revoke([revocation], now)
    if is_published:
        await world.guard.publish([revocation], number=number)
    return revocation.id


async def test_one_count_holds_over_both_gateways(pair: Pair) -> None:
    limit = Limit("ip", 100, 900)

    allowed = sum(await asyncio.gather(count(pair.first, "ip:1", limit, 80), count(pair.second, "ip:1", limit, 80)))

    assert allowed == 100


async def test_counters_of_different_keys_do_not_touch(pair: Pair) -> None:
    limit = Limit("ip", 3, 900)

    assert [await count(pair.first, f"ip:{number}", limit, 5) for number in range(3)] == [3, 3, 3]


async def test_the_window_slides(pair: Pair) -> None:
    limit = Limit("ip", 4, 1)
    key = f"ip:{uuid4().hex}"
    await asyncio.sleep(1 - time.time() % 1 + 0.02)

    at_once = await count(pair.first, key, limit, 10)
    await asyncio.sleep(1 - time.time() % 1 + 0.5)
    half_a_window_later = await count(pair.first, key, limit, 10)
    await asyncio.sleep(2.1)
    much_later = await count(pair.first, key, limit, 10)

    assert at_once == 4
    assert half_a_window_later in (1, 2)
    assert much_later == 4


async def test_a_refusal_tells_when_there_is_room_again(pair: Pair) -> None:
    limit = Limit("ip", 2, 2)
    key = f"ip:{uuid4().hex}"
    await count(pair.first, key, limit, 2)

    (refused,) = (await pair.first.guard.ask(Ask(((key, limit),), ()))).standings
    await asyncio.sleep(refused.retry_after_s)

    assert not refused.is_allowed
    assert refused.remaining == 0
    assert await count(pair.first, key, limit, 1) == 1


async def test_the_standings_of_one_batch_count_down(pair: Pair) -> None:
    limit = Limit("ip", 5, 900)

    verdicts = await asyncio.gather(*(pair.first.guard.ask(Ask((("ip:9", limit),), ())) for _ in range(6)))

    assert [verdict.standings[0].remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0]
    assert [verdict.standings[0].is_allowed for verdict in verdicts] == [True] * 5 + [False]


async def test_a_token_signed_out_at_one_gateway_is_refused_by_the_other_at_once(pair: Pair) -> None:
    name = f"user_{uuid4().hex[:8]}"
    token = await pair.first.token(name, customer_id="cust_001")
    before = await pair.second.client.send("GET", "/accounts", token=token)

    await pair.first.client.send("POST", "/auth/logout", token=token)

    after = await pair.second.client.send("GET", "/accounts", token=token)
    assert (before.status, after.status, after.json["error"]) == (200, 401, "TOKEN_REVOKED")


async def test_revocation_survives_an_emptied_cache(pair: Pair) -> None:
    id_ = await a_revocation(pair.first)

    await pair.first.valkey.flushall()

    assert await is_revoked(pair.second, id_)
    assert not await is_revoked(pair.second, uuid4().hex)


async def test_an_emptied_cache_is_rebuilt_from_the_truth(pair: Pair) -> None:
    id_ = await a_revocation(pair.first)
    await pair.first.valkey.flushall()

    await pair.second.guard.look()

    pair.first.store = pair.second.store = None
    pair.second.guard._store = BrokenStore()
    assert await is_revoked(pair.second, id_)


async def test_a_cache_that_missed_a_revocation_is_not_believed(pair: Pair) -> None:
    # One gateway wrote the truth and died before it could tell the cache.
    id_ = await a_revocation(pair.first, is_published=False)

    await pair.second.guard.look()

    assert await is_revoked(pair.second, id_)


async def test_a_cache_that_went_back_in_time_is_not_believed(pair: Pair) -> None:
    # A replica took over that had not yet heard of the last revocation.
    mark = await pair.first.valkey.get(pair.first.guard._mark)
    id_ = await a_revocation(pair.first)
    await is_revoked(pair.second, uuid4().hex)

    await pair.first.valkey.delete(pair.first.guard._revoked_key(id_))
    await pair.first.valkey.set(pair.first.guard._mark, mark)

    assert await is_revoked(pair.second, id_)


async def test_a_later_revocation_does_not_hide_one_that_the_cache_has_missed(pair: Pair) -> None:
    missed = await a_revocation(pair.first, is_published=False)
    later = await a_revocation(pair.first)

    await pair.second.guard.look()

    assert await is_revoked(pair.second, missed)
    assert await is_revoked(pair.second, later)


async def test_without_valkey_requests_are_counted_in_the_process_and_revocation_is_asked_of_the_truth(
    pair: Pair, tmp_path: Path
) -> None:
    id_ = await a_revocation(pair.first)
    alone = GatewayWorld(tmp_path / "other", store=pair.first.store, valkey_url=NOWHERE)

    assert await count(alone, "ip:1", Limit("ip", 3, 900), 10) == 3
    assert await is_revoked(alone, id_)
    assert not await is_revoked(alone, uuid4().hex)


async def test_without_valkey_and_without_the_truth_no_token_gets_through(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys")
    token = await world.token()
    world.store.failure = Unavailable("The database cannot be reached.")

    with_token = await world.client.send("GET", "/accounts", token=token)
    without = await world.client.send("GET", "/.well-known/jwks.json")

    assert (with_token.status, with_token.json["error"]) == (503, "SERVICE_UNAVAILABLE")
    assert without.status == 200


async def test_a_valkey_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    world = GatewayWorld(tmp_path / "keys", valkey_url=f"redis://127.0.0.1:{port}")
    began = time.monotonic()

    verdicts = [await world.guard.ask(Ask((("ip:1", Limit("ip", 100, 900)),), ("id",))) for _ in range(12)]

    assert not any(verdict.is_revoked for verdict in verdicts)
    assert time.monotonic() - began < 3
    silent.close()


async def test_a_sign_out_that_the_cache_cannot_be_told_is_answered_when_the_others_have_looked(
    pair: Pair, tmp_path: Path
) -> None:
    # This gateway has lost Valkey; the other has not, and still believes the cache.
    lonely = GatewayWorld(tmp_path / "keys", store=pair.first.store, valkey_url=NOWHERE, look_every_s=0.2)
    await lonely.user("lonely", customer_id="cust_009")
    token = (await lonely.sign_in("lonely"))["access_token"]
    looking = asyncio.create_task(pair.second.guard.look_always())
    assert (await pair.second.client.send("GET", "/accounts", token=token)).status == 200

    await lonely.api.sign_out([SignOut(identity=lonely.tokens.verify(token.encode()))])

    assert (await pair.second.client.send("GET", "/accounts", token=token)).status == 401
    looking.cancel()


class BrokenStore(FakeGatewayStore):
    """A database that is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.failure = Unavailable("gone")
