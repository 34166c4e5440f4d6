"""What is promised to customers, and how fast the rest of it is used up (docs/slo.md)."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.dashboards.panels import Dashboard, Line, Panel

_WINDOWS: Final = ("5m", "30m", "1h", "6h", "3d")
_ERRORS_ALLOWED: Final = 0.001
_SLOW_ALLOWED: Final = 0.01


def _burn(title: str, record: str, allowed: float) -> Panel:
    lines = [Line(f"{record}:ratio_rate{window} / {allowed}", window) for window in _WINDOWS]
    description = "1: the month's budget lasts a month. 14.4 over an hour, or 6 over six hours, page somebody."
    return Panel(title, lines, width=12, description=description)


def _left(title: str, record: str, allowed: float) -> Panel:
    return Panel(title, [Line(f"1 - {record}:ratio_rate3d / {allowed}", "left")], "percentunit", "stat", 12)


_PANELS: Final = (
    _left("Budget for errors left, at the rate of three days", "payflow:payment_errors", _ERRORS_ALLOWED),
    _left("Budget for slowness left, at the rate of three days", "payflow:payment_slow", _SLOW_ALLOWED),
    _burn("Errors: times the rate that is allowed", "payflow:payment_errors", _ERRORS_ALLOWED),
    _burn("Slow payments: times the rate that is allowed", "payflow:payment_slow", _SLOW_ALLOWED),
    Panel(
        "Share of payments that failed",
        [
            Line("payflow:payment_errors:ratio_rate5m", "5 minutes"),
            Line("payflow:payment_errors:ratio_rate1h", "1 hour"),
        ],
        "percentunit",
        width=12,
    ),
    Panel(
        "Share of payments above half a second",
        [Line("payflow:payment_slow:ratio_rate5m", "5 minutes"), Line("payflow:payment_slow:ratio_rate1h", "1 hour")],
        "percentunit",
        width=12,
    ),
    Panel(
        "Alerts that fire",
        [Line('count by (alertname) (ALERTS{alertstate="firing"}) or vector(0)', "{{alertname}}")],
        width=24,
    ),
)
SLO: Final = Dashboard("payflow-slo", "SLO", _PANELS)
