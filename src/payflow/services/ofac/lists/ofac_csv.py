"""Reader of OFAC's CSV files (SDN and Consolidated): official layout, no header row, "-0-" for empty, 0x1A at the end.

Layout: https://ofac.treasury.gov/specially-designated-nationals-list-data-formats-data-schemas
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Final

import msgspec

from payflow.services.ofac.domain import EntryKind, ListEntry, SanctionsList
from payflow.services.ofac.lists.countries import COUNTRY_CODES

_KINDS: Final = {
    "": EntryKind.ENTITY,
    "individual": EntryKind.INDIVIDUAL,
    "vessel": EntryKind.VESSEL,
    "aircraft": EntryKind.AIRCRAFT,
}
_PRIMARY_COLUMNS: Final = 12
_ALIAS_COLUMNS: Final = 5
_ADDRESS_COLUMNS: Final = 6
_COMMENT_COLUMNS: Final = 2
_BIRTH: Final = re.compile(r"\bDOB ([^;]+)")
_DAY: Final = re.compile(r"(?:(?:(\d{2}) )?([A-Z][a-z]{2}) )?(\d{4})")
_MONTHS: Final = {
    month: f"{number:02}"
    for number, month in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1
    )
}


class MalformedList(ValueError):
    """A file is not in OFAC's layout. The message names the file and the line; nothing of the list may be used."""


class OfacFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The four files of one list, unpacked. `addresses` and `comments` may be empty."""

    primary: bytes
    aliases: bytes
    addresses: bytes = b""
    comments: bytes = b""


def read_ofac_list(*, list_name: str, list_date: date, files: OfacFiles) -> SanctionsList:
    """The entries of one list, in the file's order, with aliases, countries (ISO 3166 alpha-2) and dates of birth.

    Dates of birth are in EDTF (ISO 8601-2): "1966-09-28", "1966-09", "1966~" (circa), "1966/1968" (between).
    The version is the SHA-256 of the list's name, its date and the files. Raises MalformedList.
    """
    remarks = {number: text for _, number, (text,) in _rows("comments", files.comments, _COMMENT_COLUMNS)}
    rows = list(_rows("primary", files.primary, _PRIMARY_COLUMNS))
    known = {number for _, number, _ in rows}
    aliases, countries = _aliases(files.aliases, known), _countries(files.addresses, known)
    entries: dict[int, ListEntry] = {}
    for line, number, cells in rows:
        if number in entries:
            raise MalformedList(f"primary, line {line}: entry {number} is listed twice")
        kind = _KINDS.get(cells[1].casefold())
        if kind is None or not cells[0]:
            raise MalformedList(f"primary, line {line}: entry {number} has no name or the unknown type {cells[1]!r}")
        entries[number] = ListEntry(
            entry_id=number,
            list=list_name,
            kind=kind,
            name=cells[0],
            aliases=tuple(dict.fromkeys(aliases.get(number, ()))),
            programs=tuple(program.strip() for program in cells[2].split("] [")),
            countries=tuple(dict.fromkeys(countries.get(number, ()))),
            dates_of_birth=_dates_of_birth(cells[10] + remarks.get(number, "")),
        )
    return SanctionsList(list_name, list_date, _version(list_name, list_date, files), tuple(entries.values()))


def _rows(file: str, content: bytes, columns: int) -> Iterator[tuple[int, int, list[str]]]:
    """Line number, entry number and the other cells of each row, empty cells as ""."""
    # OFAC ends its files as DOS did; what follows the mark is no list.
    content, _, rest = content.partition(b"\x1a")
    if rest.strip():
        raise MalformedList(f"{file}: text after the end-of-file mark 0x1A")
    try:
        reader = csv.reader(content.decode().splitlines(keepends=True), strict=True)
        for cells in reader:
            if len(cells) != columns:
                raise MalformedList(f"{file}, line {reader.line_num}: {len(cells)} columns instead of {columns}")
            if not (cells[0].isascii() and cells[0].isdigit()):
                raise MalformedList(f"{file}, line {reader.line_num}: {cells[0][:20]!r} is not an entry number")
            yield reader.line_num, int(cells[0]), ["" if cell == "-0- " else cell for cell in cells[1:]]
    except csv.Error as error:
        raise MalformedList(f"{file}, line {reader.line_num}: {error}") from error
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MalformedList(f"{file}, line {line}: not UTF-8") from error


def _aliases(content: bytes, known: set[int]) -> Mapping[int, list[str]]:
    aliases = defaultdict(list)
    for line, number, (_, _, name, _) in _rows("aliases", content, _ALIAS_COLUMNS):
        if number not in known or not name:
            raise MalformedList(f"aliases, line {line}: entry {number} is not on the list, or the alias is empty")
        aliases[number].append(name)
    return aliases


def _countries(content: bytes, known: set[int]) -> Mapping[int, list[str]]:
    """Countries of the addresses. A place without an ISO code is left out: a country only ever corroborates."""
    countries = defaultdict(list)
    for line, number, cells in _rows("addresses", content, _ADDRESS_COLUMNS):
        if number not in known:
            raise MalformedList(f"addresses, line {line}: entry {number} is not on the list")
        code = COUNTRY_CODES.get(cells[3])
        if code is not None:
            countries[number].append(code)
    return countries


def _dates_of_birth(remarks: str) -> tuple[str, ...]:
    if "DOB " not in remarks:
        return ()
    return tuple(dict.fromkeys(filter(None, map(_edtf, _BIRTH.findall(remarks)))))


def _edtf(text: str) -> str:
    """One date of birth in EDTF, "" where the remark is not a date (the remarks are free text)."""
    text = text.rstrip(" .")
    circa = "~" if text.startswith("circa ") else ""
    days = []
    for part in text.removeprefix("circa ").split(" to "):
        match = _DAY.fullmatch(part)
        if match is None or (match[2] and match[2] not in _MONTHS):
            return ""
        day, month, year = match.groups()
        days.append("-".join(filter(None, (year, _MONTHS.get(month or ""), day))) + circa)
    return "/".join(days)


def _version(list_name: str, list_date: date, files: OfacFiles) -> str:
    digest = hashlib.sha256(f"{list_name}\n{list_date.isoformat()}\n".encode())
    for content in (files.primary, files.aliases, files.addresses, files.comments):
        # Each part is hashed first, so that text moved from one file to the next makes another version.
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()
