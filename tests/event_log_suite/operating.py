"""What an operator does with dead letters and replays, by function and on the command line."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE
from datetime import timedelta

from payflow.platform.eventlog.dead_letters import discard, list_dead_letters, request_retry
from payflow.platform.eventlog.replays import request_replay
from tests.builders import NOON
from tests.builders_event_log import ConnectAs, Log, a_subjects_events, running
from tests.event_log_suite.helpers import Picky, payflow_events, until_letters, until_replayed, until_retried
from tests.fakes_audit import an_event


class Operating:
    """Retrying, discarding, replaying and looking on."""

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
