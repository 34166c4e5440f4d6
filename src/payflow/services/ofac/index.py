"""The sanctions lists in memory: read and indexed once per machine, by the services' parent before it forks.

`app.py` asks for them while it is imported. That takes 0.7 s and 40 MB, which all forks share as long as they do not
write there (`gc.freeze` keeps the collector away). No thread, loop or connection is made here.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from functools import cache
from typing import Final

import msgspec
from prometheus_client import Gauge

from payflow.services.ofac.domain import NameIndex
from payflow.services.ofac.lists import bundled_lists

_list_date: Final = Gauge(
    "payflow_sanctions_list_timestamp_seconds", "The date of a sanctions list in use, at midnight UTC.", ["list"]
)


class LoadedLists(msgspec.Struct, frozen=True, kw_only=True):
    """The lists in use. `list_date` names each list with its date; `entries` counts listed parties."""

    index: NameIndex
    list_date: str
    entries: int


@cache
def loaded_lists() -> LoadedLists:
    """The lists that this process screens against, read when first asked for. Raises MalformedList, OSError."""
    lists = bundled_lists()
    for each in lists:
        _list_date.labels(each.name).set(datetime.combine(each.list_date, time(), UTC).timestamp())
    return LoadedLists(
        index=NameIndex(lists=lists),
        list_date=", ".join(f"{each.name} {each.list_date.isoformat()}" for each in lists),
        entries=sum(len(each.entries) for each in lists),
    )
