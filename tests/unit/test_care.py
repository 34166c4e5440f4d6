"""No state without a deadline, an owner and a next step; no alert on a metric that nobody writes."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

from payflow.contracts.confirm import PaymentState
from payflow.platform.postgres import load_queries
from payflow.run.invariants.stuck import TO_DO
from payflow.services.confirm.domain import CARE, MACHINE, PENDING_REASONS, Deadlines
from payflow.services.partner_bank.domain import CARE as INCOMING_CARE
from payflow.services.partner_bank.domain import LIFE, Status

ROOT = Path(__file__).parents[2]


def test_every_state_that_is_not_final_has_a_deadline_an_owner_and_a_next_step() -> None:
    assert set(CARE) == MACHINE.states - MACHINE.final_states


def test_the_deadlines_told_are_the_real_ones() -> None:
    deadlines = Deadlines()

    assert deadlines.lease == timedelta(seconds=10)
    assert deadlines.unfinished == timedelta(seconds=60)
    assert (deadlines.review, CARE[PaymentState.UNDER_REVIEW].deadline) == (timedelta(hours=72), "72 h")
    assert (deadlines.otp, CARE[PaymentState.AWAITING_OTP].deadline) == (timedelta(minutes=15), "15 min")
    assert deadlines.bank_enquiry == timedelta(seconds=15)


def test_whoever_waits_is_told_why() -> None:
    assert set(CARE) - {PaymentState.AWAITING_OTP} <= set(PENDING_REASONS)


def test_every_incoming_payment_that_is_not_final_has_a_deadline_an_owner_and_a_next_step() -> None:
    incoming = {state for state in LIFE.states - LIFE.final_states if state is not Status.UNKNOWN}

    assert set(INCOMING_CARE) == incoming
    stuck = load_queries("payflow.run.invariants", "stuck.sql").incoming_past_their_deadline
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    for state, care in INCOMING_CARE.items():
        assert f"WHEN '{state}' THEN interval '{int(care.deadline.total_seconds())} seconds'" in stuck
        assert (
            f'payflow_oldest_incoming_age_seconds{{state="{state}"}}) > {int(care.deadline.total_seconds())}' in alerts
        )


def test_every_kind_of_stuck_thing_says_what_to_do() -> None:
    assert set(load_queries("payflow.run.invariants", "stuck.sql").names()) == set(TO_DO)


def test_alerts_name_metrics_that_exist_and_sections_of_runbooks_that_exist() -> None:
    alerts = (ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8")
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    metrics = set(re.findall(r"\b(payflow_\w+)", alerts))
    links = re.findall(r"runbook: (\S+)#(\S+)", alerts)

    for metric in metrics:
        # A histogram is drawn by its parts; what has a colon is one of the rules themselves (`payflow:...`).
        assert f'"{re.sub(r"_(bucket|count|sum)$", "", metric)}"' in source, metric
    for page, section in links:
        headings = re.findall(r"^## (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.M)
        assert section in {heading.lower().replace(" ", "-") for heading in headings}, section
    assert len(links) == alerts.count("alert:")


def test_a_submitted_payment_may_still_be_on_its_way() -> None:
    assert PENDING_REASONS[PaymentState.SUBMITTED] == "The payment is at the other bank, or on its way there."
