"""The published form of the events: what readers outside this repository may count on, one file a topic.

`docs/events/schemas/<topic>.json` is data, not a picture of the code: it may only grow. `breaking_changes` says what
would break a reader of it; `python tools/generate_docs.py` writes growth and refuses the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import cleandoc
from typing import Any, Final

import msgspec

from payflow.contracts.topics import TOPICS, Topic

WHAT_TO_DO: Final = (
    "An event that was published may only grow: give a new field a default, or tell the new thing by a topic of its "
    "own beside this one (with `schema_version` raised) until nobody reads the old one."
)
# What a reader's program does not depend on.
_WORDS: Final = frozenset({"title", "description", "default", "examples"})

Published = Mapping[str, Any]


def published_form(topic: Topic) -> dict[str, Any]:
    """A topic as JSON: where it is, who tells it, its key, its types, and the JSON Schema of the data."""
    return {
        "topic": topic.name,
        "owner": topic.owner,
        "key": topic.key,
        "dataschema": topic.dataschema,
        "types": sorted(topic.types),
        "data": data_schema(topic),
    }


def data_schema(topic: Topic) -> dict[str, Any]:
    """The JSON Schema of a topic's data, without references out of itself."""
    schema = msgspec.json.schema(topic.data)
    found: dict[str, Any] = _resolve(schema, schema.get("$defs", {}))
    if "description" in found:
        # A docstring, whose indentation Python takes away since 3.13.
        found["description"] = cleandoc(found["description"])
    return found


def current_forms(topics: Sequence[Topic] = TOPICS) -> dict[str, dict[str, Any]]:
    """The published form of every topic of the code, by its name."""
    return {topic.name: published_form(topic) for topic in topics}


def breaking_changes(*, published: Mapping[str, Published], current: Mapping[str, Published]) -> list[str]:
    """What would break a reader of the published events, a sentence each; empty where everything only grew."""
    found: list[str] = []
    for name, before in sorted(published.items()):
        after = current.get(name)
        if after is None:
            found.append(f"Topic {name} was removed.")
            continue
        for attribute in ("owner", "key", "dataschema"):
            if before[attribute] != after[attribute]:
                found.append(f"Topic {name}: `{attribute}` was {before[attribute]} and is {after[attribute]}.")
        found += [f"Topic {name}: {type_} was removed." for type_ in before["types"] if type_ not in after["types"]]
        found += [f"Topic {name}: {change}" for change in _changes("data", before["data"], after["data"])]
    return [f"{change} {WHAT_TO_DO}" for change in found]


def _changes(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """How two JSON Schemas differ for a reader of the first."""
    if "properties" not in before or "properties" not in after:
        if _without_words(before) != _without_words(after):
            yield f"`{path}` changed its type from {_type_of(before)} to {_type_of(after)}."
        return
    fields, was_required, is_required = after["properties"], set(before["required"]), set(after["required"])
    for name, schema in before["properties"].items():
        if name not in fields:
            yield f"`{path}.{name}` was removed."
            continue
        yield from _changes(f"{path}.{name}", schema, fields[name])
        if name in was_required and name not in is_required:
            yield f"`{path}.{name}` was always there and is optional now."
        if name in is_required and name not in was_required:
            yield f"`{path}.{name}` is required now; events in the log may lack it."
    for name in fields:
        if name not in before["properties"] and name in is_required:
            yield f"`{path}.{name}` is new and required; events in the log lack it."


def _without_words(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {name: _without_words(value) for name, value in schema.items() if name not in _WORDS}
    return [_without_words(value) for value in schema] if isinstance(schema, list) else schema


def _type_of(schema: Mapping[str, Any]) -> str:
    choices = schema.get("anyOf")
    if choices:
        return " or ".join(_type_of(choice) for choice in choices)
    return str(schema.get("format") or schema.get("type") or "anything")


def _resolve(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """A schema with its references replaced by what they name."""
    if isinstance(schema, list):
        return [_resolve(entry, definitions) for entry in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "$ref" in schema:
        return _resolve(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _resolve(value, definitions) for name, value in schema.items() if name != "$defs"}
