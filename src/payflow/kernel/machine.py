"""State machines as data: a table of states and the states that may follow each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from enum import StrEnum
from typing import Generic, TypeVar

from payflow.kernel.errors import Conflict

S = TypeVar("S", bound=StrEnum)


class IllegalTransition(Conflict):
    """The state machine has no such transition."""

    code = "ILLEGAL_TRANSITION"


class Machine(Generic[S]):
    """A transition table. A state without successors is final."""

    def __init__(self, transitions: Mapping[S, Set[S]]) -> None:
        self._next = {state: frozenset(successors) for state, successors in transitions.items()}
        unknown = {state for successors in self._next.values() for state in successors} - self._next.keys()
        if unknown:
            raise ValueError(f"states without a row in the table: {sorted(unknown)}")

    @property
    def states(self) -> frozenset[S]:
        """Every state of the table."""
        return frozenset(self._next)

    @property
    def final_states(self) -> frozenset[S]:
        """The states that are never left."""
        return frozenset(state for state, successors in self._next.items() if not successors)

    def is_final(self, state: S) -> bool:
        """Whether nothing follows this state."""
        return not self._next[state]

    def allows(self, source: S, target: S) -> bool:
        """Whether the table has this transition."""
        return target in self._next[source]

    def check(self, source: S, target: S) -> None:
        """Raises IllegalTransition unless the table has this transition."""
        if not self.allows(source, target):
            raise IllegalTransition(f"A payment in state {source} cannot become {target}.")

    def transitions(self) -> Iterator[tuple[S, S]]:
        """Every pair (source, target) of the table, in a stable order."""
        for source in sorted(self._next):
            for target in sorted(self._next[source]):
                yield source, target
