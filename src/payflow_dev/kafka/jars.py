"""The broker's jars: fetched once by Maven into the user's cache, each held against its checksum."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path
from typing import Final

VERSION: Final = "4.4.0"
_ARTIFACTS: Final = (
    ("org.apache.kafka", "kafka_2.13", VERSION),
    ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.24.3"),
    ("org.apache.logging.log4j", "log4j-core", "2.24.3"),
)
_OLDEST_JAVA: Final = 17
_JAVA_VERSION: Final = re.compile(r'version "(\d+)')
_FETCH_TIMEOUT_S: Final = 300
HOW_TO_HAVE_IT: Final = (
    "Kafka is a Java program that Maven fetches: install Java 17 or newer and Maven (Debian, Ubuntu: apt-get install "
    "default-jre-headless maven), or set PAYFLOW_KAFKA_BROKERS to brokers that you have."
)


class ToolMissing(Exception):
    """Java, Maven or the broker's jars are not to be had; the message says what to do."""


def java() -> str:
    """The program that runs brokers. Raises ToolMissing where there is none, or only one that is too old."""
    program = shutil.which("java")
    if program is None:
        raise ToolMissing(f"java is not installed. {HOW_TO_HAVE_IT}")
    told = subprocess.run([program, "-version"], capture_output=True, text=True, check=False, timeout=30)
    version = _JAVA_VERSION.search(told.stderr + told.stdout)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        raise ToolMissing(f"{program} is not Java {_OLDEST_JAVA} or newer. {HOW_TO_HAVE_IT}")
    return program


def cache_folder() -> Path:
    """Where fetched jars are: outside the repository, one folder a version."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "payflow" / f"kafka-{VERSION}"


def fetch() -> Path:
    """The folder with the jars, fetched at the first call. Raises ToolMissing."""
    folder = cache_folder()
    if not folder.is_dir():
        if shutil.which("mvn") is None:
            raise ToolMissing(f"mvn is not installed. {HOW_TO_HAVE_IT}")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="kafka.", dir=folder.parent) as work:
            _copy_dependencies(Path(work))
            # Another process may have been first: its jars are as good.
            if not folder.is_dir():
                (Path(work) / "jars").rename(folder)
    _verify(folder)
    return folder


def _copy_dependencies(work: Path) -> None:
    (work / "pom.xml").write_text(_pom(), encoding="utf-8")
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={work / 'jars'}"]
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False, timeout=_FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise ToolMissing(f"Maven did not fetch Kafka {VERSION} within {_FETCH_TIMEOUT_S} s.") from None
    if done.returncode != 0:
        raise ToolMissing(f"Maven could not fetch Kafka {VERSION}: {(done.stdout + done.stderr).strip()[-500:]}")


def _pom() -> str:
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        "</dependency>"
        for group, artifact, version in _ARTIFACTS
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>payflow</groupId><artifactId>kafka</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>"
    )


def _verify(folder: Path) -> None:
    """Raises ToolMissing where a jar is missing, changed, or too many."""
    known = resources.files(__package__).joinpath("jars.sha256").read_text(encoding="utf-8").split()
    wanted = dict(zip(known[1::2], known[::2], strict=True))
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in folder.glob("*.jar")}
    if found != wanted:
        wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
        raise ToolMissing(f"{folder} does not hold the jars that were expected ({', '.join(wrong[:3])}). Remove it.")
