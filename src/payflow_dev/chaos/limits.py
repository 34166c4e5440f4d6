"""How soon all must be well again, and what a run came to by that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

BACK_WITHIN_S: Final = 5.0
QUIET_WITHIN_S: Final = 30.0
POSTGRES_WITHIN_S: Final = 30.0
# Of so few kills the 95th percentile is the slowest.
TOO_FEW_KILLS: Final = 20


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What was to be done within `limit_s` and took `figure_s`; `remark`: what the figure stands for."""

    what: str
    figure_s: float
    limit_s: float
    remark: str = ""

    @property
    def is_met(self) -> bool:
        """Whether it was done in time."""
        return self.figure_s <= self.limit_s

    @property
    def words(self) -> str:
        """The figure with its limit, and whether it is met."""
        remark = f", {self.remark}" if self.remark else ""
        outcome = "" if self.is_met else ": LIMIT NOT MET"
        return f"{self.what} {self.figure_s:g} s (at most {self.limit_s:g} s{remark}){outcome}"


def limits_of(
    *, services_killed: int, back_p95_s: float, paying_p95_s: float, quiet_after_s: float, postgres_s: Sequence[float]
) -> list[Limit]:
    """Each limit that the run has a figure for: what was never killed has none."""
    remark = (
        f"95th percentile of {services_killed} kills"
        if services_killed > TOO_FEW_KILLS
        else f"the slowest of {services_killed} kills, too few for a 95th percentile"
    )
    limits = []
    if services_killed:
        limits = [
            Limit(what="back after a kill", figure_s=back_p95_s, limit_s=BACK_WITHIN_S, remark=remark),
            Limit(what="paying after a kill", figure_s=paying_p95_s, limit_s=BACK_WITHIN_S, remark=remark),
        ]
    if postgres_s:
        slowest = f"the slowest of {len(postgres_s)}"
        limits.append(
            Limit(
                what="paying after PostgreSQL was killed",
                figure_s=max(postgres_s),
                limit_s=POSTGRES_WITHIN_S,
                remark=slowest,
            )
        )
    return [*limits, Limit(what="quiet after the last fault", figure_s=quiet_after_s, limit_s=QUIET_WITHIN_S)]


def percentile_95(values: Sequence[float]) -> float:
    """The value that 95 % do not exceed; of up to TOO_FEW_KILLS values the greatest; 0 of none."""
    known = sorted(values)
    return round(known[min(len(known) - 1, int(len(known) * 0.95))], 2) if known else 0.0
