"""One payment's way: how long each step takes, and what comes of it."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.dashboards.panels import CONFIRM, RANGE, Dashboard, Line, Panel, or_none, quantile, rate


def _step(title: str, callee: str, operation: str, description: str) -> Panel:
    """What a step takes as its caller sees it."""
    histogram = f'payflow_rpc_client_seconds_bucket{{callee="{callee}",operation=~"{operation}"}}'
    lines = [Line(quantile(which, histogram), f"p{which * 100:g}") for which in (0.5, 0.99)]
    return Panel(title, lines, "s", width=6, description=description)


_GATEWAY: Final = 'payflow_http_request_seconds_bucket{route="/payment/confirm"}'
_PANELS: Final = (
    Panel(
        "The whole way, as customers see it",
        [Line(quantile(which, _GATEWAY), f"p{which * 100:g}") for which in (0.5, 0.95, 0.99)],
        "s",
        width=12,
        description="At the gateway. Points are exemplars: each leads to the trace of one payment.",
    ),
    Panel(
        "Where 95 of 100 calls stay below",
        [Line(quantile(0.95, "payflow_rpc_client_seconds_bucket", by="callee, operation"), "{{callee}}.{{operation}}")],
        "s",
        width=12,
    ),
    _step(
        "1. confirm takes it", "confirm", "confirm|confirm_with_otp", "Gateway to confirm, everything below included."
    ),
    _step("2. accounts are found", "account", "resolve", "Whose they are, their currency and state."),
    _step("3. risk is assessed", "risk", "assess", "Sanctions and identification included."),
    _step("3a. names are screened", "ofac", "screen", "By risk, against sanctions lists."),
    _step("3b. the customer is known", "kyc", "check", "By risk: how far the customer was identified."),
    _step(
        "4. money moves", "account", "transfer|place_hold|capture_hold", "A transfer here, or a hold for another bank."
    ),
    _step("5. the other bank is told", "partner_bank", "submit", "pacs.008 to it, and its answer."),
    Panel(
        "6. those who hear of it",
        [Line(quantile(0.99, "payflow_event_delay_seconds_bucket", by="consumer"), "{{consumer}} p99")],
        "s",
        width=6,
        description="From the payment's end until the effect is committed: the audit trail, the message.",
    ),
    Panel(
        "States that payments come into",
        [Line(rate("payflow_payments_total", by="state"), "{{state}}")],
        "reqps",
        width=12,
    ),
    Panel(
        "Why payments are refused",
        [Line(or_none(rate("payflow_payment_refusals_total", by="code")), "{{code}}")],
        "reqps",
        width=12,
    ),
    Panel(
        "Payments in one call",
        [
            Line(
                f"sum(rate(payflow_rpc_answers_total{{{CONFIRM}}}[{RANGE}]))"
                f" / sum(rate(payflow_rpc_seconds_count{{{CONFIRM}}}[{RANGE}]))",
                "payments",
            )
        ],
        width=12,
        description="Payments that arrive together travel together: the busier, the cheaper each one.",
    ),
    Panel(
        "Waiting before a call takes them",
        [Line("sum by (callee) (payflow_rpc_queue_items)", "{{callee}}")],
        width=12,
    ),
)
WAY: Final = Dashboard("payflow-way", "One payment's way", _PANELS)
