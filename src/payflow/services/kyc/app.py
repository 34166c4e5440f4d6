"""Reads the kyc service's settings and wires it."""

from __future__ import annotations

from payflow.contracts.kyc import Kyc
from payflow.platform.service import Runtime, Service
from payflow.platform.settings import CommonSettings
from payflow.services.kyc.api import KycApi
from payflow.services.kyc.store import PostgresStore


class KycSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the kyc service: none beyond the common ones."""


SETTINGS = KycSettings


async def build(runtime: Runtime) -> Service:
    """Wire the kyc service."""
    database = await runtime.database()
    store = PostgresStore(database=database, outbox=runtime.outbox(database))
    return Service(
        implementations=[(Kyc, KycApi(store=store, clock=runtime.clock, ids=runtime.ids))],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
    )
