"""The lines that are written all the time: one per call between services, one per reading of events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from uuid import UUID

import msgspec

from payflow.contracts.operation import OperationSpec
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.context import current_traceparent
from payflow.platform.telemetry import Line, ecs_name, is_told, write_line


class CallLine(Line, kw_only=True, omit_defaults=True, rename=ecs_name):
    """`call.answered` by the callee, `call.made` by a gateway: a batch, and the payments in it."""

    operation: str
    items: int
    duration_ns: int
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    payment_ids: list[UUID] = msgspec.field(default_factory=list)


class EventsLine(Line, kw_only=True, omit_defaults=True, rename=ecs_name):
    """`events.handled`: what a consumer read together, once that is committed, and the payments it told of."""

    consumer: str
    events: int
    payment_ids: list[str] = msgspec.field(default_factory=list)


class CallLines:
    """Writes the lines of one operation's calls."""

    def __init__(self, spec: OperationSpec, message: str) -> None:
        self._message = message
        self._operation = f"{spec.service}.{spec.name}"
        self._payment_id: Final = payment_id_of(spec)

    def write(self, items: Sequence[Any], answers: Sequence[Any], *, seconds: float) -> None:
        """A call was answered."""
        if not is_told():
            return
        failures: dict[str, int] = {}
        for answer in answers:
            if isinstance(answer, PayflowError):
                failures[answer.code] = failures.get(answer.code, 0) + 1
        find = self._payment_id
        ids = [] if find is None else [find(item, answer) for item, answer in zip(items, answers, strict=True)]
        write_line(
            CallLine(
                message=self._message,
                trace_id=current_traceparent.get()[3:35],
                operation=self._operation,
                items=len(items),
                duration_ns=int(seconds * 1e9),
                failures=failures,
                payment_ids=[id for id in ids if id is not None],
            )
        )


def write_events_line(consumer: str, events: Sequence[Event]) -> None:
    """A consumer has handled these events."""
    if is_told():
        ids = (event.data.get("payment_id") for event in events)
        write_line(
            EventsLine(
                message="events.handled",
                trace_id=events[0].traceparent[3:35],
                consumer=consumer,
                events=len(events),
                payment_ids=[str(id) for id in ids if id is not None],
            )
        )


def payment_id_of(spec: OperationSpec) -> Callable[[Any, Any], UUID | None] | None:
    """How to find the payment that an item and its answer are about; None where the operation is not about payments."""
    item, answer = (getattr(kind, "__struct_fields__", ()) for kind in (spec.item, spec.answer))
    if "payment_id" in item:
        return lambda one, _: one.payment_id
    if "payment" in item:
        return lambda one, _: getattr(one.payment, "payment_id", None)
    if "payment_id" in answer:
        return lambda _, told: getattr(told, "payment_id", None)
    return None
