"""What the ledger is made of: balances, journal entries, postings, holds, refusals, and what a batch writes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from uuid import UUID

from payflow.contracts.account import AccountState
from payflow.kernel.errors import PayflowError, Rejection, error_from_parts

HELD: Final = "HELD"
CAPTURED: Final = "CAPTURED"
RELEASED: Final = "RELEASED"
# The kind of the entry by which incoming money goes back from suspense to the bank that sent it.
INCOMING_RETURN: Final = "incoming_return"
# Internal accounts have a slash in their number, which no customer's account can have.
CUSTOMER_NUMBER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,33}", re.ASCII)
# Our money at another bank; the other side of opening balances; money under review; fees earned; funds that the law
# has us set aside.
INTERNAL_KINDS: Final = frozenset({"nostro", "opening", "suspense", "fees", "blocked"})
# The steps whose refusals are remembered.
STEPS: Final = ("book", "hold")


@dataclass(slots=True)
class Balance:
    """An account's balance, locked for this batch, or known by its `version` and checked when the batch is written.

    `sequence` numbers its postings without gaps; `version` rises with whatever is written about the account.
    `booked_at` is the latest instant that was given out for it: nothing is booked before that.
    """

    account_id: UUID
    currency: str
    state: AccountState
    is_internal: bool
    is_owner_blocked: bool
    posted_minor: int
    held_minor: int
    sequence: int
    version: int = 0
    booked_at: datetime | None = None

    @property
    def available_minor(self) -> int:
        """What can be spent."""
        return self.posted_minor - self.held_minor


@dataclass(frozen=True, slots=True)
class Entry:
    """A journal entry: a balanced set of postings, at most one for each payment."""

    entry_id: UUID
    payment_id: UUID | None
    kind: str
    fencing_token: int
    booked_at: datetime


@dataclass(frozen=True, slots=True)
class Posting:
    """One leg: signed amount, and the account's balance after it."""

    account_id: UUID
    sequence: int
    entry_id: UUID
    payment_id: UUID | None
    amount_minor: int
    balance_minor: int
    booked_at: datetime


@dataclass(frozen=True, slots=True)
class Hold:
    """Funds reserved for a payment."""

    payment_id: UUID
    hold_id: UUID
    account_id: UUID
    amount_minor: int
    currency: str
    state: str
    fencing_token: int
    placed_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None = None
    end_reason: str | None = None

    def changed(
        self,
        *,
        fencing_token: int,
        state: str | None = None,
        expires_at: datetime | None = None,
        ended_at: datetime | None = None,
        end_reason: str | None = None,
    ) -> Hold:
        """The hold as a command with this token leaves it; tokens never go back."""
        return Hold(
            payment_id=self.payment_id,
            hold_id=self.hold_id,
            account_id=self.account_id,
            amount_minor=self.amount_minor,
            currency=self.currency,
            state=state or self.state,
            fencing_token=max(fencing_token, self.fencing_token),
            placed_at=self.placed_at,
            expires_at=expires_at,
            ended_at=ended_at,
            end_reason=end_reason,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A command that was refused for good."""

    payment_id: UUID
    step: str
    code: str
    detail: str
    fencing_token: int

    def as_error(self) -> PayflowError:
        """The error as it was first answered."""
        return error_from_parts(family=Rejection.family, code=self.code, detail=self.detail, extra={})


@dataclass(slots=True)
class Outcomes:
    """What earlier commands for the batch's payments came to."""

    entries: dict[UUID, Entry] = field(default_factory=dict)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    refusals: dict[tuple[UUID, str], Refusal] = field(default_factory=dict)

    def highest_token(self, payment_id: UUID) -> int:
        """The highest fencing token that any command for this payment carried."""
        tokens = [0]
        if payment_id in self.entries:
            tokens.append(self.entries[payment_id].fencing_token)
        if payment_id in self.holds:
            tokens.append(self.holds[payment_id].fencing_token)
        for step in STEPS:
            refusal = self.refusals.get((payment_id, step))
            if refusal is not None:
                tokens.append(refusal.fencing_token)
        return max(tokens)


@dataclass(slots=True)
class Changes:
    """What the batch writes. `at` is the instant of all of it, but for accounts whose latest one is later."""

    at: datetime
    entries: list[Entry] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)
    holds: dict[UUID, Hold] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    balances: dict[UUID, Balance] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.entries or self.holds or self.refusals)


def internal_number(*, kind: str, currency: str, agent_bic: str | None) -> str:
    """The number of an internal account: NOSTRO/<BIC>/EUR, SUSPENSE/EUR, OPENING/EUR, FEES/EUR, BLOCKED/EUR.

    A nostro account is one at a bank, all others are ours alone. Raises ValueError for anything else.
    """
    if kind not in INTERNAL_KINDS or (kind == "nostro") != (agent_bic is not None):
        raise ValueError(f"no internal account is of kind {kind} with bank {agent_bic}")
    return "/".join(part for part in (kind.upper(), agent_bic, currency) if part)


def is_expired(hold: Hold, *, now: datetime) -> bool:
    """Whether an open hold has passed its expiry; a hold without expiry (from submission on) never has."""
    return hold.state == HELD and hold.expires_at is not None and now >= hold.expires_at
