"""The costs that `payflow capacity` computes with are those of the newest kept run."""

from __future__ import annotations

from payflow.run.instance import repository_root
from payflow_dev.bench.costs import MEASURED, as_json, costs_of
from payflow_dev.bench.kept import over_connections, read_kept


def test_the_kept_costs_are_those_of_the_newest_kept_run() -> None:
    kept, _ = read_kept(sorted((repository_root() / "bench" / "results").glob("*.json")))

    costs = costs_of(over_connections(kept))

    assert costs is not None
    assert MEASURED.read_bytes() == as_json(costs), "run `make plots`"
