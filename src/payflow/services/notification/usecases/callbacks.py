"""What vendors tell later: verified, kept once, and where it is an end, written to the delivery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from payflow.contracts.callbacks import CallbackReplayed, CallbackTaken, Vendor, VendorCallback, VendorNotInUse
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError
from payflow.services.notification.domain import DeliveryState, Outcome, Receipt, settled_by
from payflow.services.notification.ports import CallbackReader, Messages, Store


async def take_callbacks(
    *, callbacks: Sequence[VendorCallback], readers: Mapping[Vendor, CallbackReader], store: Store, clock: Clock
) -> Answers[CallbackTaken]:
    """Take each call: one answer per call, in order.

    Safe to repeat: a word counts once. Items may be VendorNotInUse, CallbackNotSigned, UnreadableCallback, and
    CallbackReplayed where nothing in a call about our messages was new. Words about messages that are not ours (another
    system on the same account, or forgotten with age) are counted and dropped.
    """
    answers: Answers[CallbackTaken] = []
    for callback in callbacks:
        try:
            reader = readers.get(callback.vendor)
            if reader is None:
                raise VendorNotInUse()
            receipts = reader.read(callback, now=clock.now())
            async with store.transaction() as messages:
                answers.append(await _take(receipts, messages=messages, clock=clock))
        except PayflowError as error:
            answers.append(error)
    return answers


async def _take(receipts: Sequence[Receipt], *, messages: Messages, clock: Clock) -> CallbackTaken | PayflowError:
    keys = sorted({(receipt.message_id, receipt.channel) for receipt in receipts})
    known = await messages.lock_deliveries(keys) if keys else {}
    ours = [receipt for receipt in receipts if (receipt.message_id, receipt.channel) in known]
    new = await messages.add_receipts(ours, now=clock.now()) if ours else set()
    if ours and not new:
        return CallbackReplayed()
    fresh = [receipt for receipt in ours if (receipt.vendor, receipt.event_id) in new]
    outcomes = []
    for key, state in known.items():
        settling = settled_by((one for one in fresh if (one.message_id, one.channel) == key), state)
        if settling is not None:
            outcomes.append(_outcome(settling, clock=clock))
    if outcomes:
        await messages.finish(outcomes)
    return CallbackTaken(stored=len(new), foreign=len(receipts) - len(ours))


def _outcome(receipt: Receipt, *, clock: Clock) -> Outcome:
    now = clock.now()
    return Outcome(
        message_id=receipt.message_id,
        channel=receipt.channel,
        state=receipt.state or DeliveryState.SENT,
        next_try_at=now,
        ended_at=now,
        reason=receipt.reason,
        vendor_id=receipt.vendor_id,
    )
