"""Adapts the contract to the use cases, and does the orders' turns beside the single payments."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from payflow.contracts.bulk import (
    BulkItemPage,
    BulkOpened,
    BulkPage,
    BulkView,
    CancelBulk,
    CloseBulk,
    GetBulk,
    LinesStored,
    ListBulkItems,
    ListBulks,
    OpenBulk,
    StoreLines,
    TooManyItems,
)
from payflow.contracts.confirm import ConfirmPayment, PaymentView
from payflow.contracts.operation import Answers
from payflow.kernel.errors import UnknownOutcome
from payflow.services.confirm.bulk import usecases
from payflow.services.confirm.bulk.domain import CARE
from payflow.services.confirm.bulk.ports import BulkPorts, ConfirmAll

log = structlog.get_logger(__name__)

_open_orders: Final = Gauge("payflow_bulk_orders_open", "Unfinished bulk orders.", ["state"])
_oldest: Final = Gauge(
    "payflow_oldest_bulk_order_age_seconds", "How long a bulk order in this state has had no step; 0: none.", ["state"]
)
_lines: Final = Counter("payflow_bulk_lines_total", "Lines of bulk orders that were begun, repeats included.")


class BulkDuty:
    """Takes turns for orders that are due, at most `slots` at once: what is left of the process is single payments'."""

    def __init__(self, *, ports: BulkPorts, confirm: ConfirmAll, slots: int, pause_s: float) -> None:
        self._ports = ports
        self._confirm = confirm
        self._slots = slots
        self._pause_s = pause_s
        self._news = asyncio.Event()

    def wake(self) -> None:
        """There is something to do: a hint, for orders are looked for anyway."""
        self._news.set()

    async def run(self) -> None:
        """The background duty."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._slots):
                group.create_task(self._slot())

    async def _slot(self) -> None:
        while True:
            if not await self.take_turn():
                self._news.clear()
                try:
                    async with asyncio.timeout(self._pause_s):
                        await self._news.wait()
                except TimeoutError:
                    pass

    async def take_turn(self) -> bool:
        """Do one chunk; whether there was one."""
        began_at = time.monotonic()
        turn = await usecases.take_turn(ports=self._ports, confirm=self._confirm_all)
        if turn is None:
            return False
        lines = len(turn.chunk.lines) if turn.chunk is not None else 0
        _lines.inc(lines)
        log.info(
            "bulk.turn",
            trace_id=turn.order.traceparent[3:35],
            bulk_id=str(turn.order.bulk_id),
            first_line=turn.chunk.first_line if turn.chunk is not None else None,
            lines=lines,
            seconds=round(time.monotonic() - began_at, 3),
        )
        return True

    async def _confirm_all(self, commands: Sequence[ConfirmPayment]) -> Answers[PaymentView]:
        """As the use case answers; where one payment makes it fail, its neighbours are made without it."""
        try:
            return await self._confirm(commands)
        except Exception as error:
            if len(commands) == 1:
                log.error("bulk.line_failed", idempotency_key=commands[0].idempotency_key, error=repr(error))
                return [UnknownOutcome()]
        middle = len(commands) // 2
        return await self._confirm_all(commands[:middle]) + await self._confirm_all(commands[middle:])

    async def measure(self) -> None:
        """Tell by metrics how many orders are unfinished in each state, and how long the oldest has rested."""
        found = await self._ports.store.open_by_state()
        now = self._ports.clock.now()
        for state in CARE:
            count, since = found.get(state, (0, now))
            _open_orders.labels(state.value).set(count)
            _oldest.labels(state.value).set(max(0.0, (now - since).total_seconds()))


class BulkApi:
    """Implements contracts.bulk.Bulk."""

    def __init__(self, *, ports: BulkPorts, duty: BulkDuty) -> None:
        self._ports = ports
        self._duty = duty

    async def open_bulk(self, commands: list[OpenBulk]) -> Answers[BulkOpened]:
        return await usecases.open_bulks(commands=commands, ports=self._ports)

    async def store_bulk_lines(self, commands: list[StoreLines]) -> Answers[LinesStored]:
        answers = await usecases.store_lines(commands=commands, ports=self._ports)
        if any(isinstance(answer, TooManyItems) for answer in answers):
            self._duty.wake()
        return answers

    async def close_bulk(self, commands: list[CloseBulk]) -> Answers[BulkView]:
        answers = await usecases.close_bulks(commands=commands, ports=self._ports)
        self._duty.wake()
        return answers

    async def get_bulk(self, queries: list[GetBulk]) -> Answers[BulkView]:
        return await usecases.get_bulks(queries=queries, ports=self._ports)

    async def list_bulks(self, queries: list[ListBulks]) -> Answers[BulkPage]:
        return await usecases.list_bulks(queries=queries, ports=self._ports)

    async def list_bulk_items(self, queries: list[ListBulkItems]) -> Answers[BulkItemPage]:
        return await usecases.list_items(queries=queries, ports=self._ports)

    async def cancel_bulk(self, commands: list[CancelBulk]) -> Answers[BulkView]:
        answers = await usecases.cancel_bulks(commands=commands, ports=self._ports)
        self._duty.wake()
        return answers
