"""Scenes that have brought down other ledgers, each played on an instance of its own and judged like a fault run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from payflow_dev.chaos.scenes.answers import killed_after_answer
from payflow_dev.chaos.scenes.bulks import crossing_bulks
from payflow_dev.chaos.scenes.gone import clients_gone
from payflow_dev.chaos.scenes.load import more_requests_than_connections, overload
from payflow_dev.chaos.scenes.stage import Result, Scene, play_on

SCENES: Final[dict[str, Scene]] = {
    "killed-after-answer": killed_after_answer,
    "clients-gone": clients_gone,
    "more-requests-than-connections": more_requests_than_connections,
    "overload": overload,
    "crossing-bulks": crossing_bulks,
}


def play(names: Sequence[str], *, seed: int, tell: Callable[[str], None] = print) -> list[Result]:
    """Play scenes one after the other. Their histories are not kept where they were good."""
    results = []
    for name in names:
        tell(f"--- {name}: {SCENES[name].words}")
        with tempfile.TemporaryDirectory(prefix="payflow-scene-") as folder:
            results.append(
                play_on(SCENES[name], name=name, seed=seed, history=Path(folder) / "history.jsonl", tell=tell)
            )
        tell(f"    {results[-1].figure}")
    return results
