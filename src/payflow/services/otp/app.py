"""Reads the otp service's settings and wires it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import msgspec

from payflow.contracts.notification import Notification
from payflow.contracts.otp import Otp
from payflow.platform.service import Runtime, Service, every
from payflow.platform.settings import CommonSettings, Rate, SettingsError, describe
from payflow.services.otp.api import OtpApi
from payflow.services.otp.domain import KeyRing, Limit, Rules
from payflow.services.otp.entropy import SystemEntropy
from payflow.services.otp.store import PostgresStore
from payflow.services.otp.usecases import forget_old

_CLEAN_UP_EVERY_S = 3600.0


class OtpSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of the otp service."""

    otp_key: Annotated[
        str,
        describe(
            "key of codes, 32 bytes or more as hex or base64; best given as _FILE. To rotate: put the new key in front "
            "of the old one, separated by a comma",
            check=KeyRing.parse,
        ),
    ]
    otp_lifetime_s: Annotated[int, describe("seconds for which a code is valid"), msgspec.Meta(ge=30, le=3600)] = 300
    otp_tries_max: Annotated[int, describe("tries per code"), msgspec.Meta(ge=1, le=10)] = 5
    otp_issue_per_payment: Annotated[Rate, describe("codes that one payment may ask for")] = Rate(3, 900)
    otp_issue_per_customer: Annotated[Rate, describe("codes that one customer may ask for")] = Rate(30, 900)
    otp_keep_days: Annotated[int, describe("days until old challenges are deleted"), msgspec.Meta(ge=1)] = 30


SETTINGS = OtpSettings


def _limit(rate: Rate) -> Limit:
    return Limit(count=rate.count, window=timedelta(seconds=rate.window_s))


async def build(runtime: Runtime) -> Service:
    """Wire the otp service."""
    settings = runtime.settings(OtpSettings)
    try:
        keys = KeyRing.parse(settings.otp_key)
    except ValueError as error:
        raise SettingsError(f"PAYFLOW_OTP_KEY: {error}.") from None
    database = await runtime.database()
    store = PostgresStore(database=database, outbox=runtime.outbox(database))
    api = OtpApi(
        store=store,
        sender=runtime.client(Notification),
        keys=keys,
        rules=Rules(
            lifetime=timedelta(seconds=settings.otp_lifetime_s),
            tries_max=settings.otp_tries_max,
            per_payment=_limit(settings.otp_issue_per_payment),
            per_customer=_limit(settings.otp_issue_per_customer),
        ),
        clock=runtime.clock,
        ids=runtime.ids,
        entropy=SystemEntropy(),
    )
    keep = timedelta(days=settings.otp_keep_days)
    return Service(
        implementations=[(Otp, api)],
        checks=dict(runtime.checks_for(database=database)),
        required={"postgres"},
        background={
            "forget_old": every(_CLEAN_UP_EVERY_S, lambda: forget_old(store=store, now=runtime.clock.now(), keep=keep))
        },
    )
