"""The few values that a place in a body can have, read from the body's type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from msgspec import inspect

# More than these fill no sentence; the documentation lists them.
CHOICES_MAX: Final = 20
_STEP: Final = re.compile(r"\.(?P<name>[^.\[]+)|\[[^\]]*\]")


def choices_at(body_type: type, where: str) -> Sequence[str]:
    """The values that can be sent at a place as the validator names it ("$.items[0].state"), where they are few.

    Empty where they are many, or where anything can be sent.
    """
    kinds: list[inspect.Type] = [inspect.type_info(body_type)]
    for step in _STEP.finditer(where):
        kinds = [inner for kind in kinds for inner in _inside(_bare(kind), step["name"])]
    found = [value for kind in kinds for part in _bare(kind) for value in _values(part)]
    return found if len(found) <= CHOICES_MAX else []


def _bare(kind: Any) -> Iterable[Any]:
    """A type without its annotations, and the types of a union one by one."""
    if isinstance(kind, inspect.Metadata):
        kind = kind.type
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _inside(kinds: Iterable[Any], name: str | None) -> Iterable[Any]:
    """What stands in a field, or in a list or mapping, of these types."""
    for kind in kinds:
        if isinstance(kind, inspect.StructType):
            yield from (field.type for field in kind.fields if field.encode_name == name)
        elif name is None:
            yield from (inner for inner in (getattr(kind, side, None) for side in ("item_type", "value_type")) if inner)


def _values(kind: Any) -> Iterable[str]:
    if isinstance(kind, inspect.EnumType):
        return [str(choice.value) for choice in kind.cls]
    return [str(value) for value in kind.values] if isinstance(kind, inspect.LiteralType) else []
