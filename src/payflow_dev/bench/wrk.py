"""A step driven by `wrk` instead of the bench's own loader."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from payflow_dev.bench.job import Job, Load
from payflow_dev.bench.loader import ANSWER_WITHIN_S
from payflow_dev.bench.stats import Latencies
from payflow_dev.bench.wire import TRANSACTION_DIGITS, Outcome

SCRIPT: Final = Path(__file__).with_name("wrk.lua")
_NO_ANSWER: Final = {
    "connect_errors": "no connection",
    "read_errors": "no answer: connection lost",
    "write_errors": "no answer: connection lost",
    "timeout_errors": f"no answer within {ANSWER_WITHIN_S:.0f} s",
}


def find_wrk() -> str | None:
    """The program, where it is installed."""
    return shutil.which("wrk")


def start_wrk(*, program: str, job: Job, directory: Path) -> subprocess.Popen[str]:
    """Start wrk on a job; `read_load` makes the result of what it leaves in the directory."""
    _write_job(job, directory)
    command = [program, "--threads=1", f"--connections={job.connections}", f"--duration={max(1, round(job.seconds))}s"]
    command += [f"--timeout={ANSWER_WITHIN_S:.0f}s", f"--script={SCRIPT}", f"http://{job.host}:{job.port}"]
    return subprocess.Popen(
        command,
        env={**os.environ, "PAYFLOW_BENCH_DIR": str(directory)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _write_job(job: Job, directory: Path) -> None:
    settings = {"run_id": job.run_id, "first": job.first, "digits": TRANSACTION_DIGITS}
    lines = {
        "settings": [f"{name} {value}".encode() for name, value in settings.items()],
        "heads": [_escape(head) for head in job.heads],
        "templates": [b"%d\t%s\t%s" % (each.head, _escape(each.between), each.after) for each in job.templates],
    }
    for name, content in lines.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(b"\n".join(content) + b"\n")


def _escape(text: bytes) -> bytes:
    return text.replace(b"\r", b"\\r").replace(b"\n", b"\\n")


def read_load(*, job: Job, directory: Path, cpu_s: float) -> Load:
    """What the step came to. Latencies are wrk's own: over all answers, refusals included."""
    summary = read_summary((directory / "summary").read_text(encoding="ascii"))
    with (directory / "answers").open(encoding="ascii") as lines:
        outcomes, errors = read_answers(lines, first=job.first, sent=summary["sent"])
    for kind, label in _NO_ANSWER.items():
        if summary[kind]:
            errors[label] += summary[kind]
    succeeded, pending = outcomes.count(Outcome.SUCCESS), outcomes.count(Outcome.PENDING)
    p50, p95, p99, most = (summary[f"{name}_us"] / 1000 for name in ("p50", "p95", "p99", "max"))
    return Load(
        outcomes=bytes(outcomes),
        acknowledged=succeeded + pending,
        pending=pending,
        window_s=summary["duration_us"] / 1e6,
        latencies=Latencies(p50_ms=p50, p95_ms=p95, p99_ms=p99, max_ms=most),
        errors=dict(errors),
        cpu_s=cpu_s,
    )


def read_summary(text: str) -> Mapping[str, int]:
    """The figures that the script writes at wrk's end."""
    return {name: int(value) for name, value in (line.split(" ") for line in text.splitlines())}


def read_answers(lines: Iterable[str], *, first: int, sent: int) -> tuple[bytearray, Counter[str]]:
    """Each payment's outcome, and the errors by label.

    Errors carry no transaction id: their payments stay UNKNOWN, as those whose answer never came. Raises ValueError
    when an acknowledgement names no payment of this step.
    """
    outcomes, errors = bytearray(sent), Counter[str]()
    for line in lines:
        kind, _, rest = line.rstrip("\n").partition(" ")
        if kind == "E":
            errors[rest.strip()] += 1
            continue
        place = int(rest) - first
        if not 0 <= place < sent:
            raise ValueError(f"an answer acknowledges payment {rest}, which this step did not send")
        outcomes[place] = Outcome.SUCCESS if kind == "S" else Outcome.PENDING
    return outcomes, errors
