"""Adapts the contract of returns to the use cases, and measures how they stand."""

from __future__ import annotations

from typing import Final

import structlog
from prometheus_client import Gauge

from payflow.contracts.operation import Answers
from payflow.contracts.returns import (
    DecideReturn,
    GetReturn,
    ListReturns,
    RequestReturn,
    ReturnPage,
    ReturnView,
)
from payflow.services.confirm.domain import RETURN_CARE
from payflow.services.confirm.ports import ReturnPorts
from payflow.services.confirm.usecases import returns

log = structlog.get_logger(__name__)

_open_returns: Final = Gauge("payflow_returns_open", "Unfinished returns.", ["state"])
_oldest: Final = Gauge(
    "payflow_oldest_return_age_seconds", "How long the oldest unfinished return is in this state; 0: none.", ["state"]
)


async def measure_open_returns(*, ports: ReturnPorts) -> None:
    """Tell by metrics how many returns are unfinished in each state, and for how long the oldest is."""
    found = await ports.returns.open_by_state()
    now = ports.clock.now()
    for state in RETURN_CARE:
        count, since = found.get(state, (0, now))
        _open_returns.labels(state.value).set(count)
        _oldest.labels(state.value).set(max(0.0, (now - since).total_seconds()))


class ReturnsApi:
    """Implements contracts.returns.Returns."""

    def __init__(self, *, ports: ReturnPorts) -> None:
        self._ports = ports

    async def request_return(self, commands: list[RequestReturn]) -> Answers[ReturnView]:
        return _logged(await returns.request_returns(commands=commands, ports=self._ports))

    async def decide_return(self, commands: list[DecideReturn]) -> Answers[ReturnView]:
        return _logged(await returns.decide_returns(commands=commands, ports=self._ports))

    async def get_returns(self, queries: list[GetReturn]) -> Answers[ReturnView]:
        return await returns.get_returns(queries=queries, store=self._ports.returns)

    async def list_returns(self, queries: list[ListReturns]) -> Answers[ReturnPage]:
        return await returns.list_returns(queries=queries, store=self._ports.returns)


def _logged(answers: Answers[ReturnView]) -> Answers[ReturnView]:
    """One line per answer: ids and outcome, nothing personal."""
    for answer in answers:
        if isinstance(answer, ReturnView):
            log.info(
                "return.answered",
                return_id=str(answer.return_id),
                payment_id=str(answer.payment_id),
                state=answer.state.value,
                error_code=answer.error_code,
            )
        else:
            log.info("return.not_taken", error_code=answer.code)
    return answers
