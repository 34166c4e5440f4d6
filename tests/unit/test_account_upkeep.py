"""When the ledger is verified by itself, and who does it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from payflow.contracts.account import LedgerVerified
from payflow.kernel.errors import Unavailable
from payflow.platform.service import every, run_forever
from payflow.services.account.api import Upkeep, read_time_of_day
from payflow.services.account.usecases import upkeep
from tests.builders import NOON, FixedClock
from tests.builders_account import World
from tests.fakes import FakeAccountStore

AT = time(2)
DAY = timedelta(days=1)


async def an_account(store: FakeAccountStore) -> None:
    """The ledger's first account, opened at noon."""
    await World(store).account()


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (datetime(2026, 3, 2, 1, 59, 59, tzinfo=UTC), datetime(2026, 3, 1, 2, tzinfo=UTC)),
        (datetime(2026, 3, 2, 2, tzinfo=UTC), datetime(2026, 3, 2, 2, tzinfo=UTC)),
        (datetime(2026, 3, 2, 23, 59, tzinfo=UTC), datetime(2026, 3, 2, 2, tzinfo=UTC)),
    ],
)
def test_the_time_of_day_comes_once_a_day(now: datetime, due: datetime) -> None:
    assert upkeep.last_due_at(now=now, at=AT) == due


async def test_a_ledger_is_verified_once_after_each_set_time() -> None:
    store, clock = FakeAccountStore(), FixedClock()
    await an_account(store)
    counts = []
    for _ in range(9):
        await upkeep.verify_daily(store=store, clock=clock, at=AT)
        counts.append(len(store.verifications))
        clock.move(DAY / 4)

    # 12:00, 18:00, 0:00, 6:00 ...: at 6:00 it is due.
    assert counts == [0, 0, 0, 1, 1, 1, 1, 2, 2]


async def test_a_ledger_that_was_never_verified_waits_for_the_set_time_from_its_first_account_on() -> None:
    store, clock = FakeAccountStore(), FixedClock(NOON + 3 * DAY)
    before = await upkeep.verify_daily(store=store, clock=clock, at=AT)
    await an_account(store)

    found = await upkeep.verify_daily(store=store, clock=clock, at=AT)

    # Whoever is only up by day has no process that sees 2:00 pass.
    assert (before, found) == (None, (NOON + 3 * DAY, 0))


async def test_a_verification_that_was_missed_is_made_at_the_start() -> None:
    store, clock = FakeAccountStore(), FixedClock()
    store.verifications.append((NOON - 2 * DAY, 3))

    found = await upkeep.verify_daily(store=store, clock=clock, at=AT)

    assert found == (NOON, 0)


async def test_what_another_process_found_is_told_by_all() -> None:
    store, clock = FakeAccountStore(), FixedClock()
    store.verifications.append((NOON - timedelta(hours=1), 3))

    assert await upkeep.verify_daily(store=store, clock=clock, at=AT) == (NOON - timedelta(hours=1), 3)
    assert len(store.verifications) == 1


async def test_nobody_verifies_what_another_process_is_verifying() -> None:
    store, clock = FakeAccountStore(), FixedClock(NOON + DAY)
    await an_account(store)
    store.is_being_verified = True

    assert await upkeep.verify_daily(store=store, clock=clock, at=AT) is None
    assert store.verifications == []


class UnverifiableStore(FakeAccountStore):
    """One that lacks a right, say."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.attempts = 0
        self._failure = failure

    async def verify_aside(self) -> LedgerVerified | None:
        self.attempts += 1
        raise self._failure


async def test_how_old_the_last_verification_is_is_told_also_by_a_process_that_never_managed_one() -> None:
    store = UnverifiableStore(Unavailable("The ledger cannot be read."))
    store.verifications.append((NOON - 2 * DAY, 0))

    await Upkeep(store=store, clock=FixedClock(), at=AT).verify_daily()

    assert REGISTRY.get_sample_value("payflow_ledger_verified_at") == (NOON - 2 * DAY).timestamp()


async def test_how_old_a_ledger_is_that_was_never_verified_is_told_where_verifying_fails() -> None:
    store = UnverifiableStore(Unavailable("The ledger cannot be read."))
    await an_account(store)

    await Upkeep(store=store, clock=FixedClock(NOON + 2 * DAY), at=AT).verify_daily()

    assert store.attempts == 1
    assert REGISTRY.get_sample_value("payflow_ledger_began_at") == NOON.timestamp()


class BusyStore(FakeAccountStore):
    """Is too busy for its partitions so many times, and then has three rows outside their months."""

    def __init__(self, *, refusals: int) -> None:
        super().__init__()
        self.refusals = refusals

    async def make_partitions(self) -> int:
        self.refusals -= 1
        if self.refusals >= 0:
            raise Unavailable("The ledger is too busy for a new partition.")
        return 3


async def test_a_ledger_too_busy_for_its_partitions_is_asked_again_soon_and_its_stray_rows_are_told() -> None:
    upkeep_ = Upkeep(store=BusyStore(refusals=2), clock=FixedClock(), at=AT, busy_pause_s=0.01)

    with capture_logs() as lines:
        await asyncio.wait_for(upkeep_.make_partitions(), timeout=5)

    assert [line["event"] for line in lines] == ["ledger.no_partition"] * 2 + ["ledger.stray_rows"]
    assert REGISTRY.get_sample_value("payflow_ledger_stray_rows") == 3


@pytest.mark.parametrize("failure", [Unavailable("The ledger cannot be read."), RuntimeError("a bug")], ids=repr)
async def test_a_verification_that_fails_is_an_error_in_the_log_and_the_next_one_waits_for_its_turn(
    failure: Exception,
) -> None:
    store = UnverifiableStore(failure)
    store.verifications.append((NOON - 2 * DAY, 0))
    repeated = every(60, Upkeep(store=store, clock=FixedClock(), at=AT).verify_daily)

    with capture_logs() as lines:
        duty = asyncio.create_task(run_forever("verify_ledger", repeated))
        await asyncio.sleep(0.5)
        duty.cancel()
        await asyncio.gather(duty, return_exceptions=True)

    assert store.attempts == 1
    assert [(line["log_level"], line["event"], line["error"]) for line in lines if line["log_level"] == "error"] == [
        ("error", "ledger.not_verified", repr(failure))
    ]


@pytest.mark.parametrize("text", ["2:00", "24:00", "29:00", "02:60", "02:00:00", "", "02.00"])
def test_a_time_of_day_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_time_of_day(text)
