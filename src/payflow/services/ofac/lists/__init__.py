"""The sanctions lists that ship with Payflow: a snapshot for development, demo and tests (see data/ORIGIN.md)."""

from __future__ import annotations

import gzip
from datetime import date
from importlib.resources import files as resources
from typing import Final

from payflow.services.ofac.domain import SanctionsList
from payflow.services.ofac.lists.ofac_csv import MalformedList, OfacFiles, read_ofac_list

__all__ = ["MalformedList", "OfacFiles", "bundled_lists", "read_ofac_list"]

_SDN_DATE: Final = date(2024, 5, 3)
_CONSOLIDATED_DATE: Final = date(2025, 12, 19)


def bundled_lists() -> tuple[SanctionsList, SanctionsList]:
    """The SDN list and the Consolidated (non-SDN) list of the package, read anew. Raises MalformedList, OSError."""
    sdn = OfacFiles(primary=_data("sdn"), aliases=_data("alt"), addresses=_data("add"), comments=_data("sdn_comments"))
    consolidated = OfacFiles(
        primary=_data("cons_prim"),
        aliases=_data("cons_alt"),
        addresses=_data("cons_add"),
        comments=_data("cons_comments"),
    )
    return (
        read_ofac_list(list_name="OFAC-SDN", list_date=_SDN_DATE, files=sdn),
        read_ofac_list(list_name="OFAC-CONS", list_date=_CONSOLIDATED_DATE, files=consolidated),
    )


def _data(name: str) -> bytes:
    packed = resources(__package__).joinpath("data", f"{name}.csv.gz").read_bytes()
    return gzip.decompress(packed)
