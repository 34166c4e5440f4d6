"""The notification service: the devices of customers that push messages go to."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Rejection


class DevicePlatform(StrEnum):
    ANDROID = "android"
    IOS = "ios"
    WEB = "web"


class DeviceNotFound(Rejection):
    """The customer has no such device, or its vendor has said that it is gone."""

    code = "DEVICE_NOT_FOUND"


class NoPushChannel(Rejection):
    """Push messages are not sent by this installation."""

    code = "NO_PUSH_CHANNEL"


class RegisterDevice(msgspec.Struct, frozen=True, kw_only=True):
    """Send push messages to a device. `device_id` is new; a token that is known keeps its id, and follows its newest
    customer: a phone that changes hands no longer tells of the former owner's payments."""

    device_id: UUID
    customer_id: str
    token: str
    platform: DevicePlatform


class DeviceView(msgspec.Struct, frozen=True, kw_only=True):
    """A device; its token is never told again."""

    device_id: UUID
    platform: DevicePlatform
    registered_at: datetime
    seen_at: datetime


class ListDevices(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str


class DeviceList(msgspec.Struct, frozen=True, kw_only=True):
    devices: list[DeviceView]


class RemoveDevice(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str
    device_id: UUID


class DeviceRemoved(msgspec.Struct, frozen=True, kw_only=True):
    device_id: UUID


class Devices(Protocol):
    """Operations on customers' devices, of the notification service."""

    service: ClassVar[str] = "notification"

    @operation(callers={"gateway"})
    async def register_devices(self, commands: list[RegisterDevice]) -> Answers[DeviceView]: ...

    @operation(callers={"gateway"})
    async def list_devices(self, queries: list[ListDevices]) -> Answers[DeviceList]: ...

    @operation(callers={"gateway"})
    async def remove_devices(self, commands: list[RemoveDevice]) -> Answers[DeviceRemoved]: ...
