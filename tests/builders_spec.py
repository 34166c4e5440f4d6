"""Histories of payments as `payflow_dev.spec` records them."""

from __future__ import annotations

from datetime import timedelta

from payflow_dev.spec.histories import History, Move
from tests.builders import NOON, new_id


def a_history(states: str, *, is_on_us: bool = True, is_for_later: bool = False, token: int = 1, **facts: object):
    """A payment that passed these states, written with blanks between, first to last."""
    targets = states.split()
    sources = [None, *targets]
    moves = [
        Move(version=number, source=source, target=target, at=NOON + timedelta(seconds=number))
        for number, (source, target) in enumerate(zip(sources, targets, strict=False), start=1)
    ]
    return History(
        payment_id=str(new_id()),
        is_on_us=is_on_us,
        is_for_later=is_for_later,
        moves=moves,
        fencing_token=token,
        **facts,
    )
