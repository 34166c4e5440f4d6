"""An event as a record in Kafka: CloudEvents 1.0 in structured content mode, one JSON object, keyed by payment."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

import msgspec

from payflow.contracts.topics import TOPIC_BY_TYPE
from payflow.kernel.envelope import Event
from payflow.platform.eventlog.delivery import Delivery
from payflow.platform.eventlog.origin import ROLE_PREFIX

CONTENT_TYPE: Final = "application/cloudevents+json; charset=UTF-8"
# The position of the event's batch in the outbox: by it a consumer knows what it has read there already.
POSITION_HEADER: Final = "payflow-position"
Headers = list[tuple[str, str | bytes | None]]


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event with every attribute written out. `version` and `traceparent` are extensions."""

    specversion: Literal["1.0"]
    id: UUID
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str = "application/json"
    dataschema: str = ""
    version: int
    traceparent: str | msgspec.UnsetType = msgspec.UNSET
    data: dict[str, Any]


class _Typed(msgspec.Struct):
    type: str


class Outgoing(msgspec.Struct, frozen=True):
    """A record on its way into Kafka. `topic` is the catalogue's name."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(CloudEvent)
_type_decoder: Final = msgspec.json.Decoder(_Typed)


def to_record(event: Event, *, position: int) -> Outgoing:
    """An event as a record. Raises KeyError for a type that is unknown, ValueError for what JSON cannot say."""
    topic = TOPIC_BY_TYPE[event.type]
    wired = CloudEvent(
        specversion="1.0",
        id=event.id,
        source=event.source,
        type=event.type,
        subject=event.subject,
        time=event.time,
        dataschema=topic.dataschema,
        version=event.version,
        traceparent=event.traceparent or msgspec.UNSET,
        data=event.data,
    )
    headers: Headers = [("content-type", CONTENT_TYPE.encode()), (POSITION_HEADER, str(position).encode())]
    if event.traceparent:
        headers.append(("traceparent", event.traceparent.encode()))
    return Outgoing(
        topic=topic.name,
        key=topic.key_of(subject=event.subject, data=event.data).encode(),
        value=_encoder.encode(wired),
        headers=headers,
    )


def type_in(value: bytes | None) -> str | None:
    """The type of a record's event, read without the rest of it; None where it cannot be read."""
    try:
        return _type_decoder.decode(value or b"").type
    except (ValueError, RecursionError):
        return None


def from_record(value: bytes | None, headers: Any, *, topic: str) -> Delivery:
    """The event in a record of a topic (the catalogue's name), with the position of its batch, 0 where it has none.

    Who wrote it is taken from the event: only the relay may write to the topics, and it asked the database.

    Raises ValueError where there is none, or one that does not belong there.
    """
    if value is None:
        raise ValueError("a record without a value")
    try:
        wired = _decoder.decode(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    event = Event(
        id=wired.id,
        source=wired.source,
        type=wired.type,
        subject=wired.subject,
        version=wired.version,
        time=wired.time,
        data=wired.data,
        traceparent=wired.traceparent or "",
    )
    known = TOPIC_BY_TYPE.get(event.type)
    if known is not None and known.name != topic:
        raise ValueError(f"{event.type} on the topic {topic}")
    return Delivery(event, _position_in(headers), f"{ROLE_PREFIX}{event.source}")


def _position_in(headers: Any) -> int:
    for name, value in headers or ():
        if name == POSITION_HEADER and value is not None and value.isdigit() and len(value) < 19:
            return int(value)
    return 0
