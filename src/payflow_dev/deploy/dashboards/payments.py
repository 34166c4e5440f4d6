"""Payments, for the business."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.dashboards.panels import (
    CONFIRM,
    RANGE,
    SINCE_VERIFIED,
    Dashboard,
    Line,
    Panel,
    or_none,
    quantiles,
    rate,
)

_PANELS: Final = (
    Panel(
        "Payments a second",
        [Line(f'sum(rate(payflow_rpc_answers_total{{{CONFIRM},code="OK"}}[{RANGE}]))', "taken")],
        "reqps",
        "stat",
        4,
    ),
    Panel(
        "Money movements a second",
        [
            Line(
                'sum(rate(payflow_rpc_answers_total{service="account",operation=~"transfer|capture_hold",code="OK"}'
                f"[{RANGE}]))",
                "booked",
            )
        ],
        "reqps",
        "stat",
        4,
        "Payments that were booked: transfers here, and holds captured for other banks.",
    ),
    Panel(
        "Unfinished payments",
        [Line("sum(max by (state) (payflow_payments_open))", "unfinished")],
        kind="stat",
        width=4,
    ),
    Panel(
        "Waiting for the other bank",
        [Line('max(payflow_payments_open{state="SUBMITTED"})', "submitted")],
        kind="stat",
        width=4,
    ),
    Panel(
        "Waiting for a review",
        [Line('max(payflow_payments_open{state="UNDER_REVIEW"})', "under review")],
        kind="stat",
        width=4,
    ),
    Panel(
        "Rules of the ledger that are broken",
        [Line("max(payflow_ledger_broken)", "broken")],
        kind="stat",
        width=4,
        description="Of the last verification. Anything but 0 is an alert: docs/runbooks/ledger.md.",
    ),
    Panel(
        "Answers to payments",
        [
            Line(rate(f"payflow_rpc_answers_total{{{CONFIRM}}}", by="code"), "{{code}}"),
            Line(or_none(rate("payflow_payment_refusals_total", by="code")), "refused: {{code}}"),
        ],
        "reqps",
        width=12,
        description="OK is every payment that was taken; those of them that ended unpaid are beside it, by their code.",
    ),
    Panel("Time of a payment at confirm", quantiles(f"payflow_rpc_seconds_bucket{{{CONFIRM}}}"), "s", width=12),
    Panel("Unfinished payments by state", [Line("max by (state) (payflow_payments_open)", "{{state}}")], width=12),
    Panel(
        "Age of the oldest by state",
        [Line("max by (state) (payflow_oldest_payment_age_seconds)", "{{state}}")],
        "s",
        width=12,
    ),
    Panel(
        "Screened against sanctions lists",
        [Line(rate("payflow_screened_payments_total", by="outcome"), "{{outcome}}")],
        "reqps",
    ),
    Panel(
        "One-time passwords",
        [Line(rate('payflow_rpc_answers_total{service="otp"}', by="operation, code"), "{{operation}} {{code}}")],
        "reqps",
    ),
    Panel(
        "Messages to other banks",
        [Line(rate("payflow_bank_messages_total", by="agent, kind, outcome"), "{{agent}} {{kind}} {{outcome}}")],
        "reqps",
    ),
    Panel("Unfinished returns", [Line("max by (state) (payflow_returns_open)", "{{state}}")]),
    Panel("Unfinished bulk orders", [Line("max by (state) (payflow_bulk_orders_open)", "{{state}}")]),
    Panel("Lines of bulk orders", [Line(f"sum(rate(payflow_bulk_lines_total[{RANGE}]))", "begun")], "reqps"),
    Panel(
        "Calls of webhooks",
        [Line(or_none(rate("payflow_webhook_attempts_total", by="outcome")), "{{outcome}}")],
        "reqps",
        width=12,
    ),
    Panel(
        "Since the ledger was verified",
        [SINCE_VERIFIED],
        "s",
        width=12,
    ),
)
PAYMENTS: Final = Dashboard("payflow-payments", "Payments", _PANELS)
