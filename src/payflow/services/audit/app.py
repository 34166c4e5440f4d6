"""Reads the audit service's settings and wires it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec

from payflow.contracts.audit import Audit
from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.consumer import drop_old_batches
from payflow.platform.eventlog.inbox import forget_handled
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, SettingsError, describe
from payflow.services.audit.api import AuditApi
from payflow.services.audit.consumer import EVERY_TOPIC, Recorder
from payflow.services.audit.heads import HeadKeys, HeadsFile
from payflow.services.audit.store import PostgresStore


class AuditSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the audit service."""

    audit_key: Annotated[
        str,
        describe("private Ed25519 key of the heads as a JWK or JWK set; best given as _FILE", check=HeadKeys.from_json),
    ]
    audit_heads_dir: Annotated[str, describe("folder of the signed heads; empty: audit-heads in the data_dir")] = ""
    audit_head_interval_s: Annotated[float, describe("pause between signed heads"), msgspec.Meta(ge=0.05, le=30)] = 1.0
    event_retention_days: Annotated[
        int, describe("days that events stay in the log after all have read them"), msgspec.Meta(ge=1)
    ] = 90


SETTINGS = AuditSettings


def _heads_of(settings: AuditSettings) -> HeadsFile:
    try:
        keys = HeadKeys.from_json(settings.audit_key)
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_AUDIT_KEY: {error}") from None
    directory = settings.audit_heads_dir or Path(settings.data_dir) / "audit-heads"
    heads = HeadsFile(directory=directory, keys=keys)
    try:
        heads.prepare()
    except OSError as error:
        raise Unavailable(f"The folder of the audit heads, {directory}, cannot be used: {error.strerror}.") from error
    return heads


async def build(runtime: Runtime) -> Service:
    """Wire the audit service."""
    settings = runtime.settings(AuditSettings)
    heads = _heads_of(settings)
    database = await runtime.database()
    store = PostgresStore(database)
    reads = await runtime.reads(store, PostgresStore, database=database)
    api = AuditApi(store=store, heads=heads, clock=runtime.clock, reads=reads)
    consumer = runtime.consumer(topics=EVERY_TOPIC, handler=Recorder(clock=runtime.clock), database=database)
    retention = timedelta(days=settings.event_retention_days)
    service = Service(
        implementations=[(Audit, api)],
        checks={**runtime.checks_for(database=database), "heads": api.heads_are_signed, "events": consumer.is_reading},
        required={"postgres"},
        background={
            "record_events": consumer.run,
            "sign_heads": every(settings.audit_head_interval_s, api.sign_head),
            "drop_old_events": every(3600, lambda: drop_old_batches(database=database, retention=retention)),
            # As long as the events themselves: whoever reads them once more finds here what was had.
            "forget_handled_events": every(3600, lambda: forget_handled(database=database, keep=retention)),
        },
    )
    runtime.add_relay(service, database)
    return service
