"""Who wrote when, kept by one gateway and known to the other, over one real Valkey and over a cluster."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from payflow.platform.valkey import Valkey, connect_valkey
from payflow.services.gateway.freshness import LONG_AGO, LastWrites, NoReplica
from tests.builders import FixedClock
from tests.fakes_gateway import NOWHERE
from tests.support.valkey_cluster import KINDS, running_valkey


@pytest.fixture(scope="module", params=KINDS)
def valkey_url(request: pytest.FixtureRequest) -> Iterator[str]:
    with running_valkey(request.param) as url:
        yield url


@pytest.fixture
async def valkeys(valkey_url: str) -> AsyncIterator[tuple[Valkey, Valkey]]:
    pair = (connect_valkey(valkey_url), connect_valkey(valkey_url))
    yield pair
    for valkey in pair:
        await valkey.aclose()


KEEP_S = 12
# A real Valkey answers: these tests are about what it says, however long a busy machine lets it think.
PATIENT_S = 10.0


def last_writes(valkey: Valkey, clock: FixedClock, generation: str, *, keep_s: float = 10) -> LastWrites:
    return LastWrites(valkey=valkey, generation=generation, clock=clock, keep_s=keep_s, valkey_timeout_s=PATIENT_S)


async def begun(writes: LastWrites, clock: FixedClock) -> None:
    """Let Valkey have had all that was written for as long as it matters."""
    assert await writes.fresh_as_of("customer:nobody") is None
    clock.move(timedelta(seconds=KEEP_S))


async def test_a_change_at_one_gateway_is_known_to_the_other(valkeys: tuple[Valkey, Valkey]) -> None:
    clock, generation = FixedClock(), uuid4().hex
    first, second = (last_writes(valkey, clock, generation) for valkey in valkeys)
    await begun(second, clock)
    now = clock.now()

    await asyncio.gather(*(first.wrote([f"user:{number}", f"customer:{number}"]) for number in range(200)))

    told = [await second.fresh_as_of(f"customer:{number}") for number in (0, 199)]
    assert all(instant is not None and timedelta(0) < instant - now < timedelta(seconds=1) for instant in told)
    assert await second.fresh_as_of("customer:nobody") == LONG_AGO


async def test_a_valkey_that_has_lost_its_memory_is_not_believed_until_that_cannot_matter_any_more(
    valkeys: tuple[Valkey, Valkey],
) -> None:
    clock = FixedClock()
    writes = last_writes(valkeys[0], clock, uuid4().hex)
    await begun(writes, clock)
    assert await writes.fresh_as_of("user:ada") == LONG_AGO
    await writes.wrote(["user:ada"])

    await valkeys[1].flushall()
    flushed = [await writes.fresh_as_of("user:ada") for _ in range(2)]
    clock.move(timedelta(seconds=KEEP_S))

    assert flushed == [None, None]
    assert await writes.fresh_as_of("user:ada") == LONG_AGO


async def test_a_change_that_could_not_be_kept_sends_everybody_to_the_primary_for_as_long_as_it_matters(
    valkeys: tuple[Valkey, Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, generation = FixedClock(), uuid4().hex
    first, second = (last_writes(valkey, clock, generation) for valkey in valkeys)
    await begun(first, clock)
    with monkeypatch.context() as patched:
        patched.setattr(first, "_valkey", connect_valkey(NOWHERE))
        await first.wrote(["user:ada"])
    first._breaker.succeeded()

    assert await first.fresh_as_of("user:bob") is None
    assert await second.fresh_as_of("user:ada") is None
    clock.move(timedelta(seconds=KEEP_S))
    assert await second.fresh_as_of("user:ada") == LONG_AGO


async def test_a_change_is_forgotten_when_no_replica_may_lack_it_any_more(valkeys: tuple[Valkey, Valkey]) -> None:
    clock = FixedClock()
    writes = last_writes(valkeys[0], clock, uuid4().hex, keep_s=-0.5)
    await begun(writes, clock)

    await writes.wrote(["user:ada"])
    at_once = await writes.fresh_as_of("user:ada")
    await asyncio.sleep(1.6)

    assert at_once != LONG_AGO
    assert await writes.fresh_as_of("user:ada") == LONG_AGO


async def test_without_valkey_lists_come_from_the_primary_and_nobody_is_held_up() -> None:
    writes = LastWrites(valkey=connect_valkey(NOWHERE), generation="x", clock=FixedClock(), keep_s=10)

    await writes.wrote(["user:ada"])

    assert await writes.fresh_as_of("user:ada") is None


async def test_a_valkey_that_says_nothing_holds_up_the_first_few_only() -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), "127.0.0.1", 0)
    valkey = connect_valkey(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}")
    writes = LastWrites(valkey=valkey, generation="x", clock=FixedClock(), keep_s=10)
    began_at = time.monotonic()

    for _ in range(40):
        await writes.wrote(["user:ada"])
        assert await writes.fresh_as_of("user:ada") is None

    assert time.monotonic() - began_at < 5
    silent.close()


async def test_without_a_replica_nothing_may_be_old() -> None:
    await NoReplica().wrote(["user:ada"])

    assert await NoReplica().fresh_as_of("user:ada") is None
