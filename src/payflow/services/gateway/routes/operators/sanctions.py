"""Sanctions lists: which are loaded, and whether a name is close to one on them."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec
from litestar import get, post

from payflow.contracts.gateway import Role
from payflow.contracts.ofac import DescribeLists, Ofac, ScreeningOutcome, ScreenName
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.operators.reviews import Match
from payflow.services.gateway.routes.operators.shared import Country, PersonName, open_to
from payflow.services.gateway.routes.services import FromServices


class ScreenBody(Body):
    """A name to look up. `country` (ISO 3166, two letters) tells namesakes apart."""

    name: PersonName
    country: Country | None = None


class Screening(msgspec.Struct, kw_only=True):
    """POSSIBLE_MATCH with the listed names that are close, or CLEAR."""

    outcome: ScreeningOutcome
    matches: list[Match]
    list_version: str


class SanctionsLists(msgspec.Struct, kw_only=True):
    """The lists in use: their publisher's date, how many entries and names they have, and when they were loaded."""

    list_version: str
    list_date: str
    entries: int
    names: int
    loaded_at: datetime


_SCREEN: Final = StrictReader(ScreenBody, required=("name",))


@post(
    "/sanctions/screen",
    status_code=200,
    guards=[open_to(Role.COMPLIANCE)],
    tags=["Sanctions"],
    summary="Screen a name",
    opt={"body": ScreenBody},
)
async def screen_name(request: AnyRequest, services: FromServices) -> Screening:
    """The same comparison that payments go through. Opens no case."""
    body = await read_json(request, _SCREEN)
    query = ScreenName(name=body.name, country=body.country)
    return msgspec.convert(first(await services.client(Ofac).screen_names([query])), Screening, from_attributes=True)


@get("/sanctions/lists", guards=[open_to(Role.COMPLIANCE)], tags=["Sanctions"], summary="Which lists are loaded")
async def get_lists(services: FromServices) -> SanctionsLists:
    """The lists that names are compared with at present."""
    lists = first(await services.client(Ofac).describe_lists([DescribeLists()]))
    return msgspec.convert(lists, SanctionsLists, from_attributes=True)


HANDLERS = [screen_name, get_lists]
