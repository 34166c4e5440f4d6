"""`payflow events`: watch them, hand a part of the log to a consumer again, and deal with what could not be handled."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from payflow.run.dead_letters import dlq
from payflow.run.errors import StartError
from payflow.run.inspection import as_owner
from payflow.run.options import DataDir

if TYPE_CHECKING:
    import asyncpg

    from payflow.kernel.envelope import Event
    from payflow.platform.eventlog.replays import ReplayView
    from payflow.run.payment_names import NamedPayment

events = typer.Typer(no_args_is_help=True, help="Events: watch, replay, and deal with what could not be handled.")
events.add_typer(dlq, name="dlq")


@events.command()
def tail(
    topic: Annotated[str | None, typer.Option(help="Only this topic, e.g. payments.")] = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this type, e.g. payment.completed.")] = None,
    payment: Annotated[
        str | None,
        typer.Option(help="Only events of this payment: transaction or payment id (or another key or subject)."),
    ] = None,
    last: Annotated[int, typer.Option("-n", "--last", help="Begin with so many past ones.", min=0, max=10_000)] = 10,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show the last events, and with -f those that come: from Kafka where they go through it, else from PostgreSQL."""
    from payflow.run.event_tail import Wanted, kafka_from, tail_kafka, tail_postgres
    from payflow.run.inspection import kafka_settings
    from payflow.run.payment_names import payments_called

    asked = Wanted(topic=topic, type=type_)
    asked.check()
    kafka = kafka_from(kafka_settings(data_dir))

    async def show(connection: asyncpg.Connection[Any]) -> None:
        if kafka is None and await connection.fetchval("SELECT is_on FROM event_log.relay"):
            raise StartError("Events go through Kafka here: set PAYFLOW_KAFKA_BROKERS to see them.")
        known = [] if payment is None else await payments_called(connection, payment)
        wanted = asked if payment is None else asked.of_any([payment, *(str(one.payment_id) for one in known)])
        found = (
            tail_postgres(connection, wanted, last=last, follow=follow)
            if kafka is None
            else tail_kafka(kafka, wanted, last=last, follow=follow)
        )
        shown = 0
        async for event in found:
            print(_line(event, as_json=as_json), flush=True)
            shown += 1
        if payment is not None and last and not shown:
            _say_that_none_was_found(payment, known)

    as_owner(data_dir, show)


@events.command()
def replay(
    consumer: Annotated[str, typer.Argument(help="Who is handed them again, e.g. notification.")],
    topic: Annotated[str, typer.Option(help="The topic, e.g. payments.")],
    from_: Annotated[str, typer.Option("--from", help="The instant from which on, e.g. 2026-03-02T12:00:00Z.")],
    payment: Annotated[
        str | None, typer.Option(help="Only events of this payment: transaction or payment id (or another key).")
    ] = None,
    wait_s: Annotated[float, typer.Option("--wait", help="Wait so many seconds for the end.", min=0)] = 60.0,
    data_dir: DataDir = None,
) -> None:
    """Hand events that were read already to one consumer again: a topic, or one payment, from an instant on.

    Handlers know what they have done: an effect is had again only where it was lost. Exit code 4: not finished yet.
    """
    from payflow.platform.eventlog.replays import request_replay

    _check_hearer(consumer, topic)
    instant = _as_instant(from_)

    async def ask(connection: asyncpg.Connection[Any]) -> tuple[ReplayView, bool]:
        key, is_known = (None, True) if payment is None else await _key_of(connection, payment, topic=topic)
        asked = await request_replay(connection, consumer=consumer, topic=topic, key=key, from_time=instant)
        return await _wait_for(connection, asked, seconds=wait_s), is_known

    done, is_known = as_owner(data_dir, ask)
    if done.finished_at is None:
        print(f"Replay {done.id} goes on: {done.handed} events so far. `payflow events replays` tells when it is done.")
        raise typer.Exit(4)
    if payment is not None and not done.handed and not is_known:
        raise _nothing_known_by(payment)
    print(f"{done.handed} event{'' if done.handed == 1 else 's'} of {topic} handed to {consumer} again.")


def _check_hearer(consumer: str, topic: str) -> None:
    """Raises StartError for a topic that does not exist, and for a consumer that does not hear it."""
    from payflow.contracts.topics import TOPIC_BY_NAME, consumers_of

    if topic not in TOPIC_BY_NAME:
        raise StartError(f"There is no topic {topic}: choose one of {', '.join(TOPIC_BY_NAME)}.")
    heard_by = {name for type_ in TOPIC_BY_NAME[topic].types for name in consumers_of(type_)}
    if consumer not in heard_by:
        raise StartError(f"{consumer} does not hear {topic}: choose one of {', '.join(sorted(heard_by))}.")


async def _key_of(connection: asyncpg.Connection[Any], payment: str, *, topic: str) -> tuple[str, bool]:
    """The key in a topic by which a payment's events are found, and whether it is known that there is such a payment.

    In a topic that has other keys (a customer's id), and where no payment is called so, it is what was typed.
    """
    from payflow.contracts.topics import TOPIC_BY_NAME
    from payflow.run.payment_names import payments_called, the_one

    if TOPIC_BY_NAME[topic].key != "payment_id":
        return payment, False
    found = the_one(await payments_called(connection, payment), name=payment)
    return (payment, False) if found is None else (str(found.payment_id), True)


def _say_that_none_was_found(payment: str, known: list[NamedPayment]) -> None:
    """Raises StartError where no payment is called so; else it is there, and only its events are not."""
    if not known:
        raise _nothing_known_by(payment)
    ids = ", ".join(str(one.payment_id) for one in known)
    print(f"{payment} is known (payment {ids}), but no such event of it was found in the log.", file=sys.stderr)


def _nothing_known_by(payment: str) -> StartError:
    return StartError(
        f"No payment and no such event is known by {payment}: give a transaction_id or payment_id, or another key "
        "of the topic (a customer's id, say)."
    )


@events.command()
def replays(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """List the replays that were asked for, newest first."""
    import msgspec

    from payflow.platform.eventlog.replays import list_replays

    found = as_owner(data_dir, list_replays)
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    for one in found:
        state = "running" if one.finished_at is None else f"done {one.finished_at:%Y-%m-%d %H:%M:%S}"
        key = "" if one.key is None else f", {one.key}"
        print(f"{one.id}  {one.topic}{key} into {one.consumer} from {one.from_time.isoformat()}: {one.handed}, {state}")


async def _wait_for(connection: asyncpg.Connection[Any], asked: ReplayView, *, seconds: float) -> ReplayView:
    from payflow.platform.eventlog.replays import list_replays

    deadline = time.monotonic() + seconds
    while True:
        (found,) = await list_replays(connection, ids=[asked.id])
        if found.finished_at is not None or time.monotonic() >= deadline:
            return found
        await asyncio.sleep(0.2)


def _as_instant(text: str) -> datetime:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise StartError(f"--from {text}: expected an instant such as 2026-03-02T12:00:00Z.") from None
    if instant.tzinfo is None:
        raise StartError(f"--from {text}: say which time zone, e.g. {text}Z for UTC.")
    return instant


def _line(event: Event, *, as_json: bool) -> str:
    """An event on one line, as JSON writes its texts, so that none can send control characters to the terminal."""
    import msgspec

    if as_json:
        return msgspec.json.encode(event).decode()
    data = msgspec.json.encode(event.data).decode()
    subject, type_ = (msgspec.json.encode(text).decode()[1:-1] for text in (event.subject, event.type))
    return f"{event.time:%Y-%m-%d %H:%M:%S}  {type_}  {subject} v{event.version}  {data}"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(events, name="events")
