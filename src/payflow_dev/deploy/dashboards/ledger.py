"""The ledger, and money."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.dashboards.panels import RANGE, SINCE_VERIFIED, Dashboard, Line, Panel, or_none, rate

_VOLUME: Final = "payflow_payment_volume_minor_units_total"
_PANELS: Final = (
    Panel("Rules of the ledger that are broken", [Line("max(payflow_ledger_broken)", "broken")], kind="stat", width=6),
    Panel(
        "Since the ledger was verified",
        [SINCE_VERIFIED],
        "s",
        "stat",
        6,
    ),
    Panel(
        "Since the audit trail's end was signed",
        [Line("time() - max(payflow_audit_head_signed_timestamp_seconds > 0) or vector(-1)", "seconds; -1: never")],
        "s",
        "stat",
        6,
    ),
    Panel("Rows outside their month", [Line("max(payflow_ledger_stray_rows)", "rows")], kind="stat", width=6),
    Panel(
        "Money of completed payments, in minor units a second",
        [Line(rate(_VOLUME, by="currency"), "{{currency}}")],
        width=12,
        description="Cents of EUR and USD; currencies are not added up.",
    ),
    Panel(
        "Money movements",
        [
            Line(
                or_none(
                    rate(
                        'payflow_rpc_answers_total{service="account",'
                        'operation=~"transfer|place_hold|capture_hold|release_hold|credit_incoming"}',
                        by="operation, code",
                    )
                ),
                "{{operation}} {{code}}",
            )
        ],
        "reqps",
        width=12,
        description="OK moved money; every other code moved none.",
    ),
    Panel(
        "Payments at other banks, by what they said at once",
        [Line(or_none(rate("payflow_bank_submissions_total", by="status")), "{{status}}")],
        "reqps",
        width=8,
    ),
    Panel(
        "Money that came from other banks",
        [Line(or_none(rate("payflow_incoming_payments_total", by="status")), "{{status}}")],
        "reqps",
        width=8,
    ),
    Panel(
        "Money from other banks that is not where it stays",
        [Line("max by (state) (payflow_incoming_open)", "{{state}}")],
        width=8,
    ),
    Panel("Returns that are not made yet", [Line("max by (state) (payflow_returns_open)", "{{state}}")], width=8),
    Panel(
        "Share of payments that were approved",
        [
            Line(
                f'sum(rate(payflow_payments_total{{state="APPROVED"}}[{RANGE}]))'
                f' / sum(rate(payflow_payments_total{{state="RECEIVED"}}[{RANGE}]))',
                "approved",
            )
        ],
        "percentunit",
        width=12,
    ),
    Panel(
        "Share of payments that asked for a one-time password",
        [
            Line(
                f'sum(rate(payflow_payments_total{{state="AWAITING_OTP"}}[{RANGE}]))'
                f' / sum(rate(payflow_payments_total{{state="RECEIVED"}}[{RANGE}]))',
                "with a password",
            )
        ],
        "percentunit",
        width=12,
    ),
    Panel("Risk levels", [Line(rate("payflow_risk_assessments_total", by="level"), "{{level}}")], "reqps", width=12),
    Panel("Review cases that are open", [Line("max(payflow_reviews_open)", "open")], width=12),
)
LEDGER: Final = Dashboard("payflow-ledger", "Ledger and money", _PANELS)
