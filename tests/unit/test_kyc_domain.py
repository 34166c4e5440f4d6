"""What a verification record says at an instant, and what may be written into it."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from payflow.contracts.kyc import (
    InvalidVerification,
    RecordVerification,
    VerificationCommandReused,
    VerificationLevel,
    VerificationState,
)
from payflow.services.kyc.domain import Batch, Verification, check
from tests.builders import NOON, new_id

YEAR = timedelta(days=365)


def a_record(
    state: VerificationState = VerificationState.VERIFIED,
    *,
    command_id: UUID | None = None,
    customer_id: str = "cust_1",
    level: VerificationLevel = VerificationLevel.FULL,
    reason: str = "passport seen",
    expires_at: datetime | None = None,
) -> RecordVerification:
    return RecordVerification(
        command_id=command_id or new_id(),
        customer_id=customer_id,
        state=state,
        level=level,
        reason=reason,
        recorded_by="officer",
        expires_at=expires_at,
    )


def a_verification(state: VerificationState, *, expires_at: datetime | None = None) -> Verification:
    return Verification("cust_1", 3, state, VerificationLevel.FULL, NOON, expires_at)


def a_batch(*current: Verification, now: datetime = NOON) -> Batch:
    return Batch(current={known.customer_id: known for known in current}, recorded={}, now=now)


@pytest.mark.parametrize(
    ("state", "expires_at", "is_verified", "shown"),
    [
        (VerificationState.VERIFIED, None, True, VerificationState.VERIFIED),
        (VerificationState.VERIFIED, NOON + timedelta(microseconds=1), True, VerificationState.VERIFIED),
        (VerificationState.VERIFIED, NOON, False, VerificationState.EXPIRED),
        (VerificationState.VERIFIED, NOON - YEAR, False, VerificationState.EXPIRED),
        (VerificationState.PENDING, None, False, VerificationState.PENDING),
        (VerificationState.REJECTED, None, False, VerificationState.REJECTED),
        (VerificationState.UNVERIFIED, None, False, VerificationState.UNVERIFIED),
        (VerificationState.EXPIRED, None, False, VerificationState.EXPIRED),
    ],
)
def test_a_customer_is_verified_only_while_a_verified_record_lasts(
    state: VerificationState, expires_at: datetime | None, is_verified: bool, shown: VerificationState
) -> None:
    verification = a_verification(state, expires_at=expires_at)

    checked = check(verification, now=NOON)

    assert (checked.is_verified, checked.state) == (is_verified, shown)


def test_a_customer_without_a_record_is_unverified() -> None:
    checked = check(None, now=NOON)

    assert (checked.is_verified, checked.state) == (False, VerificationState.UNVERIFIED)


def test_versions_of_a_customer_rise_by_one_also_within_a_batch() -> None:
    batch = a_batch(a_verification(VerificationState.PENDING))

    batch.record(a_record(VerificationState.VERIFIED))
    batch.record(a_record(VerificationState.REJECTED))
    batch.record(a_record(customer_id="cust_2"))

    assert [(change.verification.customer_id, change.verification.version) for change in batch.changes] == [
        ("cust_1", 4),
        ("cust_1", 5),
        ("cust_2", 1),
    ]


@pytest.mark.parametrize(
    "command",
    [
        a_record(level=VerificationLevel.NONE),
        a_record(expires_at=NOON),
        a_record(expires_at=(NOON + YEAR).replace(tzinfo=None)),
        a_record(VerificationState.PENDING, expires_at=NOON + YEAR),
        a_record(reason="  "),
        a_record(customer_id=""),
    ],
)
def test_a_record_that_contradicts_itself_is_refused_and_changes_nothing(command: RecordVerification) -> None:
    batch = a_batch()

    error = batch.record(command)

    assert isinstance(error, InvalidVerification)
    assert batch.changes == []


def test_a_repeated_command_writes_once_even_after_its_expiry() -> None:
    command = a_record(expires_at=NOON + YEAR)
    first = a_batch()
    first.record(command)
    later = Batch(
        current={"cust_1": first.changes[0].verification},
        recorded={command.command_id: first.changes[0]},
        now=NOON + 2 * YEAR,
    )

    error = later.record(command)

    assert error is None
    assert later.changes == []


def test_a_command_id_with_other_contents_is_a_conflict() -> None:
    command_id = new_id()
    batch = a_batch()
    batch.record(a_record(command_id=command_id))

    error = batch.record(a_record(VerificationState.REJECTED, command_id=command_id))

    assert isinstance(error, VerificationCommandReused)
    assert len(batch.changes) == 1


def test_the_instant_of_verification_stays_through_expiry_and_goes_with_a_rejection() -> None:
    known = a_verification(VerificationState.VERIFIED)
    batch = a_batch(known, now=NOON + YEAR)

    batch.record(a_record(VerificationState.EXPIRED))
    batch.record(a_record(VerificationState.REJECTED))

    assert [change.verification.verified_at for change in batch.changes] == [NOON, None]
