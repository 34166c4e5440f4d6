"""What `payflow verify` prints: words, whatever the rules' examples look like."""

from __future__ import annotations

import pytest

from payflow.run.commands import verify
from payflow.run.invariants.check import Finding


def test_a_finding_is_told_in_words_and_never_in_markup(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Finding(area="ledger", words="all is well", checked=3, broken=0, waiting=2, examples=[])
    broken = Finding(
        area="funds", words="nothing [is] lost", checked=1, broken=1, waiting=0, examples=["payment [red]"]
    )

    verify._print([kept, broken])

    told = capsys.readouterr().out
    assert "kept (2 under way)" in told
    assert "broken: 1" in told
    assert "payment [red]" in told
    assert "[green]" not in told
    assert "1 of 2 rules are broken." in told
