"""What every event log promises, on PostgreSQL and on Kafka alike: one suite, run over each.

Order is promised per subject, so a test that has to know that nothing more comes appends one more event of the subject
and waits for its effect.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from datetime import timedelta

import asyncpg
import pytest

from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.dead_letters import DeadLetter, discard, list_dead_letters, request_retry
from payflow.platform.eventlog.replays import ReplayView, list_replays, request_replay
from payflow.platform.postgres import Connection, Database
from tests.builders import NOON
from tests.builders_event_log import ConnectAs, Log, a_subjects_events, running, until, until_waiting
from tests.builders_logs import Written, logging_to
from tests.builders_tracing import traced, traceparent
from tests.conftest import role_url
from tests.fakes_audit import an_event


class Picky:
    """A handler that cannot stand some subjects until it is repaired."""

    def __init__(self, log: Log, *subjects: str, error: Exception | None = None) -> None:
        self._log = log
        self._error = error or ValueError("not this one")
        self.refused = set(subjects)

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        await self._log.write_effects(connection, events)
        if any(event.subject in self.refused for event in events):
            raise self._error


async def until_letters(log: Log, count: int) -> list[DeadLetter]:
    """Wait for so many dead letters."""

    async def are_there() -> bool:
        return len(await list_dead_letters(log.owner)) >= count

    await until(are_there, seconds=log.patience_s)
    return await list_dead_letters(log.owner)


async def until_retried(log: Log, *, left: int) -> None:
    """Wait until nothing is asked to be tried again any more, and so many dead letters are left."""

    async def are_done() -> bool:
        letters = await list_dead_letters(log.owner)
        return len(letters) == left and all(letter.replay_requested_at is None for letter in letters)

    await until(are_done, seconds=log.patience_s)


async def until_replayed(log: Log, replay: ReplayView) -> ReplayView:
    """Wait until a replay is finished."""

    async def is_finished() -> bool:
        (found,) = await list_replays(log.owner, ids=[replay.id])
        return found.finished_at is not None

    await until(is_finished, seconds=log.patience_s)
    (found,) = await list_replays(log.owner, ids=[replay.id])
    return found


async def payflow_events(log: Log, *arguments: str) -> tuple[int | None, str, str]:
    """Run `payflow events`: its exit code, its output, and what it said of errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "payflow.run.main", "events", *arguments),
        env={**os.environ, **log.settings},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


class EventLogSuite:
    """Subclass it as `Test...` beside a fixture `log`."""

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
        late = await asyncpg.connect(role_url(log.url, "confirm", password_files))  # type: ignore[arg-type]
        transaction = late.transaction()
        async with running(log.any_consumer()):
            await transaction.start()
            await log.outbox.append(late, [an_event(subject="begun first")])  # type: ignore[arg-type]
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
                an_event(subject="s", version=1, **security),  # type: ignore[arg-type]
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

    # --- what cannot be handled ---------------------------------------------------------------------------------

    async def test_an_event_that_always_fails_is_set_aside_and_the_rest_goes_on(self, log: Log) -> None:
        poison = an_event(subject="poison")
        async with running(log.any_consumer(Picky(log, "poison"))):
            await log.append(an_event(subject="before"), poison, an_event(subject="after"))
            await log.append(an_event(subject="later"))
            for subject in ("before", "after", "later"):
                await log.until_version(subject, 1)
            (letter,) = await until_letters(log, 1)

        assert sorted(await log.effects()) == [("after", 1), ("before", 1), ("later", 1)]
        assert (letter.consumer, letter.event_id, letter.source) == ("audit", poison.id, "payflow_confirm")
        assert letter.cause == "ValueError('not this one')"
        assert letter.events == [poison]

    @pytest.mark.parametrize(
        "error", [AttributeError("a bug"), asyncpg.ForeignKeyViolationError("refers to nothing")], ids=repr
    )
    async def test_an_event_at_which_the_handler_breaks_stops_what_is_behind_it_for_five_seconds_at_most(
        self, log: Log, error: Exception
    ) -> None:
        loop = asyncio.get_running_loop()
        async with running(log.any_consumer(Picky(log, "poison", error=error))):
            await log.append(an_event(subject="first"))
            await log.until_version("first", 1)
            began_at = loop.time()
            await log.append(an_event(subject="poison", version=1), an_event(subject="behind"))
            await log.until_version("behind", 1)
            took_s = loop.time() - began_at
            (letter,) = await until_letters(log, 1)

        assert took_s < 5.5
        assert letter.subject == "poison"

    async def test_a_handler_that_breaks_at_every_event_sets_nothing_aside(self, log: Log) -> None:
        broken = Picky(log, "a", error=AttributeError("a bug"))
        consumer = log.any_consumer(broken)
        async with running(consumer):
            # Of one payment, so that they come together: a lone event that fails is at fault, as far as one knows.
            await log.append(an_event(subject="a", version=1), an_event(subject="a", version=2))
            await asyncio.sleep(5)
            before = (await log.effects(), await list_dead_letters(log.owner))
            broken.refused.clear()
            await log.until_version("a", 2)

        assert before == ([], [])
        assert await list_dead_letters(log.owner) == []

    async def test_an_event_that_fails_for_a_moment_is_not_set_aside(self, log: Log) -> None:
        tries = 0

        async def fail_twice(connection: Connection, events: Sequence[Event]) -> None:
            nonlocal tries
            tries += 1
            if tries <= 2:
                raise ValueError("for a moment")
            await log.write_effects(connection, events)

        async with running(log.any_consumer(fail_twice)):
            await log.append(an_event(subject="patience"))
            await log.until_version("patience", 1)

        assert await list_dead_letters(log.owner) == []

    async def test_what_passes_is_waited_out_and_said(self, log: Log) -> None:
        is_away = True

        async def ask_first(connection: Connection, events: Sequence[Event]) -> None:
            if is_away:
                raise Unavailable("away")
            await log.write_effects(connection, events)

        consumer = log.any_consumer(ask_first)
        async with running(consumer):
            await log.append(an_event(subject="patience", version=1))
            await until_waiting(consumer)
            await log.append(an_event(subject="patience", version=2))
            before = await log.effects()
            is_away = False
            versions = await log.until_version("patience", 2)

            async def is_well() -> bool:
                return await consumer.is_reading()

            await until(is_well)

        assert before == []
        assert versions == [1, 2]
        assert await list_dead_letters(log.owner) == []

    async def test_a_consumer_waits_until_its_database_is_back(self, log: Log) -> None:
        database = await Database.connect(url=log.url, pool_size=2, application="test", schema="audit")
        async with running(log.any_consumer(database=database)):
            await log.append(an_event(subject="payment", version=1))
            await log.until_version("payment", 1)
            await log.owner.execute("ALTER ROLE payflow_audit NOLOGIN")
            try:
                await log.owner.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE usename = 'payflow_audit' AND datname = current_database()"
                )
                await log.append(an_event(subject="payment", version=2))
                await asyncio.sleep(0.5)
                before = await log.effects_of("payment")
            finally:
                await log.owner.execute("ALTER ROLE payflow_audit LOGIN")
            versions = await log.until_version("payment", 2)
        await database.close()

        assert before == [1]
        assert versions == [1, 2]

    # --- forgeries and rubbish ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("writer", "event"),
        [
            ("kyc", an_event(type="payment.rejected", source="confirm", subject="payment")),
            ("kyc", an_event(type="payment.rejected", source="kyc", subject="payment")),
            ("kyc", an_event(type="security.user_created", source="gateway", subject="payment")),
            ("confirm", an_event(type="review.decided", source="confirm", subject="payment")),
        ],
        ids=["in another's name", "of another's topic", "everybody's topic in another's name", "a clearing by confirm"],
    )
    async def test_a_forged_event_has_no_effect_and_is_set_aside(
        self, log: Log, connect_as: ConnectAs, writer: str, event: Event
    ) -> None:
        topics = ["payments", "security", "reviews.decided"]
        async with running(log.any_consumer(topics=topics)):
            await log.append_as(await connect_as(writer), event)
            await log.append(an_event(subject="payment", version=2))
            versions = await log.until_version("payment", 2)
            (letter,) = await until_letters(log, 1)

        assert versions == [2]
        assert (letter.event_id, letter.source) == (event.id, f"payflow_{writer}")
        assert letter.cause.startswith("forged: ")

    @pytest.mark.parametrize(
        "written", [b"\x90\x90", b"", b"\x91" * 5000 + b"\xc0"], ids=["no events", "empty", "deep"]
    )
    async def test_a_batch_that_cannot_be_read_is_set_aside_and_the_rest_goes_on(
        self, log: Log, written: bytes
    ) -> None:
        async with running(log.any_consumer()):
            await log.writer.execute(
                "INSERT INTO event_log.batch (types, events, event_count) VALUES ('{payment.completed}', $1, 1)",
                written,
            )
            await log.append(an_event(subject="after"))
            await log.until_version("after", 1)
            (letter,) = await until_letters(log, 1)

        assert (letter.types, letter.source) == ([], "payflow_confirm")

    # --- retrying and discarding --------------------------------------------------------------------------------

    async def test_a_dead_letter_is_handled_after_all_when_it_is_retried(self, log: Log) -> None:
        picky = Picky(log, "x", "y")
        x = an_event(subject="x")
        async with running(log.any_consumer(picky)):
            await log.append(x, an_event(subject="y"), an_event(subject="z"))
            await until_letters(log, 2)
            picky.refused.clear()
            asked = await request_retry(log.owner, consumer="audit", event_id=x.id)
            await until_retried(log, left=1)

        assert asked == 1
        assert sorted(await log.effects()) == [("x", 1), ("z", 1)]
        assert [letter.subject for letter in await list_dead_letters(log.owner)] == ["y"]

    async def test_all_dead_letters_of_a_consumer_are_retried_at_once(self, log: Log) -> None:
        picky = Picky(log, "x", "y")
        async with running(log.any_consumer(picky)):
            await log.append(an_event(subject="x"), an_event(subject="y"))
            await until_letters(log, 2)
            picky.refused.clear()
            asked = await request_retry(log.owner, consumer="audit", event_id=None)
            await until_retried(log, left=0)

        assert asked == 2
        assert sorted(await log.effects()) == [("x", 1), ("y", 1)]

    async def test_a_dead_letter_that_fails_again_stays_one_and_is_not_tried_for_ever(self, log: Log) -> None:
        x = an_event(subject="x")
        async with running(log.any_consumer(Picky(log, "x"))):
            await log.append(x)
            await until_letters(log, 1)
            await request_retry(log.owner, consumer="audit", event_id=x.id)
            await until_retried(log, left=1)

        (letter,) = await list_dead_letters(log.owner)
        assert (letter.event_id, letter.cause) == (x.id, "ValueError('not this one')")
        assert await log.effects() == []

    async def test_a_discarded_dead_letter_is_kept_with_its_reason_and_tried_no_more(self, log: Log) -> None:
        picky = Picky(log, "x")
        x = an_event(subject="x")
        async with running(log.any_consumer(picky)):
            await log.append(x)
            await until_letters(log, 1)
            picky.refused.clear()
            is_gone = await discard(log.owner, consumer="audit", event_id=x.id, reason="a test payment", by="ops")
            asked = await request_retry(log.owner, consumer="audit", event_id=None)
            again = await discard(log.owner, consumer="audit", event_id=x.id, reason="twice", by="ops")

        (letter,) = await list_dead_letters(log.owner, with_discarded=True)
        assert (is_gone, asked, again) == (True, 0, False)
        assert (letter.discard_reason, letter.discarded_by) == ("a test payment", "ops")
        assert await list_dead_letters(log.owner) == []
        assert await log.effects() == []

    # --- replaying ----------------------------------------------------------------------------------------------

    async def test_a_topic_is_replayed_into_one_consumer_from_an_instant_on(
        self, log: Log, connect_as: ConnectAs
    ) -> None:
        times = {"old": NOON - timedelta(days=1), "at the instant": NOON, "later": NOON + timedelta(hours=1)}
        async with running(
            log.any_consumer(topics=["payments", "bulk"]),
            log.any_consumer(name="risk", database=await connect_as("risk")),
        ):
            for subject, time in times.items():
                await log.append(
                    an_event(subject=subject, time=time), an_event(subject=subject, time=time, type="bulk.accepted")
                )
            await log.until_effects(9)
            asked = await request_replay(log.owner, consumer="audit", topic="payments", key=None, from_time=NOON)
            done = await until_replayed(log, asked)

        assert done.handed == 2
        assert {subject: len(await log.effects_of(subject)) for subject in times} == {
            "old": 3,
            "at the instant": 4,
            "later": 4,
        }

    async def test_one_payment_is_replayed_in_its_order(self, log: Log) -> None:
        async with running(log.any_consumer()):
            for version in (1, 2, 3):
                await log.append(an_event(subject="it", version=version), an_event(subject="other", version=version))
            await log.until_version("it", 3)
            await log.until_version("other", 3)
            asked = await request_replay(
                log.owner, consumer="audit", topic="payments", key="it", from_time=NOON - timedelta(days=1)
            )
            done = await until_replayed(log, asked)

        assert done.handed == 3
        assert await log.effects_of("it") == [1, 2, 3, 1, 2, 3]
        assert await log.effects_of("other") == [1, 2, 3]

    async def test_a_replay_of_nothing_is_finished_soon(self, log: Log) -> None:
        async with running(log.any_consumer()):
            await log.append(an_event(subject="it"))
            await log.until_version("it", 1)
            asked = await request_replay(
                log.owner, consumer="audit", topic="payments", key=None, from_time=NOON + timedelta(days=400)
            )
            done = await until_replayed(log, asked)

        assert done.handed == 0
        assert await log.effects_of("it") == [1]

    # --- on the command line ------------------------------------------------------------------------------------

    async def test_an_operator_looks_at_dead_letters_retries_one_and_discards_one(self, log: Log) -> None:
        picky = Picky(log, "x", "y")
        x, y = an_event(subject="x"), an_event(subject="y")
        async with running(log.any_consumer(picky)):
            await log.append(x, y)
            await until_letters(log, 2)
            picky.refused.clear()
            _, listed, _ = await payflow_events(log, "dlq", "--json")
            _, table, _ = await payflow_events(log, "dlq")
            _, shown, _ = await payflow_events(log, "dlq", "show", str(x.id))
            retried = await payflow_events(log, "dlq", "retry", "audit", str(x.id))
            discarded = await payflow_events(log, "dlq", "discard", "audit", str(y.id), "--reason", "a test payment")
            await until_retried(log, left=0)
            refused = await payflow_events(log, "dlq", "retry", "audit", "--all")
            _, kept, _ = await payflow_events(log, "dlq", "--discarded", "--json")

        assert sorted(letter["subject"] for letter in json.loads(listed)) == ["x", "y"]
        assert str(x.id) in table
        assert json.loads(shown)["events"][0]["data"] == x.data
        assert retried[:2] == (0, "1 event will be handed to audit again as soon as it runs.\n"), retried
        assert discarded[0] == 0, discarded
        assert await log.effects() == [("x", 1)]
        assert refused[0] == 1
        assert "set aside no such event" in refused[2]
        assert [letter["discard_reason"] for letter in json.loads(kept)] == ["a test payment"]

    async def test_an_operator_replays_one_payment(self, log: Log) -> None:
        async with running(log.any_consumer()):
            await log.append(*a_subjects_events("it", range(1, 4)), an_event(subject="other"))
            await log.until_version("it", 3)
            await log.until_version("other", 1)
            instant = (NOON - timedelta(days=1)).isoformat()
            asked = ("replay", "audit", "--topic", "payments", "--payment", "it", "--from", instant)
            code, told, err = await payflow_events(log, *asked)
            _, listed, _ = await payflow_events(log, "replays")
            wrong = await payflow_events(log, "replay", "kyc", "--topic", "payments", "--from", instant)

        assert (code, told) == (0, "3 events of payments handed to audit again.\n"), err
        assert "payments, it into audit" in listed
        assert await log.effects_of("it") == [1, 2, 3, 1, 2, 3]
        assert wrong[0] == 1
        assert "kyc does not hear payments" in wrong[2]

    async def test_an_operator_sees_the_last_events_and_those_that_come(self, log: Log) -> None:
        async with running(log.any_consumer(topics=["payments", "bulk"])):
            for version in (1, 2, 3):
                await log.append(
                    an_event(subject="it", version=version),
                    an_event(subject="b", version=version, type="bulk.accepted"),
                )
            await log.until_version("it", 3)
            await log.until_version("b", 3)
            code, last, err = await payflow_events(log, "tail", "--topic", "payments", "-n", "2", "--json")
            _, lines, _ = await payflow_events(log, "tail", "--payment", "b", "--type", "bulk.accepted")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "payflow.run.main", "events", "tail", "-f", "-n", "1"),
                *("--topic", "payments", "--json"),
                env={**os.environ, **log.settings},
                stdout=PIPE,
            )
            assert process.stdout is not None
            first = json.loads(await asyncio.wait_for(process.stdout.readline(), log.patience_s))
            await log.append(an_event(subject="it", version=4))
            second = json.loads(await asyncio.wait_for(process.stdout.readline(), log.patience_s))
            process.terminate()
            await process.wait()

        assert code == 0, err
        assert [json.loads(line)["version"] for line in last.splitlines()] == [2, 3]
        assert [line.split("  ")[1:3] for line in lines.splitlines()] == [
            ["bulk.accepted", f"b v{version}"] for version in (1, 2, 3)
        ]
        assert (first["version"], second["version"]) == (3, 4)

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
