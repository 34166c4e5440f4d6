"""An index over the names of the lists: from a token to the names that hold it or one like it, all others unseen."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import log
from sys import intern
from typing import Final, NamedTuple

from rapidfuzz.distance import OSA

from payflow.services.ofac.domain.entries import EntryKind, ListEntry, SanctionsList
from payflow.services.ofac.domain.lru import Lru
from payflow.services.ofac.domain.names import heavy_tokens, normalise, skeleton
from payflow.services.ofac.domain.results import NameResult

# One wrong letter costs this much over the token's length: 0.60 is left at 3 letters, 0.80 at 6, 0.88 at 10. Short
# names lie one letter apart from many others (Chen, Chan, Wen), long ones from few.
_TYPO_COST: Final = 1.2
# Same consonants, other vowels (Muhammad, Mohamed): as good as one typo in a long token, whatever the length.
_SAME_SOUND: Final = 0.88
# Two sounds fit too many names (Sami, Simo, Sam); from three on a skeleton tells something.
_SKELETON_LENGTH_MIN: Final = 3
# Same skeleton and still another name: Mohammed and Mahmoud are 0.50 alike by letters, Muhammad and Mohamed 0.62.
_SAME_SOUND_LIKENESS_MIN: Final = 0.55
# Two letters with one wrong have little in common; beyond 40 letters a token is no name, and work grows with length.
_FUZZY_LENGTH_MIN: Final = 3
_FUZZY_LENGTH_MAX: Final = 40
# 20 bits number a token, the 40 above them its spelling: two spellings that share those by chance cost a comparison, no
# more. Together 60 bits, the most that Python keeps in two digits.
_TOKEN_BITS: Final = 20
_TOKEN_MASK: Final = (1 << _TOKEN_BITS) - 1
_SPELLING_MASK: Final = ((1 << 60) - 1) ^ _TOKEN_MASK

# Given names and surnames repeat, so a few tokens serve most names. 10 MB, were they the most frequent of the lists.
_TOKEN_CACHE_SIZE: Final = 2_048
# With the names' own cache 9 MB when full.
_RESULT_CACHE_SIZE: Final = 16_384


class ListedName(NamedTuple):
    """A name of an entry (its own or an alias) as published, and its heavy tokens.

    Of an individual the first `surnames` of them are surnames, the others given names; else it is 0.
    """

    entry: ListEntry
    text: str
    tokens: tuple[str, ...]
    surnames: int


class TokenHits(NamedTuple):
    """What one token of a query finds: listed tokens with their likeness (0 to 1), and all names that hold any of them.

    `weight` is how much the token itself tells, in nats.
    """

    likeness: Mapping[str, float]
    names: frozenset[int]
    weight: float


class NameIndex:
    """The names of one or more lists, ready to be searched. Built once per list version; then only caches change."""

    def __init__(self, *, lists: Sequence[SanctionsList]) -> None:
        """Takes 0.45 s and 19 MB for the 32,000 names of OFAC's two lists. `version` names the contents of all lists.

        Raises ValueError for an entry whose own name holds nothing to compare: it could never be found.
        """
        self.version: Final = _joint_version(lists)
        self.names: Final[list[ListedName]] = []
        self._postings: Final[defaultdict[str, list[int]]] = defaultdict(list)
        for sanctions_list in lists:
            for entry in sanctions_list.entries:
                self._add(entry)
        # What a token tells that no listed name holds: at least as much as one that a single name holds.
        self.weight_max: Final = log(1 + len(self.names))
        # Inverse document frequency: a shared Qadhafi says much, a shared Muhammad little.
        self.weights: Final = {token: log(1 + len(self.names) / len(held)) for token, held in self._postings.items()}
        self._tokens: Final = list(self._postings)
        self._spellings: Final = _spelling_table(self._tokens)
        self._by_skeleton: Final = _skeleton_table(self._tokens)
        self._hits: Final[Lru[str, TokenHits]] = Lru(_TOKEN_CACHE_SIZE)
        self.results: Final[Lru[tuple[str, str | None, float], NameResult]] = Lru(_RESULT_CACHE_SIZE)

    def hits(self, token: str) -> TokenHits:
        """Listed tokens equal to this one, one typo away, or of the same consonants, and the names that hold them."""
        found = self._hits.get(token)
        if found is None:
            found = self._find(token)
            self._hits.put(token, found)
        return found

    def _add(self, entry: ListEntry) -> None:
        seen = set()
        for text in (entry.name, *entry.aliases):
            tokens, surnames = _listed_tokens(text, entry.kind)
            if not tokens and text == entry.name:
                raise ValueError(f"the name of entry {entry.entry_id} of {entry.list} cannot be compared")
            if tokens and tokens not in seen:
                seen.add(tokens)
                for token in tokens:
                    self._postings[token].append(len(self.names))
                self.names.append(ListedName(entry, text, tokens, surnames))

    def _find(self, token: str) -> TokenHits:
        likeness: dict[str, float] = {}
        # A number that differs in one digit is another number.
        if _FUZZY_LENGTH_MIN <= len(token) <= _FUZZY_LENGTH_MAX and token.isalpha():
            likeness = self._one_typo(token)
            for other in self._same_sound(token):
                likeness[other] = max(_SAME_SOUND, likeness.get(other, 0.0))
        if token in self.weights:
            likeness[token] = 1.0
        names = frozenset(number for similar in likeness for number in self._postings[similar])
        return TokenHits(likeness, names, self.weights.get(token, self.weight_max))

    def _one_typo(self, token: str) -> dict[str, float]:
        """Listed tokens with one letter added, missing, changed, or swapped with its neighbour, and their likeness."""
        return {
            other: 1 - _TYPO_COST / max(len(token), len(other))
            for other in map(self._tokens.__getitem__, self._spelled_alike(token))
            if other.isalpha() and OSA.distance(token, other, score_cutoff=1) <= 1
        }

    def _same_sound(self, token: str) -> list[str]:
        return [
            other
            for other in self._by_skeleton.get(skeleton(token), ())
            if OSA.normalized_similarity(token, other) >= _SAME_SOUND_LIKENESS_MIN
        ]

    def _spelled_alike(self, token: str) -> Iterator[int]:
        """Numbers of the tokens that share a spelling when at most one letter is left out on either side."""
        for spelling in _spellings(token):
            key = hash(spelling) & _SPELLING_MASK
            at = bisect_left(self._spellings, key)
            while at < len(self._spellings) and self._spellings[at] & _SPELLING_MASK == key:
                yield self._spellings[at] & _TOKEN_MASK
                at += 1


def _listed_tokens(text: str, kind: EntryKind) -> tuple[tuple[str, ...], int]:
    """The heavy tokens of a published name, and how many of an individual's are surnames."""
    surname, comma, given = text.partition(",")
    if not comma or kind is not EntryKind.INDIVIDUAL:
        return tuple(map(intern, heavy_tokens(normalise(text).tokens))), 0
    surnames = normalise(surname).tokens
    tokens = tuple(map(intern, heavy_tokens(surnames + normalise(given).tokens)))
    return tokens, len(heavy_tokens(surnames))


def _joint_version(lists: Sequence[SanctionsList]) -> str:
    return hashlib.sha256("\n".join(sorted(f"{each.name} {each.version}" for each in lists)).encode()).hexdigest()


def _spellings(token: str) -> list[str]:
    """The token with each of its letters left out, and whole."""
    return [token[:at] + token[at + 1 :] for at in range(len(token) + 1)]


def _spelling_table(tokens: Sequence[str]) -> array[int]:
    """Every spelling of every token as sorted numbers: hash in the upper bits, the token's number in the lower.

    A dictionary would hold 200,000 strings (25 MB); this holds 8 bytes each. Nothing of it outlives the process, so
    Python's own hash, which differs from process to process, is good enough.
    """
    if len(tokens) > _TOKEN_MASK:
        raise ValueError(f"{len(tokens)} different tokens; the index numbers at most {_TOKEN_MASK}")
    table = [
        hash(spelling) & _SPELLING_MASK | number
        for number, token in enumerate(tokens)
        if _FUZZY_LENGTH_MIN <= len(token) <= _FUZZY_LENGTH_MAX
        for spelling in _spellings(token)
    ]
    table.sort()
    return array("Q", table)


def _skeleton_table(tokens: Sequence[str]) -> dict[str, tuple[str, ...]]:
    table = defaultdict(list)
    for token in tokens:
        if len(token) >= _FUZZY_LENGTH_MIN and token.isalpha():
            table[skeleton(token)].append(token)
    return {sound: tuple(similar) for sound, similar in table.items() if len(sound) >= _SKELETON_LENGTH_MIN}
