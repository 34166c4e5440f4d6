"""Does a name stand on a sanctions list? A score from 0 to 100 for each listed name that shares enough with it.

The score is the geometric mean of two coverages: how much of the party's name the listed name explains, and how much of
the listed name the party's explains. Each token counts by what it tells (its weight) and by how alike it is.

Words around a listed name lower that score, so parts of a name (consecutive tokens) are compared by themselves as well:
nobody hides by adding "rent April flat twelve" to a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil, log, sqrt
from typing import Final, NamedTuple

from payflow.contracts.ofac import ScreeningOutcome
from payflow.services.ofac.domain.entries import EntryKind
from payflow.services.ofac.domain.index import ListedName, NameIndex, TokenHits
from payflow.services.ofac.domain.names import NormalName, heavy_tokens, normalise, other_spellings
from payflow.services.ofac.domain.results import Match, NameResult, PartyName

# Measured on 2,000 entries of the SDN list: from here on up, 97 % of the names with one typo (in a token of three or
# more letters) and 98 % of those without middle names are found, and 1.3 % of 4,030 pairs of frequent given names and
# surnames of the world, those of the listed among them (0.1 % of 3,000 pairs not looked at while choosing). At 86 the
# typos found fall to 94 %; at 78 the pairs rise to 2.2 %.
THRESHOLD: Final = 82.0
# People leave out middle names and patronymics. At 0.3 of its weight a missing one keeps 98 % above the threshold, at
# 0.5 only 94 %, at full weight 69 %.
_LATER_GIVEN_NAME: Final = 0.3
# The second of two surnames is left out too (Nicolas Maduro is listed as Maduro Moros), yet it tells families apart. At
# 0.6 a missing one keeps 78 % above the threshold; at 0.5 every Maria Garcia is within a point of Maria Garcia Duran.
_LATER_SURNAME: Final = 0.6
# A listed name that stands whole in a longer one ("Bank Melli Iran, London Branch") stays a match: what surrounds it
# counts 0.4. It must tell half as much again as singles out one name, or Tariq Aziz Qureshi would be Tariq Aziz.
_SURROUNDING: Final = 0.4
_WHOLE_NAME_TELLS: Final = 1.5
# "Mohammed Rahman" is near a listed name by chance alone: a difference from the listed name counts 30 % more for each
# nat that the shared tokens tell less than it takes to single out one name of the list. An equal name stays at 100.
_CHANCE: Final = 0.3
# The same country corroborates a near match. Another one never clears anybody: the lists' addresses are old and few.
_COUNTRY_BONUS: Final = 3.0
# Written together or apart ("Abd Rahman", "Abdrahman"): the same name, less certainly so.
_OTHER_SPELLING: Final = 0.95
# Weights go from 3.8 to 10.4 nats: two names that share a smaller part of their tokens do not reach 72. This bounds the
# work on long names; parts of them are compared by themselves.
_SHARED_PART_MIN: Final = 0.28
# A part of a name is a match only where it is nearer than a whole name must be, and tells a quarter more than singles
# out one name. Measured on 300 names each of three, four and five frequent Spanish, Arabic and English names: 1 to 4 %
# are stopped (at 1.4 0 to 2 %, but Ismail Haniyeh with one more word is missed). Tariq Aziz Qureshi (1.23) stays clear.
_PART_SCORE_MIN: Final = 85.0
_PART_TELLS: Final = 1.25
# Few people have seven names: longer names hold somebody and something else, and there any part is taken for a person.
_LONG_NAME: Final = 7
# The most tokens of a part: 98 % of the listed names have no more.
_PART_MAX: Final = 6
# Work on parts is bounded, and what is beyond the bounds goes to a person: the longest listed name has 17 heavy tokens.
_TOKENS_MAX: Final = 32
# Names found by all tokens together: the listed names find 4,100 at most, only spellings of one name in a row more.
# Tokens compared with found names take 2 microseconds each: up to 9,800 for a listed name, 4,000 for five Arabic names.
_NAMES_FOUND_MAX: Final = 5_000
_WHOLE_WORK_MAX: Final = 10_000
_PARTS_WORK_MAX: Final = 3_000
# An officer reads a few matches; more of them would only say that the name is frequent.
_MATCHES_MAX: Final = 10
_NAME_CACHE_SIZE: Final = 16_384

# The best match of each entry, by list and entry id.
_Best = dict[tuple[str, int], Match]

_CLEAR: Final = NameResult(ScreeningOutcome.CLEAR)
_NOT_COMPARABLE: Final = NameResult(ScreeningOutcome.POSSIBLE_MATCH)


class _Likeness(NamedTuple):
    """How alike two names are (0 to 1), how much their shared tokens tell (nats), and whether all listed tokens are."""

    score: float
    told: float
    is_whole: bool


_normalise = lru_cache(maxsize=_NAME_CACHE_SIZE)(normalise)


def screen_name(index: NameIndex, name: str, country: str | None = None, *, threshold: float = THRESHOLD) -> NameResult:
    """Listed names close to this one: POSSIBLE_MATCH where a score reaches `threshold` (0 to 100), else CLEAR.

    `country` (ISO 3166-1 alpha-2) only ever adds to a score. A name that cannot be compared is a POSSIBLE_MATCH with
    no `best`.
    Answers are remembered per index, hence per list version, by the normalised name.
    """
    normal = _normalise(name)
    if not normal.is_readable:
        return _NOT_COMPARABLE
    key = (normal.key, country, threshold)
    result = index.results.get(key)
    if result is None:
        result = _search(index, normal, country, threshold)
        index.results.put(key, result)
    return result


def screen_names(index: NameIndex, names: Sequence[PartyName], *, threshold: float = THRESHOLD) -> list[NameResult]:
    """One result per party, in the order given: see `screen_name`."""
    return [screen_name(index, party.name, party.country, threshold=threshold) for party in names]


def _search(index: NameIndex, name: NormalName, country: str | None, threshold: float) -> NameResult:
    heavy = frozenset(heavy_tokens(name.tokens))
    positions = [position for position, token in enumerate(name.tokens) if token in heavy]
    if len(positions) > _TOKENS_MAX:
        return _NOT_COMPARABLE
    hits = [_hits_of_all_spellings(index, name.tokens, position) for position in positions]
    # A repeated token counts once in the whole name; in parts it stands wherever it was written.
    query = list({name.tokens[position]: found for position, found in zip(positions, hits, strict=True)}.values())
    if sum(len(found.names) for found in query) > _NAMES_FOUND_MAX:
        return _NOT_COMPARABLE
    candidates = _candidates(index, query)
    if len(candidates) * len(query) > _WHOLE_WORK_MAX:
        return _NOT_COMPARABLE
    best: _Best = {}
    for number in candidates:
        listed = index.names[number]
        _note(best, listed, _likeness(index, query, listed).score, country, threshold)
    if not _search_parts(index, hits, best, country, max(threshold, _PART_SCORE_MIN)) and not best:
        return _NOT_COMPARABLE
    if not best:
        return _CLEAR
    ranked = sorted(best.values(), key=lambda match: (-match.score, match.list, match.entry_id))
    return NameResult(ScreeningOutcome.POSSIBLE_MATCH, tuple(ranked[:_MATCHES_MAX]))


def _search_parts(
    index: NameIndex, hits: Sequence[TokenHits], best: _Best, country: str | None, threshold: float
) -> bool:
    """Compare the parts of a name (two to six consecutive heavy tokens); False where there were too many to compare."""
    if len(hits) < 3:
        return True
    work = 0
    for first, last in _part_ends(len(hits)):
        part = hits[first : last + 1]
        needed = _PART_TELLS * index.weight_max
        may_tell = sum(_tells(index, token) for token in part if token.names) >= needed
        # Both ends are in the listed name; a part with more around it is only less like it.
        if not may_tell and len(hits) < _LONG_NAME:
            continue
        for number in part[0].names & part[-1].names:
            listed = index.names[number]
            is_person = listed.entry.kind is EntryKind.INDIVIDUAL
            if not may_tell and not is_person:
                continue
            work += len(part)
            if work > _PARTS_WORK_MAX:
                return False
            found = _likeness(index, part, listed)
            is_enough = found.is_whole and found.told >= needed
            if is_enough or (is_person and (found.told >= needed or len(hits) >= _LONG_NAME)):
                _note(best, listed, found.score, country, threshold)
    return True


def _part_ends(tokens: int) -> list[tuple[int, int]]:
    return [(first, last) for first in range(tokens) for last in range(first + 1, min(first + _PART_MAX, tokens))]


def _note(best: _Best, listed: ListedName, likeness: float, country: str | None, threshold: float) -> None:
    """Remember the listed name where it is near enough, and the nearest so far of its entry."""
    score, entry = 100 * likeness, listed.entry
    if country is not None and country.upper() in entry.countries:
        score = min(100.0, score + _COUNTRY_BONUS)
    known = best.get((entry.list, entry.entry_id))
    if score >= threshold and (known is None or score > known.score):
        best[entry.list, entry.entry_id] = Match(
            entry.entry_id, entry.list, listed.text, round(score, 1), entry.programs
        )


def _hits_of_all_spellings(index: NameIndex, tokens: tuple[str, ...], position: int) -> TokenHits:
    hits = index.hits(tokens[position])
    for spelling in other_spellings(tokens, position):
        other = index.hits(spelling)
        likeness = {similar: _OTHER_SPELLING * alike for similar, alike in other.likeness.items()}
        for similar, alike in hits.likeness.items():
            likeness[similar] = max(alike, likeness.get(similar, 0.0))
        hits = TokenHits(likeness, hits.names | other.names, hits.weight)
    return hits


def _candidates(index: NameIndex, query: Sequence[TokenHits]) -> Sequence[int] | set[int]:
    """Numbers of the listed names that share at least two tokens (of a long name more) with the query.

    One shared token is no evidence, or Maria would be everybody; a lone token is compared with lone tokens only.
    """
    if len(query) == 1:
        return [number for number in query[0].names if len(index.names[number].tokens) == 1]
    needed = max(2, ceil(_SHARED_PART_MIN * len(query)))
    # shared[n]: names found in more than n of the sets so far. Small sets first, so that the many bearers of a frequent
    # name are only looked up, never copied: who first comes up among the last sets can no longer be in enough of them.
    shared: list[set[int]] = [set() for _ in range(needed)]
    for position, names in enumerate(sorted((hits.names for hits in query), key=len)):
        for level in range(needed - 1, 0, -1):
            shared[level] |= shared[level - 1] & names
        if position <= len(query) - needed:
            shared[0] |= names
    return shared[-1]


def _likeness(index: NameIndex, query: Sequence[TokenHits], listed: ListedName) -> _Likeness:
    """How alike the names are."""
    alike: dict[str, float] = {}
    explained = shared = surrounding = told = 0.0
    for hits in query:
        score, weight = _best_likeness(index, hits, listed, alike)
        if score:
            explained += weight * score
            shared += weight
            told += _tells(index, hits)
        else:
            surrounding += weight
    if len(alike) < 2 and len(query) > 1:
        return _Likeness(0.0, told, False)
    is_whole = len(alike) == len(listed.tokens)
    if is_whole and told >= _WHOLE_NAME_TELLS * index.weight_max:
        surrounding *= _SURROUNDING
    covered = sqrt(explained / (shared + surrounding) * _coverage(index, listed, alike))
    score = 1 - (1 - covered) * (1 + _CHANCE * max(0.0, index.weight_max - told))
    return _Likeness(score, told, is_whole)


def _tells(index: NameIndex, hits: TokenHits) -> float:
    return index.weight_max - log(len(hits.names))


def _best_likeness(
    index: NameIndex, hits: TokenHits, listed: ListedName, alike: dict[str, float]
) -> tuple[float, float]:
    """The likeness of one token of the query to its best counterpart, and its weight; notes in `alike` what it is like.

    The weight is the counterpart's: a misspelt Mohamed tells as little as the Mohammed it stands for.
    """
    score, weight = 0.0, hits.weight
    for token in listed.tokens:
        found = hits.likeness.get(token, 0.0)
        if found > alike.get(token, 0.0):
            alike[token] = found
        if found > score:
            score, weight = found, index.weights[token]
    return score, weight


def _coverage(index: NameIndex, listed: ListedName, alike: Mapping[str, float]) -> float:
    """The part of the listed name that the query explains."""
    explained = whole = 0.0
    for position, token in enumerate(listed.tokens):
        weight = index.weights[token] * _importance(position, listed.surnames)
        whole += weight
        explained += weight * alike.get(token, 0.0)
    return explained / whole


def _importance(position: int, surnames: int) -> float:
    """Of an individual's names the first surname and the first given name count in full, later ones less."""
    if not surnames or position in (0, surnames):
        return 1.0
    return _LATER_SURNAME if position < surnames else _LATER_GIVEN_NAME
