"""Reading OFAC's files: the official layout in every oddity, and a clear refusal of anything else."""

from __future__ import annotations

from datetime import date

import msgspec
import pytest

from payflow.services.ofac.domain import EntryKind, ListEntry, SanctionsList
from payflow.services.ofac.lists import MalformedList, OfacFiles, bundled_lists, read_ofac_list

NOTHING = ",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- "


def primary_row(
    *, number: str = "36", name: str = '"ROE, Richard"', kind: str = '"individual"', remarks: str = "-0- "
) -> str:
    return f'{number},{name},{kind},"CUBA] [SDGT"{NOTHING},{remarks}\r\n'


def read(
    primary: str, *, aliases: str = "", addresses: str = "", comments: str = "", list_date: date = date(2024, 5, 3)
) -> SanctionsList:
    files = OfacFiles(
        primary=primary.encode(), aliases=aliases.encode(), addresses=addresses.encode(), comments=comments.encode()
    )
    return read_ofac_list(list_name="TEST", list_date=list_date, files=files)


def entry_with_remarks(remarks: str) -> ListEntry:
    return read(primary_row(remarks=f'"{remarks}"')).entries[0]


def test_an_entry_gathers_its_aliases_programs_countries_and_dates_of_birth() -> None:
    aliases = '36,12,"aka","DOE, John",-0- \r\n36,13,"fka","DOE, Johnny",-0- \r\n'
    addresses = '36,25,-0- ,"Havana","Cuba",-0- \r\n36,26,-0- ,-0- ,"Spain",-0- \r\n36,27,-0- ,-0- ,"Cuba",-0- \r\n'

    sanctions_list = read(primary_row(remarks='"DOB 28 Sep 1966; POB Cuba."'), aliases=aliases, addresses=addresses)

    assert sanctions_list.entries == (
        ListEntry(
            entry_id=36,
            list="TEST",
            kind=EntryKind.INDIVIDUAL,
            name="ROE, Richard",
            aliases=("DOE, John", "DOE, Johnny"),
            programs=("CUBA", "SDGT"),
            countries=("CU", "ES"),
            dates_of_birth=("1966-09-28",),
        ),
    )


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        ("-0- ", EntryKind.ENTITY),
        ('"individual"', EntryKind.INDIVIDUAL),
        ('"vessel"', EntryKind.VESSEL),
        ('"aircraft"', EntryKind.AIRCRAFT),
    ],
)
def test_an_empty_type_is_an_entity_and_the_others_are_what_they_say(written: str, kind: EntryKind) -> None:
    sanctions_list = read(primary_row(kind=written))

    assert sanctions_list.entries[0].kind is kind


@pytest.mark.parametrize(
    ("remarks", "dates"),
    [
        ("DOB 28 Sep 1966.", ("1966-09-28",)),
        ("DOB Sep 1966.", ("1966-09",)),
        ("DOB 1966; alt. DOB 1967.", ("1966", "1967")),
        ("DOB circa 1966; nationality Cuba.", ("1966~",)),
        ("DOB 1966 to 1968.", ("1966/1968",)),
        ("DOB 01 Jan 1973 to 31 Dec 1973.", ("1973-01-01/1973-12-31",)),
        ("DOB 1966; alt. DOB 1966.", ("1966",)),
        ("DOB unknown; POB Havana.", ()),
        ("DOB 28 Xyz 1966.", ()),
        ("POB Havana.", ()),
    ],
)
def test_dates_of_birth_are_read_from_the_remarks(remarks: str, dates: tuple[str, ...]) -> None:
    entry = entry_with_remarks(remarks)

    assert entry.dates_of_birth == dates


def test_a_continued_remark_is_read_as_one() -> None:
    primary = primary_row(remarks='"POB Havana; DOB 28 S"')

    sanctions_list = read(primary, comments='36,"ep 1966; nationality Cuba."\r\n')

    assert sanctions_list.entries[0].dates_of_birth == ("1966-09-28",)


def test_the_end_of_file_mark_and_doubled_quotes_are_part_of_the_layout() -> None:
    primary = primary_row(name='"ROE ""THE BOSS"", Richard"') + "\x1a"

    sanctions_list = read(primary)

    assert [entry.name for entry in sanctions_list.entries] == ['ROE "THE BOSS", Richard']


def test_a_place_without_a_country_code_is_left_out() -> None:
    sanctions_list = read(primary_row(), addresses='36,25,-0- ,-0- ,"undetermined",-0- \r\n')

    assert sanctions_list.entries[0].countries == ()


@pytest.mark.parametrize(
    ("primary", "message"),
    [
        (primary_row() + "37,too,few\r\n", "primary, line 2: 3 columns instead of 12"),
        (primary_row() + primary_row(number="x7"), "primary, line 2: 'x7' is not an entry number"),
        (primary_row() + primary_row(), "primary, line 2: entry 36 is listed twice"),
        (primary_row(kind='"planet"'), "primary, line 1: .* unknown type 'planet'"),
        (primary_row(name="-0- "), "primary, line 1: entry 36 has no name"),
        (primary_row() + primary_row(number="37", name='"open'), "primary, line 2: "),
        (primary_row(name='"RO"E'), "primary, line 1: "),
        (primary_row() + "\x1a" + primary_row(number="37"), "primary: text after the end-of-file mark"),
    ],
)
def test_a_malformed_entry_is_refused_with_its_line(primary: str, message: str) -> None:
    with pytest.raises(MalformedList, match=message):
        read(primary)


def test_an_alias_or_address_of_nobody_is_refused_with_its_line() -> None:
    with pytest.raises(MalformedList, match="aliases, line 1: entry 99 is not on the list"):
        read(primary_row(), aliases='99,1,"aka","NOBODY",-0- \r\n')
    with pytest.raises(MalformedList, match="addresses, line 1: entry 99 is not on the list"):
        read(primary_row(), addresses='99,1,-0- ,-0- ,"Cuba",-0- \r\n')


def test_text_that_is_not_utf_8_is_refused_with_its_line() -> None:
    files = OfacFiles(primary=primary_row().encode() + b'37,"\xff', aliases=b"")

    with pytest.raises(MalformedList, match="primary, line 2: not UTF-8"):
        read_ofac_list(list_name="TEST", list_date=date(2024, 5, 3), files=files)


def test_the_version_names_the_contents_the_files_and_the_date() -> None:
    same = read(primary_row()).version

    others = {
        read(primary_row(number="37")).version,
        read(primary_row(), list_date=date(2024, 5, 4)).version,
        read(primary_row(), aliases='36,12,"aka","DOE, John",-0- \r\n').version,
        read(primary_row(), comments='36,"more"\r\n').version,
    }

    assert read(primary_row()).version == same
    assert len(others | {same}) == 5


def test_the_lists_of_the_package_are_complete() -> None:
    """The counts are the publisher's, for the SDN list of 3 May 2024 and the Consolidated list of December 2025."""
    sdn, consolidated = bundled_lists()

    kinds = [entry.kind for entry in sdn.entries]
    assert {kind: kinds.count(kind) for kind in EntryKind} == {
        EntryKind.ENTITY: 6_884,
        EntryKind.INDIVIDUAL: 6_854,
        EntryKind.VESSEL: 851,
        EntryKind.AIRCRAFT: 376,
    }
    assert len(consolidated.entries) == 442
    # The file holds 18,085 aliases; a few entries hold the same one twice.
    assert 18_000 < sum(len(entry.aliases) for entry in sdn.entries) <= 18_085
    assert sum(bool(entry.dates_of_birth) for entry in sdn.entries) > 6_000


def test_an_entry_cannot_be_changed_once_read() -> None:
    entry = read(primary_row()).entries[0]

    with pytest.raises(AttributeError):
        entry.name = "SOMEBODY ELSE"
    assert msgspec.json.decode(msgspec.json.encode(entry), type=ListEntry) == entry
