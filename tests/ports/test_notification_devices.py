"""Customers' devices over the in-memory book and over PostgreSQL, through the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from payflow.contracts.devices import (
    DeviceList,
    DeviceNotFound,
    DevicePlatform,
    DeviceRemoved,
    Devices,
    DeviceView,
    ListDevices,
    NoPushChannel,
    RegisterDevice,
    RemoveDevice,
)
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.notification.channel_api import DevicesApi
from payflow.services.notification.domain import DEVICES_MAX
from payflow.services.notification.store import PostgresDevices
from tests.builders import FixedClock, new_id
from tests.fakes_notification import FakeDevices


class Book:
    """Devices of customers of a test's own."""

    def __init__(self, devices: Any) -> None:
        self.devices = devices
        self.clock = FixedClock()
        self.api = self.as_installed(is_in_use=True)
        self.ada, self.alan = f"cust_{new_id().hex}", f"cust_{new_id().hex}"

    def as_installed(self, *, is_in_use: bool) -> Devices:
        return in_process(
            Devices, DevicesApi(devices=self.devices, is_in_use=is_in_use, clock=self.clock), caller="gateway"
        )

    async def register(self, customer_id: str, token: str) -> DeviceView:
        command = RegisterDevice(
            device_id=new_id(), customer_id=customer_id, token=token, platform=DevicePlatform.ANDROID
        )
        (view,) = await self.api.register_devices([command])
        assert isinstance(view, DeviceView)
        self.clock.move(timedelta(seconds=1))
        return view

    async def of(self, customer_id: str) -> list[DeviceView]:
        (answer,) = await self.api.list_devices([ListDevices(customer_id=customer_id)])
        assert isinstance(answer, DeviceList)
        return answer.devices

    async def tokens(self, customer_id: str) -> list[str]:
        found = await self.devices.of_customers([customer_id])
        return [device.token for device in found.get(customer_id, [])]


@pytest.fixture(params=["memory", "postgres"])
async def book(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> Book:
    if request.param == "memory":
        return Book(FakeDevices())
    return Book(PostgresDevices(database=await connect_as("notification"), cipher=cipher))


def a_token(name: str = "token") -> str:
    return f"{name}-{new_id().hex}"


async def test_a_device_is_listed_and_found_by_its_customer_only(book: Book) -> None:
    first, second = a_token(), a_token()
    await book.register(book.ada, first)
    view = await book.register(book.ada, second)

    listed = await book.of(book.ada)

    assert listed[0] == view
    assert await book.tokens(book.ada) == [second, first]
    assert await book.of(book.alan) == []


async def test_the_same_token_is_the_same_device(book: Book) -> None:
    token = a_token()
    first = await book.register(book.ada, token)

    again = await book.register(book.ada, token)

    assert again.device_id == first.device_id
    assert again.registered_at == first.registered_at
    assert again.seen_at > first.seen_at
    assert len(await book.of(book.ada)) == 1


async def test_a_phone_that_changes_hands_tells_its_former_owner_nothing_more(book: Book) -> None:
    token = a_token()
    await book.register(book.ada, token)

    await book.register(book.alan, token)

    assert await book.tokens(book.ada) == []
    assert await book.tokens(book.alan) == [token]


async def test_devices_unseen_for_the_longest_give_way(book: Book) -> None:
    tokens = [a_token() for _ in range(DEVICES_MAX + 2)]
    for token in tokens:
        await book.register(book.ada, token)

    assert await book.tokens(book.ada) == tokens[:1:-1]


async def test_a_device_is_removed_by_its_owner_and_by_nobody_else(book: Book) -> None:
    view = await book.register(book.ada, a_token())

    answers = await book.api.remove_devices(
        [
            RemoveDevice(customer_id=book.alan, device_id=view.device_id),
            RemoveDevice(customer_id=book.ada, device_id=new_id()),
            RemoveDevice(customer_id=book.ada, device_id=view.device_id),
        ]
    )

    assert [type(answer) for answer in answers] == [DeviceNotFound, DeviceNotFound, DeviceRemoved]
    assert await book.of(book.ada) == []


async def test_one_token_twice_in_a_batch_is_one_device(book: Book) -> None:
    token = a_token()
    commands = [
        RegisterDevice(device_id=new_id(), customer_id=customer_id, token=token, platform=DevicePlatform.IOS)
        for customer_id in (book.ada, book.alan)
    ]

    answers = await book.api.register_devices(commands)

    assert len({answer.device_id for answer in answers if isinstance(answer, DeviceView)}) == 1
    assert await book.tokens(book.ada) == []
    assert await book.tokens(book.alan) == [token]


async def test_without_a_push_channel_no_device_is_registered(book: Book) -> None:
    command = RegisterDevice(device_id=new_id(), customer_id=book.ada, token=a_token(), platform=DevicePlatform.WEB)

    answers = await book.as_installed(is_in_use=False).register_devices([command])

    assert [type(answer) for answer in answers] == [NoPushChannel]
    assert await book.of(book.ada) == []


async def test_a_token_is_encrypted_in_the_table_and_no_answer_or_log_names_it(
    connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher, database_url: str
) -> None:
    book = Book(PostgresDevices(database=await connect_as("notification"), cipher=cipher))
    token = a_token("very-secret")

    view = await book.register(book.ada, token)

    owner = await asyncpg.connect(database_url)
    rows = await owner.fetch("SELECT * FROM notification.device WHERE customer_id = $1", book.ada)
    await owner.close()
    assert len(rows) == 1
    assert token.encode() not in b"".join(value for value in rows[0].values() if isinstance(value, bytes))
    assert token not in repr([*rows[0].values(), view, await book.of(book.ada)])
    assert token not in repr(await book.devices.of_customers([book.ada]))
