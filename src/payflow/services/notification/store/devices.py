"""Customers' devices in PostgreSQL; their tokens are encrypted."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database, load_queries
from payflow.services.notification.domain import DEVICES_MAX, Device

queries = load_queries("payflow.services.notification")


class PostgresDevices:
    """See ports.DeviceBook."""

    def __init__(self, *, database: Database, cipher: ColumnCipher) -> None:
        self._database = database
        self._cipher = cipher

    async def register(self, devices: Sequence[Device]) -> dict[bytes, Device]:
        # Of two registrations of one token in a batch the later one holds.
        by_digest = {device.token_digest: device for device in devices}
        owners = [device.customer_id for device in by_digest.values()]
        async with self._database.transaction() as connection:
            await connection.execute(queries.lock_device_owners, owners)
            rows = await connection.fetch(
                queries.register_devices,
                [device.device_id for device in by_digest.values()],
                owners,
                [device.platform for device in by_digest.values()],
                list(by_digest),
                [self._cipher.encrypt(device.token, place=_place(digest)) for digest, device in by_digest.items()],
                devices[0].seen_at,
            )
            await connection.execute(queries.forget_surplus_devices, owners, DEVICES_MAX)
        return {
            row["token_digest"]: Device(
                device_id=row["device_id"],
                customer_id=row["customer_id"],
                platform=row["platform"],
                token=by_digest[row["token_digest"]].token,
                registered_at=row["registered_at"],
                seen_at=row["seen_at"],
            )
            for row in rows
        }

    async def of_customers(self, customer_ids: Sequence[str]) -> dict[str, list[Device]]:
        found: dict[str, list[Device]] = {}
        for row in await self._database.fetch(queries.devices_of_customers, customer_ids):
            values = dict(row)
            token = self._cipher.decrypt(values.pop("token_encrypted"), place=_place(values.pop("token_digest")))
            found.setdefault(row["customer_id"], []).append(Device(**values, token=token))
        return found

    async def remove(self, keys: Sequence[tuple[str, UUID]]) -> set[tuple[str, UUID]]:
        rows = await self._database.fetch(
            queries.remove_devices, [customer_id for customer_id, _ in keys], [device_id for _, device_id in keys]
        )
        return {(row["customer_id"], row["device_id"]) for row in rows}

    async def forget(self, device_ids: Sequence[UUID]) -> None:
        await self._database.execute(queries.forget_devices, device_ids)


def _place(digest: bytes) -> str:
    """By the token's digest, for a registration that meets a known token does not know the device's id beforehand."""
    return f"device.token:{digest.hex()}"
