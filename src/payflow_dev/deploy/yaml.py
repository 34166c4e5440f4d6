"""Writes YAML: maps, lists, texts, numbers and truth values, and nothing else of what YAML can say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

Block: TypeAlias = dict[str, Any]

# Texts that every reader takes for the text that they are.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def dump(value: Mapping[str, Any]) -> str:
    """A map as a YAML document. Texts are quoted where a reader could take them for something else."""
    return "".join(f"{line}\n" for line in _map(value))


def _map(value: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            lines += [f"{_scalar(key)}:", *(f"  {line}" for line in _map(item))]
        elif _is_list(item) and not _fits_a_line(item):
            lines += [f"{_scalar(key)}:", *(f"  {line}" for line in _items(item))]
        else:
            lines.append(f"{_scalar(key)}: {_scalar(item)}")
    return lines


def _items(items: Sequence[Any]) -> list[str]:
    """The lines of a list, the first of each item with its dash."""
    lines: list[str] = []
    for item in items:
        inner = _map(item) if isinstance(item, Mapping) and item else [_scalar(item)]
        lines += [f"{'- ' if number == 0 else '  '}{line}" for number, line in enumerate(inner)]
    return lines


def _scalar(value: Any) -> str:
    """A value on one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_scalar(item)}" for key, item in value.items()) + "}"
    if _is_list(value):
        return "[" + ", ".join(_scalar(item) for item in value) + "]"
    if isinstance(value, str):
        is_plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        return value if is_plain else json.dumps(value, ensure_ascii=False)
    return str(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _fits_a_line(items: Sequence[Any]) -> bool:
    return len(_scalar(items)) <= 90 and not any(isinstance(item, Mapping) for item in items)
