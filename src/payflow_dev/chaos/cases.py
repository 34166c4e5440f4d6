"""A payment as its customer knows it: what was asked and told about it, and what it is at the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from payflow_dev.chaos.history import Call, FileCall, FinalPayment

COMPLETED: Final = "COMPLETED"
ENDED_UNPAID: Final = frozenset({"REJECTED", "CANCELLED", "EXPIRED"})
# Refused before anybody looks at the payment; 409 and 429 are not among them: they tell nothing of an earlier call.
NOTHING_DONE: Final = frozenset({400, 401, 403, 404, 413, 415})
# 422 that count a try and end nothing.
NOT_THE_END: Final = ("INVALID_OTP", "OTP_EXPIRED")
# Operations that are not the payment's own: a cancellation, and the upload of the file that orders it.
CANCEL: Final = "cancel"
FILE: Final = "file"


@dataclass
class Case:
    """One payment as its customer knows it."""

    first: Call
    calls: list[Call] = field(default_factory=list)
    final: FinalPayment | None = None

    @property
    def name(self) -> str:
        """Which payment it is, in words."""
        return f"{self.first.transaction} of {self.first.customer}"

    @property
    def state(self) -> str | None:
        """Its state at the end; None: it is not known, or was not read."""
        return None if self.final is None else self.final.state

    @property
    def successes(self) -> set[str]:
        paid = '"status":"SUCCESS"'
        return {call.body or "" for call in self.calls if call.status == 200 and paid in (call.body or "")}

    @property
    def refusals(self) -> set[str]:
        return {call.body or "" for call in self.calls if _is_final_refusal(call)}

    @property
    def is_turned_away(self) -> bool:
        """Whether every single call was told that nothing is done for it."""
        return all(call.status in NOTHING_DONE for call in self.calls)

    @property
    def is_cancelled(self) -> bool:
        """Whether a cancellation was confirmed."""
        return any(call.operation == CANCEL and call.status == 200 for call in self.calls)

    @property
    def may_be_cancelled(self) -> bool:
        """Whether a cancellation was confirmed, or nobody knows what became of it."""
        return any(
            call.operation == CANCEL
            and (call.status in (None, 200, 429) or call.status >= 500 or "IN_PROGRESS" in (call.body or ""))
            for call in self.calls
        )

    @property
    def is_taken(self) -> bool:
        """Whether any answer said that the payment exists; a file that was taken makes a payment of each line."""
        return any(call.status in (200, 202) for call in self.calls)


def calls_of(upload: FileCall) -> list[Call]:
    """What the upload of a file asks for, line by line."""
    return [
        Call(
            operation=FILE,
            customer=upload.customer,
            key=line.transaction,
            transaction=line.transaction,
            debtor=line.debtor,
            creditor=line.creditor,
            amount_minor=line.amount_minor,
            invoked_ns=upload.invoked_ns,
            answered_ns=upload.answered_ns,
            status=upload.status,
            body=upload.body,
            is_listed=line.is_listed,
            execute_at=line.execute_at,
            due_ns=line.due_ns,
        )
        for line in upload.lines
    ]


def _is_final_refusal(call: Call) -> bool:
    body = call.body or ""
    is_own = call.operation not in (CANCEL, FILE)
    return is_own and call.status == 422 and not any(code in body for code in NOT_THE_END)
