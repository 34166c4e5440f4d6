"""Adapts the contracts about devices and vendors' callbacks to the use cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import structlog

from payflow.contracts.callbacks import CallbackTaken, Vendor, VendorCallback
from payflow.contracts.devices import (
    DeviceList,
    DeviceRemoved,
    DeviceView,
    ListDevices,
    RegisterDevice,
    RemoveDevice,
)
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError
from payflow.services.notification.ports import CallbackReader, DeviceBook, Store
from payflow.services.notification.usecases import callbacks as callback_usecases
from payflow.services.notification.usecases import devices as device_usecases

log = structlog.get_logger(__name__)


class DevicesApi:
    """Implements contracts.devices.Devices. `is_in_use`: whether push messages are sent at all."""

    def __init__(self, *, devices: DeviceBook, is_in_use: bool, clock: Clock) -> None:
        self._devices = devices
        self._is_in_use = is_in_use
        self._clock = clock

    async def register_devices(self, commands: list[RegisterDevice]) -> Answers[DeviceView]:
        return await device_usecases.register(
            commands=commands, devices=self._devices, is_in_use=self._is_in_use, clock=self._clock
        )

    async def list_devices(self, queries: list[ListDevices]) -> Answers[DeviceList]:
        return await device_usecases.list_of(queries=queries, devices=self._devices)

    async def remove_devices(self, commands: list[RemoveDevice]) -> Answers[DeviceRemoved]:
        return await device_usecases.remove(commands=commands, devices=self._devices)


class CallbacksApi:
    """Implements contracts.callbacks.Callbacks. `readers`: of the vendors whose callbacks are switched on."""

    def __init__(self, *, readers: Mapping[Vendor, CallbackReader], store: Store, clock: Clock) -> None:
        self._readers = readers
        self._store = store
        self._clock = clock

    async def take_callbacks(self, callbacks: list[VendorCallback]) -> Answers[CallbackTaken]:
        answers = await callback_usecases.take_callbacks(
            callbacks=callbacks, readers=self._readers, store=self._store, clock=self._clock
        )
        outcomes = Counter(answer.code if isinstance(answer, PayflowError) else "TAKEN" for answer in answers)
        vendors = sorted({callback.vendor for callback in callbacks})
        log.info("notification.callbacks", vendors=vendors, counts=dict(outcomes))
        return answers
