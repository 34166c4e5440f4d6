"""docs/events: the catalogue of events for people."""

from __future__ import annotations

import inspect
from typing import Any, Final

from payflow.contracts.topics import TOPICS, Topic, consumers_of
from payflow_dev.events.published import data_schema

_HEAD: Final = """\
# Events

What Payflow tells of, for readers inside and outside. An event is a fact that has happened; it carries what a reader
needs, and never a secret, a one-time code, a token or a full account number.

Every event has the attributes of [CloudEvents 1.0](https://cloudevents.io). In Kafka it is one JSON object
(`application/cloudevents+json`, structured content mode):

```json
{
  "specversion": "1.0",
  "id": "0198c0de-7a11-7c3e-8f00-3d6d1c0b5a01",
  "source": "confirm",
  "type": "payment.completed",
  "subject": "0198c0de-79f0-7b22-9a51-6f4be2a7c9d3",
  "time": "2026-03-02T12:00:00Z",
  "datacontenttype": "application/json",
  "dataschema": "urn:payflow:event:PaymentChanged:1",
  "version": 3,
  "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
  "data": {"payment_id": "0198c0de-79f0-7b22-9a51-6f4be2a7c9d3", "state": "COMPLETED"}
}
```

(`data` is shortened.)

- **Delivery** is at least once: the same event may come again, always with the same `id`.
- **Order** is kept per key: all events of one payment come in the order in which they happened. Across keys, and across
  topics, it is not promised. `version` rises with each event of one `subject`.
- **Change**: an event that was published only grows. New fields may appear; ignore those that you do not know. The
  published form is in [schemas](schemas), as JSON Schema; a test refuses what would break a reader of it.
- **Topics** in Kafka are named with a prefix, `payflow.` unless `PAYFLOW_KAFKA_TOPIC_PREFIX` says otherwise:
  `payflow.payments`. [How to run with Kafka](../howto/run-with-kafka.md).

For programs: [asyncapi.json](asyncapi.json) (AsyncAPI 3).

Generated from `src/payflow/contracts/topics.py` by `python tools/generate_docs.py`.

| type | topic | key | told by | heard by | kept in the topic |
|---|---|---|---|---|---|
"""


def index_page() -> str:
    """docs/events/README.md: every event type in one table."""
    rows = [
        f"| `{event.name}` | [{topic.name}]({topic.name}.md) | `{topic.key}` | {_owner(topic)} "
        f"| {', '.join(consumers_of(event.name))} | {topic.retention_days} days |"
        for topic in TOPICS
        for event in topic.events
    ]
    return _HEAD + "\n".join(rows) + "\n"


def topic_page(topic: Topic) -> str:
    """docs/events/<topic>.md: the topic's types and the fields of their data."""
    lines = [
        f"# Events of `{topic.name}`",
        "",
        f"Told by {_owner(topic)}, keyed by `{topic.key}`, kept for {topic.retention_days} days. "
        f"Data: `{topic.dataschema}` ([JSON Schema](schemas/{topic.name}.json)). [All events](README.md).",
        "",
        "| type | what happened | heard by |",
        "|---|---|---|",
        *(f"| `{event.name}` | {event.summary} | {', '.join(consumers_of(event.name))} |" for event in topic.events),
        "",
        "## Data",
        "",
        (inspect.getdoc(topic.data) or "").replace("|", "\\|"),
        "",
        "| field | type | |",
        "|---|---|---|",
    ]
    schema = data_schema(topic)
    required = set(schema["required"])
    for name, field in schema["properties"].items():
        lines.append(f"| `{name}` | {_type_of(field)} | {'always' if name in required else 'may be absent'} |")
    return "\n".join(lines) + "\n"


def _owner(topic: Topic) -> str:
    return "any service" if topic.owner == "*" else topic.owner


def _type_of(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type_of(choice) for choice in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_type_of(field['items'])}"
    if field.get("type") == "object":
        values = field.get("additionalProperties")
        return f"object of {_type_of(values)} by name" if isinstance(values, dict) else "object"
    return str(field.get("format") or field.get("type") or "anything")
