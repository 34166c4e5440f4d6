"""Sanctions screening, the pure part: what a list says, how names are compared, when a name is a possible match."""

from payflow.services.ofac.domain.entries import EntryKind, ListEntry, SanctionsList
from payflow.services.ofac.domain.index import NameIndex
from payflow.services.ofac.domain.names import NormalName, normalise
from payflow.services.ofac.domain.results import Match, NameResult, PartyName
from payflow.services.ofac.domain.screening import THRESHOLD, screen_name, screen_names

__all__ = [
    "THRESHOLD",
    "EntryKind",
    "ListEntry",
    "Match",
    "NameIndex",
    "NameResult",
    "NormalName",
    "PartyName",
    "SanctionsList",
    "normalise",
    "screen_name",
    "screen_names",
]
