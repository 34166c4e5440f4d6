"""What vendors of SMS and e-mail tell about messages. No token: each call is signed, and notification verifies it.

The bytes are passed on as they came, for they are what is signed.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from litestar import post
from litestar.params import QueryParameter

from payflow.contracts.callbacks import Callbacks, Vendor, VendorCallback
from payflow.platform.http.asgi import read_body
from payflow.platform.http.errors import UnsupportedMediaType
from payflow.services.gateway.gate import SENDGRID_CALLBACK_PATH, TWILIO_CALLBACK_PATH
from payflow.services.gateway.routes.bodies import AnyRequest, first
from payflow.services.gateway.routes.documented import JSON, Answer
from payflow.services.gateway.routes.security import OPEN
from payflow.services.gateway.routes.services import FromServices, Services

# SendGrid gathers events up to 768 KB.
BODY_MAX_BYTES: Final = 1024 * 1024
_FORM: Final = "application/x-www-form-urlencoded"
_ERRORS: Final = ("CALLBACK_NOT_SIGNED", "CALLBACK_REPLAYED", "UNREADABLE_CALLBACK", "VENDOR_NOT_IN_USE")
_TAKEN: Final = {204: Answer(None, description="It is noted.")}

MessageId = Annotated[
    str | None, QueryParameter(max_length=64, description="The message that is told about; part of what is signed.")
]


@post(
    TWILIO_CALLBACK_PATH,
    status_code=204,
    tags=["Callbacks"],
    summary="Twilio tells of an SMS",
    opt={**OPEN, "body": str, "body_media_types": (_FORM,), "answers": _TAKEN, "errors": _ERRORS},
)
async def take_twilio_callback(request: AnyRequest, services: FromServices, message_id: MessageId = None) -> None:
    """A status callback of Twilio's: a form, signed in `X-Twilio-Signature`. Payflow asks for it with each SMS; nothing
    is to be set up. A forged call is 403, one that tells nothing new 409."""
    await _pass_on(request, services, vendor=Vendor.TWILIO, media_type=_FORM, header="X-Twilio-Signature")


@post(
    SENDGRID_CALLBACK_PATH,
    status_code=204,
    tags=["Callbacks"],
    summary="SendGrid tells of e-mail",
    opt={**OPEN, "body": list[dict[str, Any]], "answers": _TAKEN, "errors": _ERRORS},
)
async def take_sendgrid_callback(request: AnyRequest, services: FromServices) -> None:
    """SendGrid's event webhook with its signature switched on (`X-Twilio-Email-Event-Webhook-Signature`): set this
    address in SendGrid's mail settings. A forged or old call is 403, one that tells nothing new 409."""
    header = "X-Twilio-Email-Event-Webhook-Signature"
    await _pass_on(request, services, vendor=Vendor.SENDGRID, media_type=JSON, header=header)


async def _pass_on(request: AnyRequest, services: Services, *, vendor: Vendor, media_type: str, header: str) -> None:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != media_type:
        raise UnsupportedMediaType(f"Send Content-Type: {media_type}.")
    body = await read_body(request.scope, request.receive, limit_bytes=BODY_MAX_BYTES)  # type: ignore[arg-type]
    callback = VendorCallback(
        vendor=vendor,
        query=request.scope["query_string"].decode("latin-1"),
        signature=request.headers.get(header, ""),
        timestamp=request.headers.get("X-Twilio-Email-Event-Webhook-Timestamp", ""),
        body=body,
    )
    first(await services.client(Callbacks).take_callbacks([callback]))


HANDLERS = [take_twilio_callback, take_sendgrid_callback]
