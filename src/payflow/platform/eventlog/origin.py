"""Whether a stored event can be read, and whether its writer may tell of such a thing."""

from __future__ import annotations

from typing import Final

import msgspec

from payflow.contracts.topics import TOPIC_BY_TYPE
from payflow.kernel.envelope import Event

ROLE_PREFIX: Final = "payflow_"
_BIGINT_MAX: Final = 2**63 - 1
_decoder: Final = msgspec.msgpack.Decoder(list[Event])


def read_events(encoded: bytes) -> list[Event]:
    """The events of a stored batch. Raises ValueError when it cannot be read."""
    try:
        return _decoder.decode(encoded)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def flaw_of(event: Event, *, written_by: str) -> str | None:
    """Why an event is not to be believed; None for a genuine one.

    `written_by` is the database role that inserted it, which no service chooses: it must be the role of the event's
    source, and the source must own the event's topic, or any service could tell that a payment was rejected.
    """
    service = written_by.removeprefix(ROLE_PREFIX)
    if not written_by.startswith(ROLE_PREFIX) or event.source != service:
        return f"forged: {written_by} wrote it in the name of {event.source!r}"
    topic = TOPIC_BY_TYPE.get(event.type)
    if topic is None or topic.owner not in ("*", service):
        return f"forged: {service} does not own {event.type!r}"
    if abs(event.version) > _BIGINT_MAX:
        return "unreadable: its version is no 64-bit number"
    return None
