"""Customers' devices: registered, listed, removed."""

from __future__ import annotations

from collections.abc import Sequence

from payflow.contracts.devices import (
    DeviceList,
    DeviceNotFound,
    DevicePlatform,
    DeviceRemoved,
    DeviceView,
    ListDevices,
    NoPushChannel,
    RegisterDevice,
    RemoveDevice,
)
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock
from payflow.services.notification.domain import Device
from payflow.services.notification.ports import DeviceBook


async def register(
    *, commands: Sequence[RegisterDevice], devices: DeviceBook, is_in_use: bool, clock: Clock
) -> Answers[DeviceView]:
    """Register each device: one answer per command, in order.

    Safe to repeat: a token has one device, which keeps its id. Items may be NoPushChannel.
    """
    if not is_in_use:
        return [NoPushChannel() for _ in commands]
    now = clock.now()
    new = [
        Device(
            device_id=command.device_id,
            customer_id=command.customer_id,
            platform=command.platform,
            token=command.token,
            registered_at=now,
            seen_at=now,
        )
        for command in commands
    ]
    known = await devices.register(new) if new else {}
    return [_view(known[device.token_digest]) for device in new]


async def list_of(*, queries: Sequence[ListDevices], devices: DeviceBook) -> Answers[DeviceList]:
    """Each customer's devices, the last one seen first."""
    found = await devices.of_customers(sorted({query.customer_id for query in queries}))
    return [DeviceList(devices=[_view(device) for device in found.get(query.customer_id, ())]) for query in queries]


async def remove(*, commands: Sequence[RemoveDevice], devices: DeviceBook) -> Answers[DeviceRemoved]:
    """Forget devices. Items may be DeviceNotFound, also for another customer's."""
    gone = await devices.remove([(command.customer_id, command.device_id) for command in commands])
    return [
        DeviceRemoved(device_id=command.device_id)
        if (command.customer_id, command.device_id) in gone
        else DeviceNotFound()
        for command in commands
    ]


def _view(device: Device) -> DeviceView:
    return DeviceView(
        device_id=device.device_id,
        platform=DevicePlatform(device.platform),
        registered_at=device.registered_at,
        seen_at=device.seen_at,
    )
