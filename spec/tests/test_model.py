"""What needs Java: recorded payments held against the model, and the checker itself (`make test-java`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from payflow_dev.spec import proofs
from payflow_dev.spec.histories import History, check_histories, judge_histories
from payflow_dev.spec.tlc import SPEC, CheckFailed, check
from tests.builders_spec import a_history

# One search for all tables: Java starts once, and what is refused takes a while to be sure of.
pytestmark = pytest.mark.timeout(600)

ENDED = ["book", "hold"]
BANK: dict[str, Any] = {"is_on_us": False}
PAID = "RECEIVED APPROVED COMPLETED"
SENT = "RECEIVED APPROVED HELD SUBMITTED"

REAL = {
    "paid at once": a_history(PAID, effects=1),
    "no money": a_history("RECEIVED APPROVED REJECTED", refused=ENDED),
    "refused at once": a_history("RECEIVED REJECTED"),
    "left behind, and ended": a_history("RECEIVED REJECTED", token=3, refused=ENDED),
    "taken over": a_history(PAID, effects=1, token=4),
    "paid, and told by another": a_history("RECEIVED APPROVED COMPLETED", effects=1, token=2),
    "waits for its code": a_history("RECEIVED AWAITING_OTP"),
    "paid with a code": a_history("RECEIVED AWAITING_OTP APPROVED COMPLETED", effects=1, token=2),
    "no code came": a_history("RECEIVED AWAITING_OTP EXPIRED", token=2, refused=ENDED),
    "under review": a_history("RECEIVED UNDER_REVIEW", hold="HELD"),
    "reviewed and paid": a_history("RECEIVED UNDER_REVIEW APPROVED COMPLETED", effects=1, hold="CAPTURED", token=2),
    "cancelled under review": a_history("RECEIVED UNDER_REVIEW CANCELLED", hold="RELEASED", token=2, refused=ENDED),
    "for later": a_history("RECEIVED APPROVED SCHEDULED APPROVED COMPLETED", is_for_later=True, effects=1, token=2),
    "for later, reviewed": a_history("RECEIVED UNDER_REVIEW APPROVED SCHEDULED", is_for_later=True, token=2),
    "for later, too late for that": a_history(
        "RECEIVED UNDER_REVIEW APPROVED COMPLETED", is_for_later=True, effects=1, token=2
    ),
    "at the bank": a_history(SENT, **BANK, hold="HELD", instruction="UNKNOWN"),
    "accepted": a_history(f"{SENT} COMPLETED", **BANK, effects=1, hold="CAPTURED", instruction="ACCEPTED"),
    "rejected there": a_history(f"{SENT} REJECTED", **BANK, hold="RELEASED", instruction="REJECTED", refused=ENDED),
    "accepted late": a_history(
        f"{SENT} COMPLETED", **BANK, effects=1, hold="CAPTURED", instruction="ACCEPTED", token=9
    ),
}

DOCTORED = {
    "an end without its effect": a_history(PAID),
    "an effect without its end": a_history("RECEIVED APPROVED REJECTED", effects=1),
    "an effect while it waits for a code": a_history("RECEIVED AWAITING_OTP", effects=1),
    "two effects": a_history(PAID, effects=2, token=4),
    "a step that the table does not have": a_history("RECEIVED COMPLETED", effects=1),
    "an end that was left": a_history("RECEIVED REJECTED APPROVED COMPLETED", effects=1),
    "an end that came twice": a_history("RECEIVED APPROVED COMPLETED COMPLETED", effects=1, token=2),
    "cancelled with the funds still held": a_history("RECEIVED UNDER_REVIEW CANCELLED", hold="HELD", token=2),
    "cancelled with nothing remembered": a_history("RECEIVED AWAITING_OTP CANCELLED", token=2),
    "a code that nobody came with": a_history("RECEIVED AWAITING_OTP APPROVED COMPLETED", effects=1, token=1),
    "a review that held nothing": a_history("RECEIVED UNDER_REVIEW"),
    "for later, and funds held": a_history("RECEIVED APPROVED SCHEDULED", is_for_later=True, hold="HELD"),
    "scheduled, and ordered for now": a_history("RECEIVED APPROVED SCHEDULED"),
    "captured after the release": a_history(
        f"{SENT} COMPLETED", **BANK, effects=1, hold="RELEASED", instruction="ACCEPTED", token=2, refused=ENDED
    ),
    "completed against the bank's word": a_history(
        f"{SENT} COMPLETED", **BANK, effects=1, hold="CAPTURED", instruction="REJECTED", token=2
    ),
    "given back without the bank's word": a_history(
        f"{SENT} REJECTED", **BANK, hold="RELEASED", instruction="UNKNOWN", token=2, refused=ENDED
    ),
    "given back against the bank's word": a_history(
        f"{SENT} REJECTED", **BANK, hold="RELEASED", instruction="ACCEPTED", token=2, refused=ENDED
    ),
    "sent out and not submitted": a_history("RECEIVED APPROVED", **BANK, hold="HELD", instruction="UNKNOWN", token=2),
    "sent out and ended here": a_history(
        "RECEIVED APPROVED REJECTED", **BANK, hold="RELEASED", instruction="ACCEPTED", token=2, refused=ENDED
    ),
    "submitted without funds held": a_history(SENT, **BANK, instruction="UNKNOWN"),
}


@pytest.fixture(scope="module")
def refused() -> set[str]:
    """The payments of all tables above that the model refuses: asked once, since Java is slow to start."""
    everything = [*REAL.values(), *DOCTORED.values()]
    return {id for violation in judge_histories(everything) for id in violation.payment_ids}


@pytest.mark.parametrize("name", REAL)
def test_a_payment_as_it_really_goes_is_a_behaviour_of_the_model(name: str, refused: set[str]) -> None:
    assert REAL[name].payment_id not in refused


@pytest.mark.parametrize("name", DOCTORED)
def test_a_history_that_cannot_have_happened_is_refused(name: str, refused: set[str]) -> None:
    assert DOCTORED[name].payment_id in refused


def test_of_many_payments_with_one_shape_the_refusal_tells_how_many_and_what(tmp_path: Path) -> None:
    lost: list[History] = [a_history(PAID) for _ in range(7)]
    file = tmp_path / "payments.jsonl"
    file.write_bytes(b"\n".join(msgspec.json.encode(one) for one in [*lost, a_history(PAID, effects=1)]) + b"\n")

    (violation,) = check_histories(file)

    assert violation.count == 7
    assert len(violation.payment_ids) == 5
    assert "RECEIVED > APPROVED > COMPLETED (entries: 0" in violation.what


def test_a_planted_mistake_is_found_with_the_steps_that_lead_to_it() -> None:
    (planted,) = [one for one in proofs.PLANTED if one.flaw == "answer_before_write"]

    result = proofs.find(planted, workers=1)

    assert result.violated == "OneFinalAnswer"
    assert result.steps[0] == "Claim"


def test_a_specification_that_cannot_be_read_is_no_pass() -> None:
    with pytest.raises(CheckFailed):
        check(module=SPEC / "payment.tla", config="SPECIFICATION NoSuchThing\n")
