"""How asks become calls: at once when idle, together when busy, in order, bounded, and each with its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.contracts.account import Account, AccountList, ListAccounts
from payflow.kernel.errors import DeadlineExceeded, Overloaded, Rejection, Unavailable, UnknownOutcome
from payflow.platform.rpc.client import client_for
from payflow.platform.rpc.coalescer import Coalescer


class Peer:
    """Answers each item with itself in a string, when it is told to."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.calls: list[list[int]] = []
        self.deadlines: list[float] = []
        self.failure: BaseException | None = None
        self._open = asyncio.Event()
        if is_open:
            self._open.set()

    async def send(self, items: list[int], deadline: float) -> list[str]:
        self.calls.append(items)
        self.deadlines.append(deadline)
        await self._open.wait()
        if self.failure is not None:
            raise self.failure
        return [str(item) for item in items]

    def answer(self) -> None:
        """Let every waiting call, and every later one, have its answer."""
        self._open.set()


def a_coalescer(
    peer: Peer, *, calls_in_flight: int = 1, batch_max: int = 100, queue_max: int = 1000
) -> Coalescer[int, str]:
    return Coalescer(peer.send, calls_in_flight=calls_in_flight, batch_max=batch_max, queue_max=queue_max)


def soon(seconds: float = 5.0) -> float:
    return asyncio.get_running_loop().time() + seconds


def start(coroutine: Coroutine[Any, Any, list[str]]) -> asyncio.Task[list[str]]:
    return asyncio.create_task(coroutine)


async def a_turn() -> None:
    """Let everything run that is ready to."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_first_ask_goes_at_once_and_alone() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer)

    asked = start(coalescer.ask([1], deadline=soon()))
    await a_turn()

    assert peer.calls == [[1]]
    peer.answer()
    assert await asked == ["1"]


async def test_asks_of_the_same_moment_share_the_first_call() -> None:
    peer = Peer()
    coalescer = a_coalescer(peer)

    answers = await asyncio.gather(*(coalescer.ask([n], deadline=soon()) for n in range(4)))

    assert peer.calls == [[0, 1, 2, 3]]
    assert answers == [["0"], ["1"], ["2"], ["3"]]


async def test_what_arrives_while_a_call_is_under_way_goes_together_in_the_next() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer)

    asks = [start(coalescer.ask([1], deadline=soon()))]
    await a_turn()
    for items in ([2], [3, 4], [5]):
        asks.append(start(coalescer.ask(items, deadline=soon())))
        await a_turn()
    waiting = coalescer.waiting
    peer.answer()
    answers = await asyncio.gather(*asks)

    assert waiting == 4
    assert peer.calls == [[1], [2, 3, 4, 5]]
    assert answers == [["1"], ["2"], ["3", "4"], ["5"]]
    assert coalescer.waiting == 0


async def test_one_who_asks_again_as_soon_as_he_is_answered_is_not_waited_for_a_second_time() -> None:
    doors = [asyncio.Event() for _ in range(4)]
    sent: list[int] = []

    async def send(items: list[int], deadline: float) -> list[str]:
        sent.extend(items)
        await doors[items[0]].wait()
        return [str(item) for item in items]

    coalescer = Coalescer(send, calls_in_flight=2, batch_max=100, queue_max=1000)

    async def ask_again_and_again() -> None:
        for number in range(4):
            await coalescer.ask([number], deadline=soon())

    asking = asyncio.create_task(ask_again_and_again())
    for number, door in enumerate(doors):
        await a_turn()
        assert sent == list(range(number + 1))
        await asyncio.sleep(0.02)
        door.set()
    await asking


async def test_one_slow_call_does_not_hold_up_the_next_where_two_may_be_under_way() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer, calls_in_flight=2)

    asks = []
    for n in range(3):
        asks.append(start(coalescer.ask([n], deadline=soon())))
        await a_turn()

    assert peer.calls == [[0], [1]]
    peer.answer()
    await asyncio.gather(*asks)
    assert peer.calls == [[0], [1], [2]]


async def test_no_call_is_larger_than_the_largest_batch_and_no_ask_is_torn_apart() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer, batch_max=4)

    asks = [start(coalescer.ask([0], deadline=soon()))]
    await a_turn()
    asks += [start(coalescer.ask([n, n, n], deadline=soon())) for n in (1, 2, 3)]
    await a_turn()
    peer.answer()
    await asyncio.gather(*asks)

    assert peer.calls == [[0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]


async def test_an_ask_larger_than_a_call_is_refused_as_a_bug() -> None:
    coalescer = a_coalescer(Peer(), batch_max=4)

    with pytest.raises(ValueError, match="5 items, but a call carries 4"):
        await coalescer.ask([1] * 5, deadline=soon())


async def test_no_items_need_no_call() -> None:
    peer = Peer()

    assert await a_coalescer(peer).ask([], deadline=soon()) == []
    assert peer.calls == []


async def test_a_full_queue_refuses_at_once() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer, queue_max=2)
    asks = [start(coalescer.ask([0], deadline=soon()))]
    await a_turn()
    asks.append(start(coalescer.ask([1, 2], deadline=soon())))
    await a_turn()

    began = asyncio.get_running_loop().time()
    with pytest.raises(Overloaded):
        await coalescer.ask([3], deadline=soon())

    assert asyncio.get_running_loop().time() - began < 0.05
    peer.answer()
    assert await asyncio.gather(*asks) == [["0"], ["1", "2"]]


async def test_who_gave_up_before_the_call_is_not_sent_and_knows_that_nothing_happened() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer)
    first = start(coalescer.ask([0], deadline=soon()))
    await a_turn()

    with pytest.raises(DeadlineExceeded):
        await coalescer.ask([1], deadline=soon(0.02))
    waiting = coalescer.waiting
    peer.answer()
    await first
    await a_turn()

    assert waiting == 0
    assert peer.calls == [[0]]


async def test_who_was_cancelled_before_the_call_is_not_sent_and_keeps_nobody_out() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer, queue_max=1)
    first = start(coalescer.ask([0], deadline=soon()))
    await a_turn()
    cancelled = start(coalescer.ask([1], deadline=soon()))
    await a_turn()

    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    second = start(coalescer.ask([2], deadline=soon()))
    peer.answer()

    assert await asyncio.gather(first, second) == [["0"], ["2"]]
    assert peer.calls == [[0], [2]]


async def test_a_deadline_that_passes_after_the_call_was_sent_leaves_the_outcome_unknown() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer)

    with pytest.raises(UnknownOutcome):
        await coalescer.ask([1], deadline=soon(0.02))

    assert peer.calls == [[1]]


async def test_one_who_gives_up_in_mid_call_does_not_disturb_the_neighbours() -> None:
    peer = Peer(is_open=False)
    coalescer = a_coalescer(peer)
    patient, impatient = start(coalescer.ask([1], deadline=soon())), start(coalescer.ask([2], deadline=soon()))
    await a_turn()

    impatient.cancel()
    await a_turn()
    peer.answer()

    assert await patient == ["1"]
    assert peer.calls == [[1, 2]]


async def test_a_call_lasts_as_long_as_its_most_patient_asker() -> None:
    peer = Peer()
    coalescer = a_coalescer(peer)
    late = soon(9.0)

    await asyncio.gather(coalescer.ask([1], deadline=soon(1.0)), coalescer.ask([2], deadline=late))

    assert peer.deadlines == [late]


@pytest.mark.parametrize("failure", [Unavailable("down"), UnknownOutcome("silent"), RuntimeError("a bug")])
async def test_a_failed_call_reaches_every_asker_and_the_next_call_goes_on(failure: Exception) -> None:
    peer = Peer()
    peer.failure = failure
    coalescer = a_coalescer(peer)

    answers = await asyncio.gather(*(coalescer.ask([n], deadline=soon()) for n in range(3)), return_exceptions=True)
    peer.failure = None

    assert answers == [failure] * 3
    assert await coalescer.ask([7], deadline=soon()) == ["7"]


async def test_a_call_goes_out_in_the_context_of_one_of_its_own_askers() -> None:
    trace: ContextVar[str] = ContextVar("trace", default="none")
    seen: list[tuple[list[int], str]] = []
    gate = asyncio.Event()

    async def send(items: list[int], deadline: float) -> list[str]:
        seen.append((items, trace.get()))
        await gate.wait()
        return [str(item) for item in items]

    coalescer: Coalescer[int, str] = Coalescer(send, calls_in_flight=1, batch_max=10, queue_max=10)

    async def ask(item: int) -> list[str]:
        trace.set(f"trace-{item}")
        return await coalescer.ask([item], deadline=soon())

    asks = []
    for item in (1, 2):
        asks.append(start(ask(item)))
        await a_turn()
    gate.set()
    await asyncio.gather(*asks)

    assert seen == [([1], "trace-1"), ([2], "trace-2")]


@given(
    sizes=st.lists(st.integers(0, 7), max_size=12),
    batch_max=st.integers(7, 20),
    calls_in_flight=st.integers(1, 3),
)
def test_every_ask_gets_its_own_answers_in_order_however_calls_are_cut(
    sizes: list[int], batch_max: int, calls_in_flight: int
) -> None:
    async def run() -> None:
        peer = Peer()
        coalescer = a_coalescer(peer, batch_max=batch_max, calls_in_flight=calls_in_flight)
        numbers = iter(range(1000))
        asks = [[next(numbers) for _ in range(size)] for size in sizes]

        answers = await asyncio.gather(*(coalescer.ask(items, deadline=soon()) for items in asks))

        assert answers == [[str(item) for item in items] for items in asks]
        assert all(0 < len(call) <= batch_max for call in peer.calls)
        assert [item for call in peer.calls for item in call] == [item for items in asks for item in items]
        assert coalescer.waiting == 0

    asyncio.run(run())


def an_account_client(outcomes: list[Exception | None], *, queue_max: int = 10_000) -> Account:
    """A client whose calls end as told, one after another."""

    async def send(items: list[ListAccounts], deadline: float) -> list[Any]:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return [AccountList(accounts=[]) for _ in items]

    return client_for(Account, send_of=lambda codec: send, queue_max=queue_max)


async def test_of_more_items_than_a_call_carries_only_those_of_the_failed_call_fail() -> None:
    queries = [ListAccounts(customer_id=str(n)) for n in range(1200)]
    client = an_account_client([None, Unavailable("down"), None])

    answers = await client.list_accounts(queries)

    assert [type(answer) for answer in answers] == [AccountList] * 500 + [Unavailable] * 500 + [AccountList] * 200


async def test_of_more_items_than_may_wait_those_that_fit_are_answered() -> None:
    queries = [ListAccounts(customer_id=str(n)) for n in range(1500)]
    client = an_account_client([None, None], queue_max=1000)

    answers = await client.list_accounts(queries)

    assert [type(answer) for answer in answers] == [AccountList] * 1000 + [Overloaded] * 500


async def test_an_error_of_the_families_is_every_items_answer_and_a_bug_is_raised() -> None:
    refused = an_account_client([Rejection("no")])
    broken = an_account_client([ZeroDivisionError("a bug")])

    assert await refused.list_accounts([ListAccounts(customer_id="a")] * 2) == [Rejection("no")] * 2
    with pytest.raises(ZeroDivisionError):
        await broken.list_accounts([ListAccounts(customer_id="a")])
