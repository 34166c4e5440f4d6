"""What comes, once, and in its order; and how a consumer stops.

Order is promised per subject, so a test that has to know that nothing more comes appends one more event of the subject
and waits for its effect.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import pytest

from payflow.kernel.envelope import Event
from payflow.platform.postgres import Connection
from tests.builders import NOON
from tests.builders_event_log import ConnectAs, Log, a_subjects_events, running, until
from tests.builders_logs import Written, logging_to
from tests.builders_tracing import traced, traceparent
from tests.conftest import role_url
from tests.fakes_audit import an_event


class Delivery:
    """What is written is handled once, and in its order."""

    # --- what comes ---------------------------------------------------------------------------------------------

    async def test_an_event_has_its_effect_with_everything_that_it_said(self, log: Log) -> None:
        seen: list[Event] = []

        async def keep(connection: Connection, events: Sequence[Event]) -> None:
            seen.extend(events)
            await log.write_effects(connection, events)

        data = {"amount_minor": 2**53 + 1, "path": ["RECEIVED", "COMPLETED"], "reason": None, "name": "Ünï \u0000 🙂"}
        event = an_event(subject="all of it", time=NOON + timedelta(microseconds=123), data=data)
        async with running(log.any_consumer(keep)):
            await log.append(event)
            await log.until_version("all of it", 1)

        assert seen == [event]

    async def test_an_event_is_handled_in_the_trace_that_it_was_written_in_and_a_line_tells_of_it(
        self, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written = traceparent()
        with traced() as traces, logging_to(monkeypatch) as logged:
            async with running(log.any_consumer()):
                await log.append(an_event(traceparent=written, subject="traced", data={"payment_id": "p-1"}))
                await until(lambda: self._is_told(logged), seconds=log.patience_s)

        (span,) = traces.named("event log process audit")
        assert (span.trace_id, span.parent_id) == (written[3:35], written[36:52])
        assert span.attributes["messaging.batch.message_count"] == 1
        (line,) = [line for line in logged.lines if line["message"] == "events.handled"]
        assert (line["trace.id"], line["payflow.payment_ids"]) == (written[3:35], ["p-1"])

    async def _is_told(self, logged: Written) -> bool:
        return any(line["message"] == "events.handled" for line in logged.lines)

    async def test_an_event_of_a_transaction_that_rolls_back_never_happened(self, log: Log) -> None:
        async def append_and_fail() -> None:
            async with log.writer.transaction() as connection:
                await log.outbox.append(connection, [an_event(subject="payment", version=1)])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await append_and_fail()
        async with running(log.any_consumer()):
            await log.append(an_event(subject="payment", version=2))
            versions = await log.until_version("payment", 2)

        assert versions == [2]

    async def test_a_transaction_that_commits_late_is_not_skipped(
        self, log: Log, database_url: str, password_files: dict[str, object]
    ) -> None:
        late = await asyncpg.connect(role_url(log.url, "confirm", password_files))
        transaction = late.transaction()
        async with running(log.any_consumer()):
            await transaction.start()
            await log.outbox.append(late, [an_event(subject="begun first")])
            await log.append(an_event(subject="committed first"))
            await log.until_version("committed first", 1)
            before = await log.effects()
            await transaction.commit()
            await late.close()
            await log.until_version("begun first", 1)

        assert before == [("committed first", 1)]
        assert await log.effects() == [("committed first", 1), ("begun first", 1)]

    async def test_no_event_is_skipped_or_out_of_order_while_many_commit_at_once(self, log: Log) -> None:
        async def write(subject: str) -> None:
            for version in range(1, 11):
                async with log.writer.transaction() as connection:
                    await log.outbox.append(connection, [an_event(subject=subject, version=version)])
                    await asyncio.sleep(0.001 * (version % 3))

        async with running(log.any_consumer()):
            await asyncio.gather(*(write(f"payment-{n}") for n in range(4)))
            effects = await log.until_effects(40)

        assert len(effects) == 40
        for n in range(4):
            assert await log.effects_of(f"payment-{n}") == list(range(1, 11))

    async def test_the_events_of_one_subject_stay_in_order_over_batches(self, log: Log) -> None:
        async with running(log.any_consumer()):
            for start in (1, 4, 7):
                await log.append(*a_subjects_events("payment", range(start, start + 3)))
            versions = await log.until_version("payment", 9)

        assert versions == list(range(1, 10))

    async def test_a_consumer_hears_only_its_own_topics_and_types(self, log: Log) -> None:
        wanted = log.any_consumer(topics=["payments", "security"], types=["payment.completed", "security.signed_in"])
        security = {"type": "security.signed_in", "source": "confirm"}
        async with running(wanted):
            await log.append(
                an_event(subject="p", version=1, type="payment.completed"),
                an_event(subject="p", version=2, type="payment.expired"),
                an_event(subject="b", version=1, type="bulk.accepted"),
                an_event(subject="s", version=1, **security),
            )
            await log.append(an_event(subject="p", version=3, type="payment.completed"))
            await log.until_version("s", 1)
            await log.until_version("p", 3)

        assert sorted(await log.effects()) == [("p", 1), ("p", 3), ("s", 1)]

    async def test_each_consumer_has_a_place_of_its_own(self, log: Log, connect_as: ConnectAs) -> None:
        await log.append(an_event(subject="payment", version=1))
        async with running(log.any_consumer(name="audit")):
            await log.until_version("payment", 1)
        async with running(log.any_consumer(name="risk", database=await connect_as("risk"))):
            await log.append(an_event(subject="payment", version=2))
            versions = await log.until_version("payment", 2)

        assert versions == [1, 1, 2]

    async def test_after_a_commit_the_listener_of_the_consumer_is_told_what_was_handled(self, log: Log) -> None:
        told: list[str] = []

        async def are_told() -> bool:
            return sorted(told) == ["a", "b"]

        consumer = log.any_consumer(after_commit=lambda events: told.extend(event.subject for event in events))
        async with running(consumer):
            await log.append(an_event(subject="a"), an_event(subject="b"))
            await until(are_told, seconds=log.patience_s)

    # --- once ---------------------------------------------------------------------------------------------------

    async def test_a_consumer_that_is_cancelled_in_mid_transaction_has_its_effect_once(self, log: Log) -> None:
        is_written = asyncio.Event()

        async def write_and_hang(connection: Connection, events: Sequence[Event]) -> None:
            await log.write_effects(connection, events)
            is_written.set()
            await asyncio.sleep(60)

        async with running(log.any_consumer(write_and_hang)):
            await log.append(an_event(subject="once", version=1))
            await asyncio.wait_for(is_written.wait(), log.patience_s)
        before = await log.effects()
        async with running(log.any_consumer()):
            await log.append(an_event(subject="once", version=2))
            versions = await log.until_version("once", 2)

        assert before == []
        assert versions == [1, 2]

    async def test_two_processes_of_one_consumer_share_the_work_without_doubling_it(
        self, log: Log, connect_as: ConnectAs
    ) -> None:
        first = log.any_consumer(database=await connect_as("audit"))
        second = log.any_consumer(database=await connect_as("audit"))

        async with running(first, second):
            for version in range(1, 21):
                await log.append(*(an_event(subject=f"payment-{n}", version=version) for n in range(6)))
                await asyncio.sleep(0.02)
            for n in range(6):
                await log.until_version(f"payment-{n}", 20)

        for n in range(6):
            assert await log.effects_of(f"payment-{n}") == list(range(1, 21))

    async def test_when_the_process_that_reads_ends_the_other_takes_over(self, log: Log, connect_as: ConnectAs) -> None:
        is_stuck = asyncio.Event()

        async def hang(_: Connection, __: Sequence[Event]) -> None:
            is_stuck.set()
            await asyncio.sleep(60)

        async with running(log.any_consumer(hang, database=await connect_as("audit"))) as (stuck,):
            await log.append(an_event(subject="handed over"))
            await asyncio.wait_for(is_stuck.wait(), log.patience_s)
            async with running(log.any_consumer(database=await connect_as("audit"))):
                await asyncio.sleep(0.1)
                before = await log.effects()
                stuck.cancel()
                versions = await log.until_version("handed over", 1)

        assert before == []
        assert versions == [1]

    # --- stopping -----------------------------------------------------------------------------------------------

    async def test_a_consumer_stops_within_a_second_and_a_half(self, log: Log) -> None:
        loop = asyncio.get_running_loop()
        async with running(log.any_consumer()) as (task,):
            await log.append(an_event(subject="it"))
            await log.until_version("it", 1)
            began_at = loop.time()
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            took_s = loop.time() - began_at

        assert done == {task}
        assert task.cancelled()
        assert took_s < 1.5
