"""Handing a part of a topic to one consumer again, read from Kafka beside the group."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from payflow.kernel.envelope import Event
from payflow.platform.eventlog import replays
from payflow.platform.eventlog.consumer import CLOCKS_DIFFER
from payflow.platform.eventlog.delivery import Deliverer, Delivery
from payflow.platform.eventlog.kafka.config import Kafka
from payflow.platform.eventlog.kafka.reading import COMMIT_EVERY_S, LogReader, Place, Record
from payflow.platform.eventlog.kafka.wire import from_record
from payflow.platform.eventlog.kafka.worker import Worker
from payflow.platform.eventlog.replays import Replay
from payflow.platform.postgres import Database

_READ_S: Final = 1.0
# A replay ends where the group stood when it was asked for, which every member has told it by then.
_COMMITTED_S: Final = 3 * COMMIT_EVERY_S
# Per partition, by its number: where to go on, and where to stop.
Progress = dict[str, list[int]]


class Replayer:
    """Does a consumer's replays piece by piece; a piece's effects and the progress are committed together."""

    def __init__(self, kafka: Kafka, *, name: str, deliverer: Deliverer, client_id: str) -> None:
        self._kafka = kafka
        self._name = name
        self._deliverer = deliverer
        self._client_id = f"{client_id}-replay"
        self._worker = Worker(f"kafka-replay-{name}")
        self._reader: LogReader | None = None
        # What the reader stands ready to go on with.
        self._at: tuple[int, Progress] | None = None

    async def step(self, database: Database) -> list[Event]:
        """Hand over the next piece, if there is a replay that no other process is at; the events that had an effect.

        Raises Unavailable.
        """
        async with database.transaction() as connection:
            replay = await replays.next_replay(connection, consumer=self._name)
        if replay is None or (replay.progress is None and replay.asked_s_ago < _COMMITTED_S):
            return []
        progress, records = await self._worker.do(partial(self._read, replay))
        deliveries = self._wanted(replay, records)
        is_finished = all(at >= until for at, until in progress.values())
        async with database.transaction() as connection:
            still = await replays.next_replay(connection, consumer=self._name)
            if still is None or (still.id, still.progress) != (replay.id, replay.progress):
                self._at = None
                return []
            genuine = await self._deliverer.sort_out(connection, deliveries)
            done = await self._deliverer.apply_again(connection, genuine) if genuine else []
            await replays.save_progress(
                connection, id=replay.id, progress=progress, handed=len(genuine), is_finished=is_finished
            )
        self._at = (replay.id, progress)
        return done

    async def close(self) -> None:
        """End the client."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await self._worker.do(reader.close)
        self._worker.stop()

    def _read(self, replay: Replay) -> tuple[Progress, list[Record]]:
        """Blocks: the next records of a replay, and the progress when they are handled."""
        if self._reader is None:
            self._reader = LogReader(self._kafka, group=self._kafka.group(self._name), client_id=self._client_id)
        progress: Progress = {**(replay.progress or self._begin(self._reader, replay))}
        open_places = {(replay.topic, int(number)): at for number, (at, until) in progress.items() if at < until}
        if not open_places:
            return progress, []
        if self._at != (replay.id, replay.progress):
            self._reader.begin(open_places)
        self._at = None
        records, ended = self._reader.read(_READ_S)
        return _after(progress, records, ended), [
            record for record in records if record.offset < progress[str(record.partition)][1]
        ]

    def _begin(self, reader: LogReader, replay: Replay) -> Progress:
        """From the first event of the instant on, up to where the group has come."""
        until = reader.committed(replay.topic)
        since = reader.first_since(replay.topic, replay.from_time - CLOCKS_DIFFER)
        return {
            str(partition): [end if since.get(partition) is None else since[partition] or 0, end]
            for partition, end in until.items()
        }

    @staticmethod
    def _wanted(replay: Replay, records: Sequence[Record]) -> list[Delivery]:
        wanted = []
        for record in records:
            try:
                delivery = from_record(record.value, record.headers, topic=record.topic)
            except ValueError:
                continue  # It was set aside when it was read the first time.
            if replay.wants(delivery.event):
                wanted.append(delivery)
        return wanted


def _after(progress: Progress, records: Sequence[Record], ended: set[Place]) -> Progress:
    moved: dict[str, Any] = {number: list(bounds) for number, bounds in progress.items()}
    for record in records:
        moved[str(record.partition)][0] = record.offset + 1
    for _, partition in ended:
        moved[str(partition)][0] = max(moved[str(partition)])
    return moved
