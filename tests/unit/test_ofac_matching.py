"""Sanctions matching: what is compared, and how, on lists of a few names."""

from __future__ import annotations

from datetime import date

import pytest

from payflow.contracts.ofac import ScreeningOutcome
from payflow.services.ofac.domain import EntryKind, ListEntry, NameIndex, SanctionsList, normalise, screen_name
from payflow.services.ofac.domain.lru import Lru

CLEAR, POSSIBLE_MATCH = ScreeningOutcome.CLEAR, ScreeningOutcome.POSSIBLE_MATCH


def small_index(*entries: ListEntry, version: str = "v1") -> NameIndex:
    return NameIndex(lists=[SanctionsList("TEST", date(2024, 5, 3), version, entries)])


def listed(
    name: str, *, number: int = 1, kind: EntryKind = EntryKind.INDIVIDUAL, **others: tuple[str, ...]
) -> ListEntry:
    return ListEntry(entry_id=number, list="TEST", kind=kind, name=name, **others)


def test_one_shared_name_is_no_evidence() -> None:
    index = small_index(listed("GARCIA DURAN, Maria"), listed("MARIA", number=2, kind=EntryKind.VESSEL))

    assert screen_name(index, "Maria Novakova").outcome is CLEAR
    assert [match.entry_id for match in screen_name(index, "Maria").best] == [2]


def test_a_number_that_differs_in_one_digit_is_another_number() -> None:
    index = small_index(listed("EP-MNF 4711", kind=EntryKind.AIRCRAFT))

    assert screen_name(index, "EP MNF 4711").outcome is POSSIBLE_MATCH
    assert screen_name(index, "EP MNF 4712").outcome is CLEAR


def test_the_best_match_of_an_entry_is_told_once_and_the_closest_entry_first() -> None:
    index = small_index(
        listed("HANIYA, Ismail", number=1, aliases=("HANIYAH, Ismail", "HANIYEH, Ismael"), programs=("SDGT",)),
        listed("HANIYEH, Ismail", number=2, programs=("NS-PLC",)),
    )

    best = screen_name(index, "Ismail Haniyeh").best

    assert [(match.entry_id, match.list, match.programs) for match in best] == [
        (2, "TEST", ("NS-PLC",)),
        (1, "TEST", ("SDGT",)),
    ]
    assert best[0].score == 100.0 > best[1].score


def test_a_country_corroborates_and_never_clears() -> None:
    index = small_index(listed("HANIYA, Ismail", countries=("PS",)))

    unknown, same, other = (
        screen_name(index, "Ismail Haniyah", country).best[0].score for country in (None, "ps", "SE")
    )

    assert same > unknown == other


def test_the_threshold_is_the_callers() -> None:
    index = small_index(listed("HANIYA, Ismail"))
    score = screen_name(index, "Ismail Haniyah").best[0].score

    stricter = screen_name(index, "Ismail Haniyah", threshold=score + 1)

    assert stricter.outcome is CLEAR


def test_the_answer_for_an_equal_name_is_remembered_per_index() -> None:
    before = small_index(listed("ROE, Richard"))
    after = small_index(listed("DOE, John"), version="v2")

    first = screen_name(before, "John Doe")

    assert screen_name(before, "  JOHN   doe ") is first
    assert screen_name(after, "John Doe").outcome is POSSIBLE_MATCH
    assert before.version != after.version


def test_an_empty_list_clears_every_readable_name() -> None:
    assert screen_name(small_index(), "Anna Schmidt").outcome is CLEAR


def test_an_entry_that_could_never_be_found_is_refused() -> None:
    with pytest.raises(ValueError, match="entry 1 of TEST cannot be compared"):
        small_index(listed("陈伟"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("AL-ZAWAHIRI, Dr. Ayman", "al zawahiri dr ayman"),
        ("Sa'id O’Neil", "said oneil"),
        ("CUMEXINT, S.A.", "cumexint sa"),
        ("S. A. de C. V.", "sa de cv"),
        ("Straße Łódź Ærø", "strasse lodz aero"),
        ("Щербаков Юрий", "shcherbakov yurii"),
        ("İstanbul ılık", "istanbul ilik"),
    ],
)
def test_names_are_normalised_to_plain_latin_tokens(text: str, key: str) -> None:
    assert normalise(text).key == key


def test_a_bounded_memory_forgets_what_was_unused_longest() -> None:
    memory = Lru[str, int](2)
    memory.put("a", 1)
    memory.put("b", 2)
    memory.get("a")

    memory.put("c", 3)

    assert (memory.get("a"), memory.get("b"), memory.get("c"), len(memory)) == (1, None, 3, 2)
