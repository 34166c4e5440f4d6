"""Traces over real calls between services and a real event log: who is whose parent, and who is linked to whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextvars import copy_context
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Protocol
from uuid import UUID

import msgspec
import pytest
from prometheus_client import REGISTRY
from prometheus_client.openmetrics import exposition as openmetrics

from payflow.contracts.operation import Answers, operation, operations_of
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError, Rejection, Unavailable
from payflow.platform.context import current_span, current_traceparent
from payflow.platform.postgres import Connection
from payflow.platform.process import make_app
from payflow.platform.rpc import RpcClients
from payflow.platform.rpc.identity import Signer
from payflow.platform.service import Runtime, Service
from payflow.platform.tracing import Kind, Span, installed, step
from payflow.platform.tracing.answers import Teller
from tests.builders import new_id
from tests.builders_event_log import ConnectAs, Log, empty_log
from tests.builders_rpc import make_keys
from tests.builders_tracing import Traces, begin_root, traced, traceparent
from tests.fakes_audit import an_event
from tests.support.serving import serving


class Level(StrEnum):
    LOW = "LOW"
    HIGH = "HIGH"


class Pay(msgspec.Struct, frozen=True, kw_only=True):
    payment_id: UUID
    name: str
    traceparent: str = ""


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    level: Level
    rules_hit: list[str]
    creditor_name: str
    review_id: UUID | None = None


class Judge(Protocol):
    """Called `risk`, so that the settings know where it is."""

    service: ClassVar[str] = "risk"

    @operation(
        callers={"confirm"},
        calls_in_flight=1,
        tells=("level", "rules_hit", "review_id"),
        keeps={"level": frozenset({Level.HIGH})},
    )
    async def judge(self, items: list[Pay]) -> Answers[Judged]: ...


class Judges:
    """Names decide: `bad` is HIGH, `gone` is Unavailable, `no` is refused, `bug` is one, all others are LOW."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[list[str]] = []

    async def judge(self, items: list[Pay]) -> Answers[Judged]:
        self.batches.append([item.name for item in items])
        await self.gate.wait()
        with step("look"):
            return [self._judged(item) for item in items]

    @staticmethod
    def _judged(item: Pay) -> Judged | PayflowError:
        if item.name == "gone":
            return Unavailable("nobody knows")
        if item.name == "no":
            return Rejection("no")
        if item.name == "bug":
            raise ZeroDivisionError
        level = Level.HIGH if item.name == "bad" else Level.LOW
        return Judged(level=level, rules_hit=["NAME"] * (level is Level.HIGH), creditor_name=f"Mrs. {item.name}")


@pytest.fixture(scope="module")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def judges() -> Judges:
    return Judges()


@pytest.fixture
async def client(judges: Judges, keys_dir: Path) -> AsyncIterator[Judge]:
    runtime = Runtime(service="risk", instance="risk", environ={"PAYFLOW_SERVICE_KEYS_DIR": str(keys_dir)})
    app = make_app(runtime=runtime, service=Service(implementations=[(Judge, judges)]))
    clients = RpcClients(signer=Signer.load(service="confirm", directory=keys_dir), queue_max=1000)
    async with serving(app) as url:
        yield clients.connect(Judge, url)
        await clients.close()


def a_pay(name: str = "good", *, trace: str = "") -> Pay:
    return Pay(payment_id=new_id(), name=name, traceparent=trace)


async def asked(client: Judge, item: Pay, *, is_sampled: bool) -> tuple[Span, list[Judged | PayflowError]]:
    """Ask in a request of its own; the request's span, and the answers."""

    async def request() -> tuple[Span, list[Judged | PayflowError]]:
        root = begin_root(is_sampled=is_sampled)
        item_of_it = msgspec.structs.replace(item, traceparent=root.traceparent)
        return root, await client.judge([item_of_it])

    return await asyncio.create_task(request(), context=copy_context())


async def batch_of(
    client: Judge, judges: Judges, *items: tuple[str, bool]
) -> list[tuple[Span, list[Judged | PayflowError]]]:
    """Payments (name, sampled) that travel in one call: the first one alone holds the link until all are there."""
    judges.gate.clear()
    first = asyncio.create_task(asked(client, a_pay(), is_sampled=False))
    async with asyncio.timeout(3):
        while not judges.batches:  # noqa: ASYNC110 - the condition is a fact about a server, not an event
            await asyncio.sleep(0.005)
    others = [asyncio.create_task(asked(client, a_pay(name), is_sampled=sampled)) for name, sampled in items]
    await asyncio.sleep(0.02)
    judges.gate.set()
    await first
    return [await other for other in others]


def the(traces: Traces, name: str, kind: Kind) -> Span:
    (span,) = traces.named(name, kind)
    return span


# --- one payment in a call --------------------------------------------------------------------------------------


async def test_a_call_has_a_span_at_each_end_one_below_the_other(client: Judge) -> None:
    with traced() as traces:
        root, _ = await asked(client, a_pay(), is_sampled=True)

    at_caller, at_callee = the(traces, "risk/judge", Kind.CLIENT), the(traces, "risk/judge", Kind.SERVER)
    look = the(traces, "look", Kind.INTERNAL)
    assert {span.trace_id for span in traces.spans} == {root.trace_id}
    assert (at_caller.parent_id, at_callee.parent_id, look.parent_id) == (
        root.span_id,
        at_caller.span_id,
        at_callee.span_id,
    )
    assert at_caller.started_ns <= at_callee.started_ns <= at_callee.ended_ns <= at_caller.ended_ns


async def test_the_decision_is_told_and_nothing_that_the_contract_does_not_allow(client: Judge) -> None:
    item = a_pay("bad")
    with traced() as traces:
        await asked(client, item, is_sampled=True)

    told = the(traces, "risk/judge", Kind.SERVER).attributes
    assert told["payflow.risk.level"] == "HIGH"
    assert told["payflow.risk.rules_hit"] == ("NAME",)
    assert told["payflow.payment_id"] == str(item.payment_id)
    assert "payflow.risk.review_id" not in told
    assert "Mrs." not in repr([(span.attributes, span.events) for span in traces.spans])


async def test_how_long_a_recorded_call_took_leads_to_its_trace(client: Judge) -> None:
    with traced():
        root, _ = await asked(client, a_pay(), is_sampled=True)
        unsampled, _ = await asked(client, a_pay(), is_sampled=False)

    told = openmetrics.generate_latest(REGISTRY).decode()
    with_exemplar = {line.split("{")[0] for line in told.splitlines() if f'trace_id="{root.trace_id}"' in line}
    assert with_exemplar == {"payflow_rpc_client_seconds_bucket", "payflow_rpc_seconds_bucket"}
    assert unsampled.trace_id not in told


async def test_a_refusal_is_told_by_its_code_and_is_no_error(client: Judge) -> None:
    with traced() as traces:
        await asked(client, a_pay("no"), is_sampled=True)

    span = the(traces, "risk/judge", Kind.SERVER)
    assert (span.attributes["payflow.refused_with"], span.error) == (Rejection.code, "")


async def test_an_unsampled_call_that_went_well_leaves_nothing(client: Judge) -> None:
    with traced() as traces:
        await asked(client, a_pay(), is_sampled=False)
        await asked(client, a_pay("no"), is_sampled=False)

    assert traces.spans == []


@pytest.mark.parametrize(("name", "why", "error"), [("bad", "review", ""), ("gone", "error", "SERVICE_UNAVAILABLE")])
async def test_an_unsampled_call_with_an_error_or_a_review_is_recorded_at_both_ends(
    client: Judge, name: str, why: str, error: str
) -> None:
    with traced() as traces:
        root, _ = await asked(client, a_pay(name), is_sampled=False)

    at_caller, at_callee = the(traces, "risk/judge", Kind.CLIENT), the(traces, "risk/judge", Kind.SERVER)
    assert {span.trace_id for span in traces.spans} == {root.trace_id}
    assert (at_caller.parent_id, at_callee.parent_id) == (root.span_id, at_caller.span_id)
    assert at_caller.attributes["payflow.kept_because"] == at_callee.attributes["payflow.kept_because"] == why
    assert at_callee.error == at_caller.error == error
    assert the(traces, "look", Kind.INTERNAL).parent_id == at_callee.span_id


async def test_a_bug_is_recorded_at_both_ends(client: Judge) -> None:
    with traced() as traces:
        await asked(client, a_pay("bug"), is_sampled=False)

    assert the(traces, "risk/judge", Kind.SERVER).error == "ZeroDivisionError"
    assert the(traces, "risk/judge", Kind.CLIENT).error == "UNKNOWN_OUTCOME"


async def test_switched_off_nothing_is_recorded_and_the_trace_id_travels_all_the_same(client: Judge) -> None:
    root, answers = await asked(client, a_pay("bad"), is_sampled=True)

    assert isinstance(answers[0], Judged)
    assert root.ended_ns == 0


# --- several payments in a call ---------------------------------------------------------------------------------


async def test_a_batch_goes_on_in_the_trace_of_one_that_is_recorded_and_is_linked_to_the_others(
    client: Judge, judges: Judges
) -> None:
    with traced() as traces:
        roots = [
            root for root, _ in await batch_of(client, judges, ("a", False), ("b", True), ("c", False), ("d", True))
        ]

    carrier, joined = roots[1], roots[3]
    batch = next(span for span in traces.of(carrier.trace_id) if span.kind is Kind.CLIENT)
    own = next(span for span in traces.of(joined.trace_id) if span.kind is Kind.CLIENT)
    assert batch.attributes["payflow.items"] == 4
    assert (batch.parent_id, batch.links) == (carrier.span_id, [(joined.trace_id, joined.span_id)])
    assert (own.parent_id, own.links) == (joined.span_id, [(batch.trace_id, batch.span_id)])
    assert own.started_ns == batch.started_ns
    assert {span.trace_id for span in traces.spans} == {carrier.trace_id, joined.trace_id}


async def test_each_recorded_payment_of_a_batch_has_its_decision_in_its_own_trace(
    client: Judge, judges: Judges
) -> None:
    with traced() as traces:
        (first, _), (second, _) = await batch_of(client, judges, ("good", True), ("bad", True))

    for root, level in ((first, "LOW"), (second, "HIGH")):
        (own,) = [span for span in traces.of(root.trace_id) if span.kind is Kind.INTERNAL and span.name != "look"]
        assert (own.parent_id, own.attributes["payflow.risk.level"]) == (root.span_id, level)
        server = the(traces, "risk/judge", Kind.SERVER)
        assert own.links == [(server.trace_id, server.span_id)]


async def test_one_bad_payment_of_an_unsampled_batch_is_recorded_and_leads_to_the_batch(
    client: Judge, judges: Judges
) -> None:
    with traced() as traces:
        (first, _), (bad, _) = await batch_of(client, judges, ("good", False), ("bad", False))

    (own,) = traces.of(bad.trace_id)
    server = the(traces, "risk/judge", Kind.SERVER)
    assert (own.parent_id, own.attributes["payflow.risk.level"]) == (bad.span_id, "HIGH")
    assert own.links == [(server.trace_id, server.span_id)]
    assert server.trace_id == first.trace_id
    assert the(traces, "risk/judge", Kind.CLIENT).span_id == server.parent_id


async def test_a_batch_tells_each_outcome_once_with_how_many_had_it() -> None:
    teller = Teller(operations_of(Judge)["judge"])
    span = Span("risk/judge", kind=Kind.SERVER, traceparent=traceparent())
    items = [a_pay(str(number)) for number in range(40)]
    judges = Judges()
    items[7], items[9] = msgspec.structs.replace(items[7], name="bad"), msgspec.structs.replace(items[9], name="no")

    with traced():
        tracer = installed()
        assert tracer is not None
        teller.tell(tracer, span, items, await judges.judge(items))

    told = [attributes for _, _, attributes in span.events]
    assert sorted(one["payflow.items"] for one in told) == [1, 1, 38]
    assert {"payflow.risk.level": "HIGH", "payflow.risk.rules_hit": ("NAME",), "payflow.items": 1} | {
        "payflow.payment_ids": [str(items[7].payment_id)]
    } in told
    assert {
        "payflow.refused_with": Rejection.code,
        "payflow.items": 1,
        "payflow.payment_ids": [str(items[9].payment_id)],
    } in told


# --- events -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def log(database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]) -> AsyncIterator[Log]:
    async with empty_log(database_url, connect_as, password_files) as log:
        yield log


async def test_events_are_read_in_the_traces_that_they_were_written_in(log: Log) -> None:
    first, second, third = traceparent(), traceparent(), traceparent(is_sampled=False)
    seen: list[str] = []

    async def handler(_: Connection, events: Sequence[Event]) -> None:
        seen.append(current_traceparent.get())

    with traced() as traces:
        await log.append(*(an_event(traceparent=one) for one in (third, first, first, second)))
        await log.drain(log.consumer(handler))

    batch, joined = traces.named("event log process audit")
    assert (batch.trace_id, batch.parent_id) == (first[3:35], first[36:52])
    assert (joined.trace_id, joined.parent_id) == (second[3:35], second[36:52])
    assert batch.links == [(second[3:35], second[36:52])]
    assert joined.links == [(batch.trace_id, batch.span_id)]
    assert batch.attributes["messaging.batch.message_count"] == 4
    assert seen == [batch.traceparent]
    assert current_traceparent.get() == ""


async def test_events_of_which_none_is_recorded_are_read_without_a_span(log: Log) -> None:
    with traced() as traces:
        await log.append(an_event(traceparent=traceparent(is_sampled=False)), an_event(traceparent=""))
        await log.drain(log.consumer())

    assert traces.spans == []


async def test_writing_events_is_a_span_below_the_work_with_links_to_their_payments(log: Log) -> None:
    other = traceparent()
    with traced() as traces:
        root = begin_root()
        await log.append(an_event(traceparent=root.traceparent), an_event(traceparent=other))
        current_span.set(None)
        current_traceparent.set("")

    (sent,) = traces.named("event log send", Kind.PRODUCER)
    assert (sent.trace_id, sent.parent_id) == (root.trace_id, root.span_id)
    assert sent.links == [(other[3:35], other[36:52])]
