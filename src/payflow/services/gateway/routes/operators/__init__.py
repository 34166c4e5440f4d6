"""What the bank's own people do: operators, compliance officers, auditors, administrators. One file per subject."""

from __future__ import annotations

from typing import Final

from litestar.handlers import HTTPRouteHandler

from payflow.services.gateway.routes.operators import (
    accounts,
    audit,
    customers,
    kyc,
    partner_bank,
    payments,
    returns,
    reviews,
    sanctions,
    users,
    webhooks,
)

HANDLERS: Final[list[HTTPRouteHandler]] = [
    *customers.HANDLERS,
    *users.HANDLERS,
    *accounts.HANDLERS,
    *reviews.HANDLERS,
    *audit.HANDLERS,
    *kyc.HANDLERS,
    *sanctions.HANDLERS,
    *partner_bank.HANDLERS,
    *payments.HANDLERS,
    *returns.HANDLERS,
    *webhooks.HANDLERS,
]
