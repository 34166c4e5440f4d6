"""Whether the server is on its way out: no new connection is taken, and what is under way is finished."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_KEY: Final = "payflow.draining"


class Draining:
    """One server's state. `is_gentle`: idle connections are given a moment in which a last request may come."""

    __slots__ = ("is_gentle", "is_on")

    def __init__(self) -> None:
        self.is_on = False
        self.is_gentle = False

    def tell(self, scope: Any) -> None:
        """Let the application of this request ask."""
        scope[_KEY] = self


def is_draining(scope: Mapping[str, Any]) -> bool:
    """Whether the process that answers this request is about to end: what could go on for minutes should end, too."""
    draining = scope.get(_KEY)
    return draining is not None and draining.is_on
