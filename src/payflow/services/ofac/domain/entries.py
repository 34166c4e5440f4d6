"""What a sanctions list says: its entries, whoever published it."""

from __future__ import annotations

from datetime import date
from enum import StrEnum

import msgspec


class EntryKind(StrEnum):
    """What an entry is about."""

    INDIVIDUAL = "individual"
    ENTITY = "entity"
    VESSEL = "vessel"
    AIRCRAFT = "aircraft"


class ListEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One listed party. `entry_id` is unique within `list`.

    Names are as published: "LAST, First Middle" for individuals.
    `countries` are ISO 3166-1 alpha-2 codes, `dates_of_birth` are in EDTF ("1966-09-28", "1966~", "1966/1968").
    """

    entry_id: int
    list: str
    kind: EntryKind
    name: str
    aliases: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    dates_of_birth: tuple[str, ...] = ()


class SanctionsList(msgspec.Struct, frozen=True):
    """One published state of a list. `version` names the exact contents and the date: equal versions screen alike."""

    name: str
    list_date: date
    version: str
    entries: tuple[ListEntry, ...]
