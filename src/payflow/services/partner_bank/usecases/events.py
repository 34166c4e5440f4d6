"""What is told of incoming payments, in the transaction of the change."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from payflow.contracts.topics import IncomingPayment, mask_account
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.services.partner_bank.domain import Instruction, Status

TOLD: Final = {
    Status.CREDITED: "incoming.credited",
    Status.HELD_IN_SUSPENSE: "incoming.held_in_suspense",
    Status.RETURNED: "incoming.returned",
}


class IncomingEvents:
    """Makes the events of incoming payments."""

    def __init__(self, *, ids: Ids, source: str) -> None:
        self._ids = ids
        self._source = source

    def event_of(self, instruction: Instruction, customer_id: str | None, *, now: datetime, traceparent: str) -> Event:
        """The event of the status that a payment has come to; what follows on suspense is its second one."""
        was_held = bool(instruction.is_suspicious) and instruction.status is not Status.HELD_IN_SUSPENSE
        data = IncomingPayment(
            payment_id=instruction.payment_id,
            end_to_end_id=instruction.end_to_end_id,
            customer_id=customer_id,
            account=mask_account(instruction.parties.creditor_account),
            amount_minor=instruction.amount_minor,
            currency=instruction.currency,
            agent_bic=instruction.agent_bic,
        )
        return Event(
            id=self._ids.new(),
            source=self._source,
            type=TOLD[instruction.status],
            subject=str(instruction.payment_id),
            version=2 if was_held else 1,
            time=now,
            data=msgspec.to_builtins(data),
            traceparent=traceparent,
        )
