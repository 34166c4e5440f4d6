"""The processes' clock is the database's, between its answers carried on by a clock that nobody sets."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from payflow.kernel.errors import Unavailable
from payflow.platform import clock as module
from payflow.platform.clock import SharedClock

HOUR = timedelta(hours=1)
SOON = timedelta(seconds=5)


async def an_hour_behind() -> datetime:
    return datetime.now(UTC) - HOUR


async def test_until_the_database_has_answered_it_is_the_machines_time() -> None:
    assert abs(SharedClock().now() - datetime.now(UTC)) < SOON


async def test_the_databases_time_counts_and_goes_on_between_its_answers() -> None:
    clock = SharedClock()
    await clock.ask(an_hour_behind)

    first = clock.now()
    await asyncio.sleep(0.05)
    second = clock.now()

    assert abs(first + HOUR - datetime.now(UTC)) < SOON
    assert timedelta(seconds=0.04) < second - first < SOON


async def test_a_slow_answer_changes_nothing_once_there_was_a_quick_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SharedClock()
    await clock.ask(an_hour_behind)
    monkeypatch.setattr(module, "SLOW_ANSWER_S", -1.0)

    async def a_day_behind() -> datetime:
        return datetime.now(UTC) - 24 * HOUR

    await clock.ask(a_day_behind)

    assert abs(clock.now() + HOUR - datetime.now(UTC)) < SOON


async def test_a_database_that_is_away_leaves_the_time_going_on() -> None:
    clock = SharedClock()
    await clock.ask(an_hour_behind)

    async def away() -> datetime:
        raise Unavailable("away")

    following = asyncio.create_task(clock.follow(away))
    await asyncio.sleep(0.02)
    following.cancel()

    assert abs(clock.now() + HOUR - datetime.now(UTC)) < SOON
