"""Makes valid things with the one property a test is about spelled out and sensible values for the rest."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from payflow.contracts.account import AccountState, PlaceHold, Transfer
from payflow.platform.ids import UuidV7
from payflow.services.account.domain import Balance

# The two banks of the demo.
OUR_BIC = "PAYFDEFFXXX"
NORDBANK_BIC = "NORDDEFFXXX"

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
_ids = UuidV7()


def new_id() -> UUID:
    """A fresh identifier."""
    return _ids.new()


def a_balance(
    *,
    posted: int = 10_000,
    held: int = 0,
    currency: str = "USD",
    state: AccountState = AccountState.OPEN,
    is_internal: bool = False,
    is_owner_blocked: bool = False,
) -> Balance:
    """A locked balance of an open customer account."""
    return Balance(
        account_id=new_id(),
        currency=currency,
        state=state,
        is_internal=is_internal,
        is_owner_blocked=is_owner_blocked,
        posted_minor=posted,
        held_minor=held,
        sequence=0,
    )


def a_transfer(
    debtor: UUID,
    creditor: UUID,
    amount_minor: int = 1_000,
    *,
    payment_id: UUID | None = None,
    token: int = 1,
    currency: str = "USD",
    captures_hold: bool = False,
) -> Transfer:
    """A command to move money."""
    return Transfer(
        payment_id=payment_id or new_id(),
        fencing_token=token,
        debtor_account_id=debtor,
        creditor_account_id=creditor,
        amount_minor=amount_minor,
        currency=currency,
        captures_hold=captures_hold,
    )


def a_hold(
    account: UUID,
    amount_minor: int = 1_000,
    *,
    payment_id: UUID | None = None,
    token: int = 1,
    currency: str = "USD",
    expires_in: timedelta | None = None,
) -> PlaceHold:
    """A command to reserve funds."""
    return PlaceHold(
        payment_id=payment_id or new_id(),
        fencing_token=token,
        account_id=account,
        amount_minor=amount_minor,
        currency=currency,
        expires_at=None if expires_in is None else NOON + expires_in,
    )


class FixedClock:
    """A clock that stands until a test moves it."""

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def move(self, step: timedelta) -> None:
        """Let time pass."""
        self._now += step
