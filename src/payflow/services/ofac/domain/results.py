"""What screening is asked and what it answers."""

from __future__ import annotations

import msgspec

from payflow.contracts.ofac import ScreeningOutcome


class PartyName(msgspec.Struct, frozen=True):
    """A party to screen. `country` is an ISO 3166-1 alpha-2 code, where it is known."""

    name: str
    country: str | None = None


class Match(msgspec.Struct, frozen=True):
    """A listed name that is close to the party's. `score` is 0 to 100, 100 for the same name in whatever order."""

    entry_id: int
    list: str
    matched_name: str
    score: float
    programs: tuple[str, ...]


class NameResult(msgspec.Struct, frozen=True):
    """The answer for one name: `best` has one match per entry, the closest first.

    A possible match without any `best` is a name that could not be compared (empty, far too long, or in a script that
    we cannot transliterate): nobody may be paid unscreened, so a person looks at it.
    """

    outcome: ScreeningOutcome
    best: tuple[Match, ...] = ()
