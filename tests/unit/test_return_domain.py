"""A return's rules: who may, how much, above what a second person is asked, and what every state rests on."""

from __future__ import annotations

from datetime import timedelta

from payflow.contracts.returns import ReturnReason, ReturnState
from payflow.contracts.topics import TOPIC_BY_TYPE
from payflow.services.confirm.domain import (
    RETURN_BEGINNINGS,
    RETURN_CARE,
    RETURN_MACHINE,
    RETURN_REFUSED,
    ReturnDeadlines,
)


def test_every_state_that_is_not_final_has_a_deadline_an_owner_and_a_next_step() -> None:
    assert set(RETURN_CARE) == RETURN_MACHINE.states - RETURN_MACHINE.final_states
    assert RETURN_MACHINE.final_states == RETURN_REFUSED | {ReturnState.COMPLETED}
    assert not RETURN_BEGINNINGS & RETURN_MACHINE.final_states


def test_the_deadlines_told_are_the_real_ones() -> None:
    deadlines = ReturnDeadlines()

    assert deadlines.lease == timedelta(seconds=10)
    assert (deadlines.approval, RETURN_CARE[ReturnState.AWAITING_APPROVAL].deadline) == (timedelta(hours=72), "72 h")
    assert (deadlines.review, RETURN_CARE[ReturnState.UNDER_REVIEW].deadline) == (timedelta(hours=72), "72 h")
    assert deadlines.late == timedelta(hours=24)


def test_every_state_has_an_event() -> None:
    followed = {target for _, target in RETURN_MACHINE.transitions()}

    assert {f"return.{state.lower()}" for state in followed} | {"return.requested"} == {
        type_ for type_ in TOPIC_BY_TYPE if type_.startswith("return.")
    }


def test_reasons_are_iso_codes_of_four_characters() -> None:
    assert all(len(reason.value) == 4 and reason.value.isalnum() for reason in ReturnReason)
