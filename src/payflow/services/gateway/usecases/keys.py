"""Signing keys are rotated."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from payflow.contracts.gateway import KeysRotated, RotateKeys
from payflow.contracts.operation import Answers
from payflow.kernel.errors import Unavailable
from payflow.services.gateway.ports import KeyRing, Store
from payflow.services.gateway.usecases.events import SecurityEvents


async def rotate_keys(
    *,
    commands: Sequence[RotateKeys],
    keys: KeyRing,
    store: Store,
    events: SecurityEvents,
    now: datetime,
    rotated_by: str,
) -> Answers[KeysRotated]:
    """Sign with a new key from now on; the old one verifies until its tokens have ended. One rotation per command.

    Items may be Unavailable: the keys' folder cannot be written, and the old key goes on.
    """
    answers: Answers[KeysRotated] = []
    for _ in commands:
        try:
            kid, verifying = keys.rotate(now)
        except Unavailable as error:
            answers.append(error)
            continue
        async with store.transaction() as transaction:
            await transaction.append_events([events.make("keys_rotated", actor=rotated_by, subject=f"key/{kid}")])
        answers.append(KeysRotated(active_kid=kid, verifying_kids=verifying))
    return answers
