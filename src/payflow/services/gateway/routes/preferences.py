"""How a customer wants to be written to."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from litestar import get, put

from payflow.contracts.notification import GetPreferences, Notification, Preferences
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.security import FOR_CUSTOMERS, customer_of
from payflow.services.gateway.routes.services import FromServices

Language = Annotated[str, msgspec.Meta(min_length=2, max_length=16, examples=["de"])]
Channels = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=16, examples=["push"])]], msgspec.Meta(max_length=8)
]


class PreferencesBody(Body):
    """Language, and channels in the order in which they are tried. No channels: the installation's."""

    language: Language = "en"
    channels: Channels = msgspec.field(default_factory=list)


class MessagePreferences(msgspec.Struct, kw_only=True):
    """Language, and channels in the order in which they are tried."""

    language: str
    channels: list[str]


_READER: Final = StrictReader(PreferencesBody)


@get("/preferences", tags=["Messages"], summary="Look at own preferences", opt=FOR_CUSTOMERS)
async def get_preferences(request: AnyRequest, services: FromServices) -> MessagePreferences:
    """How the signed-in customer is written to: the language, and the channels that a message may go by.

    A message goes by the first channel, and by the next one where that fails. Without channels the installation's own
    order holds.
    """
    query = GetPreferences(customer_id=customer_of(request.scope))
    return _shown(first(await services.client(Notification).get_preferences([query])))


@put(
    "/preferences",
    tags=["Messages"],
    summary="Set own preferences",
    opt={**FOR_CUSTOMERS, "body": PreferencesBody, "errors": ("UNKNOWN_PREFERENCE",)},
)
async def set_preferences(request: AnyRequest, services: FromServices) -> MessagePreferences:
    """Replace the signed-in customer's preferences. A channel or language that is not there is UNKNOWN_PREFERENCE."""
    customer_id = customer_of(request.scope)
    body = await read_json(request, _READER)
    command = Preferences(customer_id=customer_id, language=body.language, channels=list(body.channels))
    return _shown(first(await services.client(Notification).set_preferences([command])))


def _shown(preferences: Preferences) -> MessagePreferences:
    return MessagePreferences(language=preferences.language, channels=preferences.channels)


HANDLERS = [get_preferences, set_preferences]
