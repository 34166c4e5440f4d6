"""A customer's devices, which push messages go to."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath

from payflow.contracts.devices import (
    DevicePlatform,
    Devices,
    DeviceView,
    ListDevices,
    RegisterDevice,
    RemoveDevice,
)
from payflow.platform.http.strict_json import StrictReader
from payflow.platform.ids import UuidV7
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.documented import Answer
from payflow.services.gateway.routes.security import FOR_CUSTOMERS, customer_of
from payflow.services.gateway.routes.services import FromServices

_ids: Final = UuidV7()
# What Firebase hands an app: longer than 100 characters today; the bounds leave room for tomorrow's.
Token = Annotated[
    str, msgspec.Meta(min_length=8, max_length=1024, pattern=r"^[!-~]+$(?!\n)", examples=["fGw0qy4TQf..."])
]


class NewDeviceBody(Body):
    """An app on a phone, or in a browser. `token`: the registration token that Firebase gave it."""

    token: Token
    platform: DevicePlatform


class RegisteredDevice(msgspec.Struct, kw_only=True):
    """A device; its token is not told again."""

    device_id: UUID
    platform: DevicePlatform
    registered_at: datetime
    seen_at: datetime


class RegisteredDevices(msgspec.Struct):
    """All of a customer's devices, the last one seen first; so `next_cursor` is null."""

    data: list[RegisteredDevice]
    next_cursor: str | None = None


_READER: Final = StrictReader(NewDeviceBody, required=("token", "platform"))


@post(
    "/devices",
    tags=["Messages"],
    summary="Register a device",
    opt={**FOR_CUSTOMERS, "body": NewDeviceBody, "errors": ("NO_PUSH_CHANNEL",)},
)
async def register_device(request: AnyRequest, services: FromServices) -> RegisteredDevice:
    """Have push messages sent to a device. An app calls this at each start: the same token is the same device.

    A token follows its newest customer. Of more than ten devices those unseen for the longest are forgotten, and so is
    one of which Firebase says that the app is gone.
    """
    customer_id = customer_of(request.scope)
    body = await read_json(request, _READER)
    command = RegisterDevice(device_id=_ids.new(), customer_id=customer_id, token=body.token, platform=body.platform)
    return _shown(first(await services.client(Devices).register_devices([command])))


@get("/devices", tags=["Messages"], summary="List own devices", opt=FOR_CUSTOMERS)
async def list_devices(request: AnyRequest, services: FromServices) -> RegisteredDevices:
    """The signed-in customer's devices."""
    query = ListDevices(customer_id=customer_of(request.scope))
    found = first(await services.client(Devices).list_devices([query]))
    return RegisteredDevices(data=[_shown(device) for device in found.devices])


@delete(
    "/devices/{device_id:uuid}",
    status_code=204,
    tags=["Messages"],
    summary="Remove a device",
    opt={
        **FOR_CUSTOMERS,
        "answers": {204: Answer(None, description="It is forgotten.")},
        "errors": ("DEVICE_NOT_FOUND",),
    },
)
async def remove_device(request: AnyRequest, services: FromServices, device_id: FromPath[UUID]) -> None:
    """Send no more push messages to a device: at sign-out, for example."""
    command = RemoveDevice(customer_id=customer_of(request.scope), device_id=device_id)
    first(await services.client(Devices).remove_devices([command]))


def _shown(device: DeviceView) -> RegisteredDevice:
    return msgspec.convert(device, RegisteredDevice, from_attributes=True)


HANDLERS = [register_device, list_devices, remove_device]
