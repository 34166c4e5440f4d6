"""Holds every payment of a fault run against the model: is what really happened a behaviour that it allows?"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from payflow_dev.spec.histories import Violation, check_histories
from payflow_dev.spec.recording import record_histories
from payflow_dev.spec.tlc import CheckFailed, ToolMissing


class ModelVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of a run's payments. `not_checked`: why they could not be held against it; None: they were.
    `is_excused`: whether somebody has asked for it not to be done.

    `file` has the histories: `python -m payflow_dev.spec check FILE` holds them against the model again.
    """

    file: str
    payments: int
    violations: list[Violation]
    not_checked: str | None = None
    is_excused: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the model was asked, or that was excused, and refuses nothing."""
        return not self.violations and (self.not_checked is None or self.is_excused)

    @property
    def words(self) -> str:
        """The verdict in a sentence."""
        if self.not_checked is not None:
            excuse = "" if self.is_excused else "; excuse it with --without model"
            return f"not checked: {self.payments:,} recorded payments against the model ({self.not_checked}{excuse})"
        if self.violations:
            refused = sum(violation.count for violation in self.violations)
            return f"{refused:,} of {self.payments:,} recorded payments are no behaviour of the model"
        return f"all {self.payments:,} recorded payments are behaviours of the model"


async def hold_against_model(*, database_url: str, path: Path, is_wanted: bool = True) -> ModelVerdict:
    """Record the histories of all payments in a database to a file, and check them, unless only the file is wanted.

    What Java or Maven is missing for is told as not checked. Raises what record_histories raises.
    """
    payments = await record_histories(database_url=database_url, path=path)
    if not is_wanted:
        return ModelVerdict(file=path.name, payments=payments, violations=[], not_checked="excused", is_excused=True)
    try:
        violations = await asyncio.to_thread(check_histories, path)
    except (ToolMissing, CheckFailed) as error:
        # A history that the checker cannot even read is no pass.
        is_missing = isinstance(error, ToolMissing)
        failure = [] if is_missing else [Violation(payment_ids=[], count=payments, what=f"The check failed: {error}")]
        return ModelVerdict(
            file=path.name, payments=payments, violations=failure, not_checked=str(error) if is_missing else None
        )
    return ModelVerdict(file=path.name, payments=payments, violations=violations)
