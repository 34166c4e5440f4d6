"""The commands of docs/tutorials/follow-a-payment.md, pasted one after another into a shell, show what it says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from payflow_dev.kafka.jars import fetch
from tests.support.ports import free_ports
from tests.support.programs import require_program
from tests.support.servers import ROOT
from tests.support.system import free_port_base

pytestmark = pytest.mark.timeout(600)
TUTORIAL = ROOT / "docs" / "tutorials" / "follow-a-payment.md"
# It sleeps for about 140 s, most of it until an alert fires.
PATIENCE_S = 420


def blocks() -> list[str]:
    """What is pasted."""
    return re.findall(r"```sh\n(.*?)```", TUTORIAL.read_text(encoding="utf-8"), flags=re.DOTALL)


def elsewhere(script: str, folder: Path) -> str:
    """The same commands with ports and files of this test's own."""
    base = free_port_base()
    public, otlp, prometheus = free_ports(3)
    for shown, own in (
        ("up -d --kafka", f"up -d --kafka --port-base {base} --port {public}"),
        ("dev otlp", f"dev otlp --port {otlp}"),
        ("dev prometheus", f"dev prometheus --port {prometheus}"),
        ("localhost:8080", f"localhost:{public}"),
        ("127.0.0.1:4318", f"127.0.0.1:{otlp}"),
        ("localhost:9090", f"localhost:{prometheus}"),
        ("127.0.0.1:3003", f"127.0.0.1:{base + 3}"),
        ("/tmp/payflow-", f"{folder}/payflow-"),
    ):
        assert shown in script, shown
        script = script.replace(shown, own)
    return script


@pytest.fixture(scope="module")
def printed() -> Iterator[list[str]]:
    """What each block printed."""
    fetch()
    for program in ("prometheus", "promtool"):
        require_program(program, package="prometheus")
    folder = Path(tempfile.mkdtemp(prefix="pf-tut-", dir="/tmp"))
    script = elsewhere("".join(f"{block}\necho '@@@'\n" for block in blocks()), folder)
    environ = {**os.environ, "PAYFLOW_DATA_DIR": str(folder / "data")}
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = shell.communicate(timeout=PATIENCE_S)
        yield out.split("@@@\n")
    finally:
        # Whatever the shell left behind where it did not come to its end.
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGTERM)
        subprocess.run(["./payflow", "down"], cwd=ROOT, env=environ, capture_output=True, timeout=60, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def test_every_block_comes_to_its_end(printed: list[str]) -> None:
    assert len(printed) == len(blocks()) + 1, printed[-1][-2000:]
    assert "command not found" not in "".join(printed)


def test_a_payment_is_made_and_found_in_its_trace_its_log_lines_and_the_metrics(printed: list[str]) -> None:
    _, _, paid, head, trace, lines, metrics, *_ = printed

    assert '"status":"SUCCESS"' in paid, paid
    (trace_id,) = re.findall(r"^traceresponse: 00-([0-9a-f]{32})-", head, re.MULTILINE)
    assert trace.startswith(f"trace {trace_id}\n"), trace
    for called in ("confirm/confirm", "account/transfer", "ofac/screen", "kyc/check", "event log process audit"):
        assert called in trace, trace
    ended, count = lines.strip().splitlines()
    assert '"payflow.state":"COMPLETED"' in ended
    assert f'"trace.id":"{trace_id}"' in ended
    assert int(count) >= 8
    assert 'payflow_payments_total{state="COMPLETED"} 1.0' in metrics, metrics
    assert re.search(r"payment_volume_minor_units_total\{.*\} => 100000 @", metrics), metrics
    assert "{} => 11 @" in metrics


def test_a_killed_service_comes_back_by_itself_and_one_that_stays_down_raises_an_alert_that_ends(
    printed: list[str],
) -> None:
    *_, restarted, alert, refused, over, stopped = printed[:-1]

    assert "kyc was killed once." in restarted
    assert re.search(r"kyc .* healthy .* 1 ", restarted), restarted
    assert 'alertstate="firing"' in alert, alert
    assert 'process="kyc"' in alert, alert
    assert '"error":' in refused, refused
    assert "\n0\n" in f"\n{over}", over  # alerts that fire
    assert '"status":"SUCCESS"' in over, over
    assert "The ledger is whole" in over, over
    assert "Stopped in" in stopped
