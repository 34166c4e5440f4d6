"""One batch at a time, and what is asked for meanwhile in the next."""

from __future__ import annotations

import asyncio

import pytest

from payflow.platform.turns import Turns


class Work:
    """Answers each item with its double, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [item * 2 for item in items]


async def test_what_is_asked_for_meanwhile_goes_together_in_the_next_batch() -> None:
    work = Work()
    turns = Turns(work, batch_max=100)
    first = asyncio.create_task(turns.do([1]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(turns.do([2, 3])), asyncio.create_task(turns.do([4]))]
    await asyncio.sleep(0)

    work.gate.set()

    assert [await first, *await asyncio.gather(*others)] == [[2], [4, 6], [8]]
    assert work.batches == [[1], [2, 3, 4]]


async def test_no_batch_is_larger_than_the_largest_unless_one_list_is() -> None:
    work = Work()
    work.gate.set()
    turns = Turns(work, batch_max=3)

    answers = await asyncio.gather(turns.do([1, 2]), turns.do([3, 4]), turns.do([5, 6, 7, 8]))

    assert answers == [[2, 4], [6, 8], [10, 12, 14, 16]]
    assert work.batches == [[1, 2], [3, 4], [5, 6, 7, 8]]


async def test_a_failure_reaches_all_of_its_batch_and_the_next_batch_goes_on() -> None:
    work = Work()
    work.gate.set()
    work.failure = ValueError("broken")
    turns = Turns(work, batch_max=100)

    outcomes = await asyncio.gather(turns.do([1]), turns.do([2]), return_exceptions=True)
    work.failure = None

    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]
    assert await turns.do([3]) == [6]


async def test_one_who_gives_up_does_not_disturb_the_others() -> None:
    work = Work()
    turns = Turns(work, batch_max=100)
    impatient, patient = asyncio.create_task(turns.do([1])), asyncio.create_task(turns.do([2]))
    await asyncio.sleep(0)

    impatient.cancel()
    work.gate.set()

    assert await patient == [4]
    with pytest.raises(asyncio.CancelledError):
        await impatient
