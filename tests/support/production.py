"""Somebody who runs Payflow in production, with an environment of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import asyncpg

from tests.support.ports import is_unused
from tests.support.servers import ROOT

OWN_BANKS = json.dumps([{"bic": "NORDDEFFXXX", "name": "Nordbank", "iban_prefixes": [], "url": "https://bank.example"}])

# A channel for one-time codes; nothing is sent by it here.
OWN_CHANNEL = {
    "PAYFLOW_SMTP_HOST": "mail.example.org",
    "PAYFLOW_SMTP_USERNAME": "payflow",
    "PAYFLOW_SMTP_PASSWORD": "a password of the operator's",
    "PAYFLOW_EMAIL_FROM": "no-reply@payflow.example",
}


class Operator:
    """Somebody who runs Payflow with an environment of their own."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.environ = environ
        self.base = next(base for base in range(17000, 32000, 20) if all(map(is_unused, range(base, base + 20))))

    def run(self, *arguments: str, **settings: str | None) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end; a setting that is None is taken away."""
        return subprocess.run(
            self._command(arguments),
            env=self.with_settings(settings),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def up(self, **settings: str | None) -> subprocess.CompletedProcess[str]:
        ports = ("--port-base", str(self.base), "--port", str(self.base + 15))
        return self.run("up", "-d", "--data-dir", str(self.data_dir), *ports, **settings)

    def on_instance(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run(*arguments, "--data-dir", str(self.data_dir))

    def refusal(self, **settings: str | None) -> str:
        """The line with which `up` refuses; nothing is left running."""
        done = self.up(**settings)
        assert done.returncode == 1, done.stdout + done.stderr
        assert self.on_instance("status").returncode != 0
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr.strip()

    def serve(self, service: str, **settings: str | None) -> subprocess.Popen[str]:
        """Run one service in the foreground."""
        return subprocess.Popen(
            self._command(("serve", service, "--port", str(self.base + 18))),
            env=self.with_settings(settings),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def serve_refusal(self, service: str, **settings: str | None) -> str:
        """The last line of a service that does not start."""
        process = self.serve(service, **settings)
        try:
            output, _ = process.communicate(timeout=20)
        finally:
            process.kill()
        assert process.returncode == 1, output
        return output.strip().splitlines()[-1]

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "payflow.run.main", *arguments]

    def with_settings(self, settings: dict[str, str | None]) -> dict[str, str]:
        changed = self.environ | {f"PAYFLOW_{name}": value for name, value in settings.items() if value is not None}
        absent = {f"PAYFLOW_{name}" for name, value in settings.items() if value is None}
        return {name: value for name, value in changed.items() if name not in absent}


def ask(url: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


async def execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def until_answers(url: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            return ask(url)[1]
        except OSError:
            time.sleep(0.1)
    return {"status": "no answer"}
