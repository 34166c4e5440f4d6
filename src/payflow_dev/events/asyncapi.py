"""The catalogue of events as an AsyncAPI 3 document, for programs that read Payflow's events from Kafka."""

from __future__ import annotations

from typing import Any, Final

from payflow import __version__
from payflow.contracts.topics import TOPICS, Topic, consumers_of
from payflow_dev.events.published import data_schema

_DAY_MS: Final = 24 * 3600 * 1000
# The prefix that topics have in Kafka unless PAYFLOW_KAFKA_TOPIC_PREFIX says otherwise.
PREFIX: Final = "payflow."

ENVELOPE: Final[dict[str, Any]] = {
    "type": "object",
    "description": "The attributes of CloudEvents 1.0, in structured content mode; `version` is an extension.",
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "format": "uuid", "description": "The same in every delivery of this event."},
        "source": {"type": "string", "description": "The service that tells it."},
        "type": {"type": "string"},
        "subject": {"type": "string", "description": "What the event is about, such as a payment's id."},
        "time": {"type": "string", "format": "date-time", "description": "When it happened, in UTC."},
        "datacontenttype": {"const": "application/json"},
        "dataschema": {"type": "string", "description": "The form of `data`."},
        "version": {
            "type": "integer",
            "format": "int64",
            "description": "Rises with each event of one subject, so that old can be told from new.",
        },
        "traceparent": {"type": "string", "description": "W3C trace context of the work that caused the event."},
        "data": {"type": "object"},
    },
    "required": [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
        "version",
        "data",
    ],
}


def asyncapi_document() -> dict[str, Any]:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Payflow events",
            "version": __version__,
            "description": (
                "Facts that Payflow tells of, as CloudEvents 1.0. Delivered at least once, in order per key: a reader "
                "tells repeats by `id`, and old from new by `version`."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "servers": {
            "kafka": {
                "host": "localhost:9092",
                "protocol": "kafka",
                "description": "The brokers that PAYFLOW_KAFKA_BROKERS names.",
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS},
        "operations": {name: operation for topic in TOPICS for name, operation in _operations(topic).items()},
        "components": {
            "messages": {event.name: _message(topic, event.name) for topic in TOPICS for event in topic.events},
            "schemas": {"CloudEvent": ENVELOPE} | {topic.data.__name__: data_schema(topic) for topic in TOPICS},
        },
    }


def _channel(topic: Topic) -> dict[str, Any]:
    configuration = {"cleanup.policy": ["delete"], "retention.ms": topic.retention_days * _DAY_MS}
    return {
        "address": f"{PREFIX}{topic.name}",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in topic.types},
        "servers": [{"$ref": "#/servers/kafka"}],
        "bindings": {"kafka": {"topicConfiguration": configuration}},
    }


def _operations(topic: Topic) -> dict[str, dict[str, Any]]:
    owner = "anyService" if topic.owner == "*" else topic.owner
    operations = {f"{owner}.sends.{topic.name}": _operation("send", topic, topic.types)}
    heard: dict[str, list[str]] = {}
    for name in topic.types:
        for consumer in consumers_of(name):
            heard.setdefault(consumer, []).append(name)
    for consumer, names in heard.items():
        operations[f"{consumer}.receives.{topic.name}"] = _operation("receive", topic, names)
    return operations


def _operation(action: str, topic: Topic, names: tuple[str, ...] | list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in names],
    }


def _message(topic: Topic, name: str) -> dict[str, Any]:
    summary = next(event.summary for event in topic.events if event.name == name)
    own = {
        "type": {"const": name},
        "dataschema": {"const": topic.dataschema},
        "data": {"$ref": f"#/components/schemas/{topic.data.__name__}"},
    }
    return {
        "name": name,
        "summary": summary,
        "contentType": "application/cloudevents+json",
        "payload": {"allOf": [{"$ref": "#/components/schemas/CloudEvent"}, {"type": "object", "properties": own}]},
        "bindings": {"kafka": {"key": {"type": "string", "description": f"`{topic.key}`"}}},
    }
