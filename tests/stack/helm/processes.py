"""The containers' processes of rendered Deployments on this machine: their files, variables, start and end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.stack.helm.chart import ROOT

START_S: Final = 240
_TOLD_LINES: Final = 4


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Pod:
    """A container's process on this machine, with its volumes as folders."""

    def __init__(self, *, name: str, pod: dict[str, Any], given: dict[str, str], folder: Path) -> None:
        (self.container,) = pod["containers"]
        self.name = name
        self._volumes = {volume["name"]: volume for volume in pod["volumes"]}
        self._folder = folder
        self.given = given

    def mount(self, sources: dict[str, Path]) -> None:
        """Fill the mounted folders from Secrets, each of which is a folder of files here."""
        for mount in self.container["volumeMounts"]:
            target = self.place(mount["mountPath"])
            target.mkdir(parents=True, exist_ok=True)
            volume = self._volumes[mount["name"]]
            for source in volume.get("projected", {}).get("sources", [volume] if "secret" in volume else []):
                secret = source["secret"]
                origin = sources[secret.get("secretName") or secret["name"]]
                items = secret.get("items") or [{"key": file.name, "path": file.name} for file in origin.iterdir()]
                for item in items:
                    shutil.copy(origin / item["key"], target / item["path"])

    def place(self, path: str) -> Path:
        return self._folder / path.lstrip("/")

    def environ(self, replaced: dict[str, str]) -> dict[str, str]:
        """The variables of the manifest; paths of the container are folders here, names of services this machine."""
        system = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        found = system | {"PYTHONPATH": str(ROOT / "src")}
        for name, value in self.given.items():
            moved = str(self.place(value)) if value.startswith(("/etc/payflow", "/var/lib/payflow")) else value
            found[name] = moved.replace(f"http://payflow-{name[8:-4].lower().replace('_', '-')}:", "http://127.0.0.1:")
        return found | replaced

    def command(self) -> list[str]:
        """As the container's entry point gets its arguments."""
        told = [argument.replace("$(POD_NAME)", f"{self.name}-7f9c") for argument in self.container["args"]]
        arguments = [str(self.place(word)) if word.startswith("/etc/payflow") else word for word in told]
        return [sys.executable, "-m", "payflow.run.main", *arguments]


class Deployed:
    """What runs, and how to ask it."""

    def __init__(self, folder: Path, ports: dict[str, int], public: int) -> None:
        self.folder = folder
        self.ports = ports
        self.public = public
        self.pods: dict[str, tuple[Pod, dict[str, str]]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: dict[str, int] = {}

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def start(self, name: str) -> None:
        pod, replaced = self.pods[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                pod.command(), env=pod.environ(replaced), cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )

    def run_command_line(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What `kubectl exec` does in the pod of the command line."""
        pod, replaced = self.pods["cli"]
        command = [sys.executable, "-m", "payflow.run.main", *arguments]
        environ = pod.environ(replaced)
        return subprocess.run(
            command, env=environ, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )

    def wait_until_ready(self) -> None:
        """Until each is ready. Fails at once where one has ended: what all of them need is there already."""
        deadline = time.monotonic() + START_S
        waiting = dict(self.ports)
        while waiting:
            for name, code in self._ended():
                pytest.fail(f"{name} ended by itself with exit code {code}: {self._end_of(name)}", pytrace=False)
            if time.monotonic() > deadline:
                logs = "".join(f"\n{name}: {self._end_of(name)}" for name in waiting)
                pytest.fail(f"not ready after {START_S} s: {', '.join(waiting)}{logs}", pytrace=False)
            waiting = {name: port for name, port in waiting.items() if not _is_ready(port)}
            time.sleep(0.2)

    def stop(self) -> None:
        """The gateway first, as endpoints do it; whatever does not end is killed."""
        for name in sorted(self.processes, key=lambda name: name != "gateway"):
            process = self.processes[name]
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                self.stopped[name] = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _ended(self) -> list[tuple[str, int]]:
        codes = {name: process.poll() for name, process in self.processes.items()}
        return [(name, code) for name, code in codes.items() if code is not None]

    def _end_of(self, name: str) -> str:
        return "\n".join(self.log_of(name).splitlines()[-_TOLD_LINES:])


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def mail_server(folder: Path, port_base: int) -> Iterator[dict[str, str]]:
    """The stand-in of a mail server with STARTTLS, and the settings for it; keys are files of the folder.

    What it is handed stands in `vendors.log`, a line each.
    """
    folder.mkdir()
    command = [sys.executable, "-m", "payflow.run.main", "vendors", "--email", "smtp"]
    command += ["--folder", str(folder), "--port-base", str(port_base)]
    with (folder / "vendors.log").open("wb") as log:
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        deadline = time.monotonic() + 60
        while "Start Payflow" not in (folder / "vendors.log").read_text():
            assert process.poll() is None, (folder / "vendors.log").read_text()
            assert time.monotonic() < deadline, "the stand-ins do not start"
            time.sleep(0.1)
        yield _mail_settings((folder / "vendors.env").read_text())
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _mail_settings(exports: str) -> dict[str, str]:
    """Those for e-mail of the lines `export NAME='value'`."""
    pairs = (line.removeprefix("export ").partition("=") for line in exports.splitlines())
    return {name: value.strip("'") for name, _, value in pairs if name.startswith(("PAYFLOW_SMTP_", "PAYFLOW_EMAIL_"))}
