"""What the kyc service does: tell where customers stand, record decisions, show their history."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from payflow.contracts.kyc import (
    CheckCustomer,
    CustomerChecked,
    RecordVerification,
    VerificationHistory,
    VerificationNotFound,
)
from payflow.contracts.operation import Answers
from payflow.contracts.topics import VerificationChanged
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.services.kyc import domain
from payflow.services.kyc.ports import Store

SOURCE = "kyc"


async def check(*, queries: Sequence[CheckCustomer], store: Store, now: datetime) -> Answers[CustomerChecked]:
    """Where each customer stands at `now`: one read per batch. A customer without a record is UNVERIFIED."""
    current = await store.current(sorted({query.customer_id for query in queries}))
    return [domain.check(current.get(query.customer_id), now=now) for query in queries]


async def record(
    *, commands: Sequence[RecordVerification], store: Store, ids: Ids, traceparent: str, now: datetime
) -> Answers[VerificationHistory]:
    """Write decisions: the record, its line in the history and the event kyc.changed, in one transaction.

    Safe to repeat: a command id is written once, and a repeat is answered with the history as it now is.
    Items may be InvalidVerification, VerificationCommandReused.
    """
    async with store.transaction() as records:
        customer_ids = sorted({command.customer_id for command in commands})
        await records.lock(customer_ids)
        batch = domain.Batch(
            current=await records.current(customer_ids),
            recorded=await records.recorded([command.command_id for command in commands]),
            now=now,
        )
        errors = [batch.record(command) for command in commands]
        if batch.changes:
            await records.save(batch.changes)
            await records.append_events([_event(change, ids, traceparent) for change in batch.changes])
    histories = await history(
        queries=[CheckCustomer(customer_id=command.customer_id) for command in commands], store=store, now=now
    )
    return [error or answer for error, answer in zip(errors, histories, strict=True)]


async def history(*, queries: Sequence[CheckCustomer], store: Store, now: datetime) -> Answers[VerificationHistory]:
    """Each customer's present state and every change, newest first. Items may be VerificationNotFound."""
    changes = await store.changes(sorted({query.customer_id for query in queries}))

    def answer(customer_id: str) -> VerificationHistory | PayflowError:
        if customer_id not in changes:
            return VerificationNotFound()
        return domain.history_of(customer_id, changes[customer_id], now=now)

    return [answer(query.customer_id) for query in queries]


def _event(change: domain.Change, ids: Ids, traceparent: str) -> Event:
    verification = change.verification
    data = VerificationChanged(
        customer_id=verification.customer_id,
        state=verification.state,
        level=verification.level,
        recorded_by=change.recorded_by,
    )
    return Event(
        id=ids.new(),
        source=SOURCE,
        type="kyc.changed",
        subject=verification.customer_id,
        version=verification.version,
        time=change.recorded_at,
        data=msgspec.to_builtins(data),
        traceparent=traceparent,
    )
