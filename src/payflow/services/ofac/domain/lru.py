"""A bounded memory of answers."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Lru(Generic[K, V]):
    """Keeps the `size_max` values used last. A dictionary remembers its order: its first key is unused longest."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._values: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """The value, now the one used last, or None."""
        value = self._values.pop(key, None)
        if value is not None:
            self._values[key] = value
        return value

    def put(self, key: K, value: V) -> None:
        """Remember the value; beyond the bound, forget the one unused longest."""
        self._values[key] = value
        if len(self._values) > self._size_max:
            del self._values[next(iter(self._values))]

    def __len__(self) -> int:
        return len(self._values)
