"""How a fictional bank behaves, and what it does with a payment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

CURRENCIES: Final = frozenset({"USD", "EUR", "JPY", "GBP"})
DELAY_MAX_MS: Final = 60_000


class Mode(StrEnum):
    """What the bank does with a payment that arrives.

    accept: books and says so. reject: refuses with `reason_code`. delay: books, and says so after `delay_ms`.
    silent_before: knows nothing of it and never answers. silent_after: books it and never answers. pending: says that
    it is being looked at, until told otherwise. cut_off: books, and cuts the connection in the middle of the answer.
    garbage: books, and answers something unreadable. forged: books, and the answer says refused under a signature that
    is not the bank's. error: knows nothing of it and answers 500.
    """

    ACCEPT = "accept"
    REJECT = "reject"
    DELAY = "delay"
    SILENT_BEFORE = "silent_before"
    SILENT_AFTER = "silent_after"
    PENDING = "pending"
    CUT_OFF = "cut_off"
    GARBAGE = "garbage"
    FORGED = "forged"
    ERROR = "error"


NOT_TAKEN: Final = frozenset({Mode.SILENT_BEFORE, Mode.ERROR})
UNANSWERED: Final = frozenset({Mode.SILENT_BEFORE, Mode.SILENT_AFTER})


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mode with its particulars. `reason_code` is the ISO status reason of a refusal."""

    mode: Mode = Mode.ACCEPT
    reason_code: Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{1,4}$")] = "MS03"
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=DELAY_MAX_MS)] = 0


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the bank is told to behave: to all, to single accounts, to single payments; the narrowest counts.

    `answers_enquiries` False leaves pacs.028 without an answer too, as if the bank were away.
    """

    mode: Mode = Mode.ACCEPT
    reason_code: Annotated[str, msgspec.Meta(pattern="^[A-Z0-9]{1,4}$")] = "MS03"
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=DELAY_MAX_MS)] = 0
    answers_enquiries: bool = True
    end_to_end_ids: dict[str, Behaviour] = {}
    accounts: dict[str, Behaviour] = {}

    def behaviour_for(self, *, end_to_end_id: str, account: str) -> Behaviour:
        """The behaviour towards one payment."""
        default = Behaviour(mode=self.mode, reason_code=self.reason_code, delay_ms=self.delay_ms)
        return self.end_to_end_ids.get(end_to_end_id) or self.accounts.get(account) or default


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment as another bank sent it to one of ours. `amount_minor` 0: it could not be read."""

    agent_bic: str
    sender_bic: str
    end_to_end_id: str
    message_id: str
    instruction_id: str | None
    uetr: str | None
    account: str
    amount_minor: int
    currency: str
    debtor_name: str | None
    received_at: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells a repeat from another payment."""
        return (self.agent_bic, self.sender_bic, self.end_to_end_id)


def return_key(end_to_end_id: str, return_id: str) -> str:
    """The id under which a return of a payment stands in the books, apart from payments with its end-to-end id."""
    return f"RETURN:{end_to_end_id}:{return_id}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a payment. `status` is PENDING, ACCEPTED or REJECTED."""

    status: str
    reason_code: str | None = None

    @property
    def iso_status(self) -> str:
        """The transaction status of the pacs.002."""
        return {"ACCEPTED": "ACSC", "REJECTED": "RJCT"}.get(self.status, "PDNG")


ACCEPTED: Final = Decision("ACCEPTED")
PENDING: Final = Decision("PENDING")
DUPLICATE: Final = Decision("REJECTED", "AM05")
NEVER_RECEIVED: Final = Decision("REJECTED", "AG09")
FORGED: Final = Decision("REJECTED", "MS03")


def decide(payment: Payment, *, behaviour: Behaviour, holders: Mapping[str, str]) -> Decision:
    """What to do with a payment that is not decided yet. `holders`: the bank of each known account, by number."""
    if behaviour.mode is Mode.PENDING:
        return PENDING
    if behaviour.mode is Mode.REJECT:
        return Decision("REJECTED", behaviour.reason_code)
    if holders.get(payment.account) != payment.agent_bic:
        return Decision("REJECTED", "AC01")
    if payment.currency not in CURRENCIES:
        return Decision("REJECTED", "AM03")
    return ACCEPTED if payment.amount_minor > 0 else Decision("REJECTED", "AM12")


@dataclass(frozen=True, slots=True)
class PaymentOut:
    """A payment of an account here to another bank; sent again always under the same ids."""

    end_to_end_id: str
    agent_bic: str
    message_id: str
    uetr: str
    from_account: str
    to_account: str
    amount_minor: int
    currency: str
    debtor_name: str
    creditor_name: str
    sent_at: datetime
    status: str = "UNKNOWN"
    iso_status: str | None = None
    reason_code: str | None = None


def outcome_of(iso_status: str | None) -> str:
    """What the answer to a payment of ours means for our books."""
    if iso_status in ("ACSC", "ACCC", "ACWP"):
        return "ACCEPTED"
    return "REJECTED" if iso_status == "RJCT" else "UNKNOWN"
