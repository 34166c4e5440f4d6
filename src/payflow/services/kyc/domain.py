"""Decides what a verification record says and what may be written into it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from payflow.contracts.kyc import (
    CustomerChecked,
    InvalidVerification,
    RecordVerification,
    VerificationChange,
    VerificationCommandReused,
    VerificationHistory,
    VerificationLevel,
    VerificationState,
)
from payflow.kernel.errors import PayflowError


@dataclass(frozen=True, slots=True)
class Verification:
    """Where a customer stands. `version` rises by one with each record."""

    customer_id: str
    version: int
    state: VerificationState
    level: VerificationLevel
    verified_at: datetime | None
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Change:
    """One record: what it made of the customer's verification, who made it and why."""

    command_id: UUID
    verification: Verification
    reason: str
    recorded_by: str
    recorded_at: datetime

    def is_of(self, command: RecordVerification) -> bool:
        """Whether this command wrote this record."""
        mine = self.verification
        return (mine.customer_id, mine.state, mine.level, mine.expires_at, self.reason, self.recorded_by) == (
            command.customer_id,
            command.state,
            command.level,
            command.expires_at,
            command.reason,
            command.recorded_by,
        )


def check(verification: Verification | None, *, now: datetime) -> CustomerChecked:
    """Where a customer stands at `now`: a VERIFIED record counts until its expiry, from then on it is EXPIRED."""
    if verification is None:
        return CustomerChecked(
            is_verified=False,
            state=VerificationState.UNVERIFIED,
            level=VerificationLevel.NONE,
            verified_at=None,
            expires_at=None,
        )
    state = verification.state
    if state is VerificationState.VERIFIED and verification.expires_at is not None and now >= verification.expires_at:
        state = VerificationState.EXPIRED
    return CustomerChecked(
        is_verified=state is VerificationState.VERIFIED,
        state=state,
        level=verification.level,
        verified_at=verification.verified_at,
        expires_at=verification.expires_at,
    )


def history_of(customer_id: str, changes: list[Change], *, now: datetime) -> VerificationHistory:
    """The present state and every change; `changes` are newest first and not empty."""
    return VerificationHistory(
        customer_id=customer_id,
        current=check(changes[0].verification, now=now),
        changes=[
            VerificationChange(
                version=change.verification.version,
                state=change.verification.state,
                level=change.verification.level,
                reason=change.reason,
                recorded_by=change.recorded_by,
                recorded_at=change.recorded_at,
                expires_at=change.verification.expires_at,
            )
            for change in changes
        ],
    )


class Batch:
    """One batch of records over locked customers: answers each command and gathers the changes, in order."""

    def __init__(self, *, current: Mapping[str, Verification], recorded: Mapping[UUID, Change], now: datetime) -> None:
        self._current = dict(current)
        self._recorded = dict(recorded)
        self._now = now
        self.changes: list[Change] = []

    def record(self, command: RecordVerification) -> PayflowError | None:
        """Write a record; None when it is written, now or by an earlier command with this id."""
        earlier = self._recorded.get(command.command_id)
        if earlier is not None:
            return None if earlier.is_of(command) else VerificationCommandReused()
        refusal = _refuse(command, now=self._now)
        if refusal is not None:
            return refusal
        before = self._current.get(command.customer_id)
        after = Verification(
            customer_id=command.customer_id,
            version=before.version + 1 if before else 1,
            state=command.state,
            level=command.level,
            verified_at=_verified_at(command.state, before, now=self._now),
            expires_at=command.expires_at,
        )
        change = Change(command.command_id, after, command.reason, command.recorded_by, self._now)
        self._current[command.customer_id] = after
        self._recorded[command.command_id] = change
        self.changes.append(change)
        return None


def _verified_at(state: VerificationState, before: Verification | None, *, now: datetime) -> datetime | None:
    if state is VerificationState.VERIFIED:
        return now
    return before.verified_at if before and state is VerificationState.EXPIRED else None


def _refuse(command: RecordVerification, *, now: datetime) -> InvalidVerification | None:
    if not (command.customer_id and command.reason.strip() and command.recorded_by):
        return InvalidVerification("A record names the customer, the reason, and who made it.")
    if command.state is not VerificationState.VERIFIED:
        return None if command.expires_at is None else InvalidVerification("Only a VERIFIED record expires.")
    if command.level is VerificationLevel.NONE:
        return InvalidVerification("A VERIFIED record has the level BASIC or FULL.")
    if command.expires_at is not None and command.expires_at.tzinfo is None:
        return InvalidVerification("expires_at needs a time zone.")
    if command.expires_at is not None and command.expires_at <= now:
        return InvalidVerification("expires_at has passed.")
    return None
