"""What a call's span says of the answers in it: what the contract allows to be told (`tells`), and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Final
from uuid import UUID

from payflow.contracts.operation import OperationSpec
from payflow.kernel.errors import Overloaded, PayflowError
from payflow.platform.ids import new_span_id
from payflow.platform.lines import payment_id_of
from payflow.platform.tracing.span import EVENTS_MAX, Kind, Span, Value
from payflow.platform.tracing.tracer import Tracer

# These say that nobody knows what became of the work, or that it could not be done: always recorded. A refusal is no
# error, and a full queue says so thousands of times a second.
_ERRORS: Final = frozenset({"unavailable", "unknown_outcome", "bug"})
_IDS_PER_EVENT: Final = 8
SAMPLED: Final = "1"


class Teller:
    """Tells the answers of one operation."""

    def __init__(self, spec: OperationSpec) -> None:
        self._fields = [(name, f"payflow.{spec.service}.{name}") for name in spec.options.tells]
        # Ids would make every answer a kind of its own.
        self._kinds_fields = [name for name in spec.options.tells if name[-3:] != "_id"]
        self._keeps = spec.options.keeps
        self._payment_id = payment_id_of(spec)
        self._has_traces = "traceparent" in getattr(spec.item, "__struct_fields__", ())

    def why_kept(self, answer: Any) -> str:
        """Why the trace of this answer is recorded whatever the sampler said; empty where it is not."""
        if isinstance(answer, PayflowError):
            return "error" if answer.family in _ERRORS and answer.code != Overloaded.code else ""
        if self._keeps:
            for name, values in self._keeps.items():
                if getattr(answer, name) in values:
                    return "review"
        return ""

    def keep(self, tracer: Tracer, span: Span, answers: Sequence[Any]) -> dict[int, str]:
        """Keep the span where one of the answers asks for it; which ones, and why."""
        kept = {index: why for index, answer in enumerate(answers) if (why := self.why_kept(answer))}
        if kept:
            first, why = next(iter(kept.items()))
            tracer.keep(span, why)
            if isinstance(answers[first], PayflowError):
                span.fail(answers[first].code)
        return kept

    def tell(self, tracer: Tracer, span: Span, items: Sequence[Any], answers: Sequence[Any]) -> None:
        """Tell one call's answers on the span of whoever gave them."""
        kept = self.keep(tracer, span, answers)
        if self._has_traces and len(items) > 1:
            self._tell_each(tracer, span, items, answers, kept)
        if not span.is_recorded:
            return
        if len(answers) == 1:
            span.attributes.update(self._attributes(items[0], answers[0]))
        else:
            self._tell_groups(span, items, answers)

    def _tell_each(
        self, tracer: Tracer, batch: Span, items: Sequence[Any], answers: Sequence[Any], kept: Mapping[int, str]
    ) -> None:
        """A payment that is recorded gets a span of its own, in its own trace, that points to the batch it was in."""
        for index, item in enumerate(items):
            traceparent = item.traceparent
            if traceparent[-1:] == SAMPLED or (traceparent and index in kept):
                span = joined(batch, traceparent=traceparent, kind=Kind.INTERNAL)
                span.attributes.update(self._attributes(item, answers[index]))
                if index in kept:
                    tracer.keep(span, kept[index])
                tracer.finish(span)

    def _tell_groups(self, span: Span, items: Sequence[Any], answers: Sequence[Any]) -> None:
        """Each different outcome once, with how many had it, and which payments where they are few."""
        groups: dict[Any, list[int]] = {}
        for index, answer in enumerate(answers):
            groups.setdefault(self._kind_of(answer), []).append(index)
        for members in sorted(groups.values(), key=len)[:EVENTS_MAX]:
            told = {name: value for name, value in self._told(answers[members[0]]) if name[-3:] != "_id"}
            attributes: dict[str, Value] = {**told, "payflow.items": len(members)}
            if self._payment_id is not None and len(members) <= _IDS_PER_EVENT:
                ids = [self._payment_id(items[index], answers[index]) for index in members]
                attributes["payflow.payment_ids"] = [str(id) for id in ids if id is not None]
            span.tell("answers", attributes)

    def _kind_of(self, answer: Any) -> Any:
        """What answers have in common of which the same is told. Asked of every answer: nothing is in words yet."""
        if isinstance(answer, PayflowError):
            return answer.code
        values = [getattr(answer, name) for name in self._kinds_fields]
        return tuple([tuple(value) if type(value) is list else value for value in values])

    def _attributes(self, item: Any, answer: Any) -> dict[str, Value]:
        attributes: dict[str, Value] = dict(self._told(answer))
        if self._payment_id is not None:
            payment_id = self._payment_id(item, answer)
            if payment_id is not None:
                attributes["payflow.payment_id"] = str(payment_id)
        return attributes

    def _told(self, answer: Any) -> list[tuple[str, Any]]:
        if isinstance(answer, PayflowError):
            return [("payflow.refused_with", answer.code)]
        found = ((name, _plain(getattr(answer, field))) for field, name in self._fields)
        return [(name, value) for name, value in found if value is not None]


def joined(batch: Span, *, traceparent: str, kind: Kind) -> Span:
    """A span in the trace of `traceparent` for work that was done together with others' in `batch`: as long, linked."""
    own = f"{traceparent[:36]}{new_span_id()}{traceparent[52:]}"
    span = Span(batch.name, kind=kind, traceparent=own, parent_id=traceparent[36:52], started_ns=batch.started_ns)
    span.set("payflow.joined", True)
    span.link(trace_id=batch.trace_id, span_id=batch.span_id)
    return span


def _plain(value: Any) -> Any:
    """As a span's attribute, and hashable."""
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list):
        return tuple(str(one) for one in value)
    return str(value) if isinstance(value, UUID) else value
