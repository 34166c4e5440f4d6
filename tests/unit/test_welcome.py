"""The last thing that `up` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from payflow.run.instance import make_instance
from payflow.run.plan import payflow_plan


@pytest.mark.parametrize(("is_detached", "ways"), [(False, " (or Ctrl-C)"), (True, "")])
def test_how_to_stop_it_names_the_ways_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_detached: bool, ways: str
) -> None:
    welcome = payflow_plan(is_detached=is_detached).welcome

    assert welcome is not None
    welcome(make_instance(data_dir=tmp_path / "data"))

    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"Stop: ./payflow down --data-dir {tmp_path}/data{ways}")
