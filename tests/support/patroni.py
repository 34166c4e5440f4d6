"""Two PostgreSQL servers under Patroni, one of which is the other's synchronous standby, with etcd as their judge.

Patroni is no dependency of the product: it is installed once, below ~/.cache/payflow.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import psutil
import yaml

from payflow.run.embedded.user import server_user
from tests.support.ports import free_ports, wait_for_port
from tests.support.postgres_node import DATABASE, OWNER, PASSWORD, as_user, programs
from tests.support.programs import require_program

_PACKAGES: Final = ("patroni[etcd3,psycopg3]==4.1.5", "psycopg-binary")
_READY_S: Final = 90.0
# How long the dead leader's word holds is most of a failover.
TTL_S: Final = 20


@dataclass
class Node:
    """One server and its Patroni."""

    name: str
    port: int
    api: int
    configuration: Path
    data: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def role(self) -> str:
        """What Patroni says of it: primary, sync_standby, replica; empty while it says nothing."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api}/patroni", timeout=2) as answer:
                told = json.loads(answer.read())
        except urllib.error.HTTPError as error:
            told = json.loads(error.read() or b"{}")
        except OSError:
            return ""
        if told.get("state") != "running":
            return ""
        return "sync_standby" if told.get("sync_standby") else str(told.get("role", ""))


class Patroni:
    """The pair. `url` names both, whichever is the primary: services look for it themselves."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bin, self._user = programs()
        self._python, self._site = _python_of(folder)
        self._etcd_ports = free_ports(2)
        self._etcd: subprocess.Popen[bytes] | None = None
        self.nodes = [self._node(number) for number in (1, 2)]
        if self._user is not None:
            os.chown(folder, self._user.uid, self._user.gid)

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://{OWNER}:{PASSWORD}@{places}/{DATABASE}?target_session_attrs=read-write"

    @property
    def leader(self) -> Node:
        return next(node for node in self.nodes if node.role() == "primary")

    def start(self) -> None:
        """Start all, and wait until one is the primary and the other its synchronous standby."""
        client, peer = self._etcd_ports
        etcd = require_program("etcd", package="etcd-server")
        with (self._folder / "etcd.log").open("wb") as log:
            self._etcd = subprocess.Popen(
                [etcd, f"--data-dir={self._folder / 'etcd'}",
                 f"--listen-client-urls=http://127.0.0.1:{client}", f"--advertise-client-urls=http://127.0.0.1:{client}",
                 f"--listen-peer-urls=http://127.0.0.1:{peer}", f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
                 f"--initial-cluster=default=http://127.0.0.1:{peer}"],
                stdout=log, stderr=subprocess.STDOUT, cwd="/",
                **as_user(server_user()),
            )  # fmt: skip
        wait_for_port(client, seconds=20)
        self.run(self.nodes[0])
        self.until(lambda: self.nodes[0].role() == "primary")
        self.run(self.nodes[1])
        self.until(lambda: self.nodes[1].role() == "sync_standby")
        asyncio.run(self._make_database())

    def run(self, node: Node) -> None:
        """Start a node's Patroni, which starts its PostgreSQL."""
        environ = {"PATH": "/usr/bin:/bin", "LANG": "C", "TZ": "UTC", "PYTHONPATH": str(self._site)}
        with (self._folder / f"{node.name}.log").open("ab") as log:
            node.process = subprocess.Popen(
                [self._python, "-m", "patroni", node.configuration],
                stdout=log, stderr=subprocess.STDOUT, cwd="/", env=environ,
                **as_user(self._user),
            )  # fmt: skip

    def kill(self, node: Node) -> None:
        """End a node as a power cut does: its Patroni, its PostgreSQL and every process of that, by SIGKILL."""
        assert node.process is not None
        node.process.kill()
        postmaster = psutil.Process(int((node.data / "postmaster.pid").read_text().split("\n", 1)[0]))
        for process in [postmaster, *postmaster.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        node.process.wait()

    def switch_over(self) -> None:
        """Have the standby become the primary in an orderly way; returns when it is."""
        leader = self.leader
        other = next(node for node in self.nodes if node is not leader)
        body = json.dumps({"leader": leader.name, "candidate": other.name}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{leader.api}/switchover", data=body, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert answer.status == 200, answer.read()
        self.until(lambda: other.role() == "primary")

    def until(self, is_so: Callable[[], bool], *, seconds: float = _READY_S) -> None:
        deadline = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < deadline, self.log_tails()
            time.sleep(0.2)

    def stop(self) -> None:
        for node in self.nodes:
            if node.process is not None and node.process.poll() is None:
                self.kill(node)
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait()

    def log_tails(self) -> str:
        return "\n".join(
            "\n".join((self._folder / f"{node.name}.log").read_text(errors="replace").splitlines()[-15:])
            for node in self.nodes
            if (self._folder / f"{node.name}.log").exists()
        )

    async def _make_database(self) -> None:
        connection = await asyncpg.connect(self.url.replace(f"/{DATABASE}?", "/postgres?"))
        await connection.execute(f"CREATE DATABASE {DATABASE}")
        await connection.close()

    def _node(self, number: int) -> Node:
        port, api = free_ports(2)
        name = f"node{number}"
        node = Node(name, port, api, self._folder / f"{name}.yml", self._folder / f"data-{name}")
        node.configuration.write_text(yaml.safe_dump(self._configuration(node)))
        return node

    def _configuration(self, node: Node) -> dict[str, Any]:
        login = {"username": OWNER, "password": PASSWORD}
        return {
            "scope": "payflow",
            "name": node.name,
            "restapi": {"listen": f"127.0.0.1:{node.api}", "connect_address": f"127.0.0.1:{node.api}"},
            "etcd3": {"host": f"127.0.0.1:{self._etcd_ports[0]}"},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": 2,
                    "retry_timeout": 5,
                    "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 160}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{node.port}",
                "connect_address": f"127.0.0.1:{node.port}",
                "data_dir": str(node.data),
                "bin_dir": str(self._bin),
                "pgpass": str(self._folder / f"pgpass-{node.name}"),
                "authentication": {"superuser": login, "replication": login, "rewind": login},
                "parameters": {"unix_socket_directories": str(self._folder), "shared_buffers": "64MB"},
                "pg_hba": [
                    "local all all scram-sha-256",
                    "host all all 127.0.0.1/32 scram-sha-256",
                    "host replication all 127.0.0.1/32 scram-sha-256",
                ],
            },
        }


@contextmanager
def running_patroni(folder: Path) -> Iterator[Patroni]:
    patroni = Patroni(folder)
    try:
        patroni.start()
        yield patroni
    finally:
        patroni.stop()


def _python_of(folder: Path) -> tuple[str, Path]:
    """A Python that the servers' user may run, and the folder with Patroni for it."""
    # Of the system's own, where the tests are root's: others may be below a home folder.
    python = sys.executable if server_user() is None else require_program("/usr/bin/python3", package="python3")
    version = subprocess.run(
        [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=True
    ).stdout.strip()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "payflow" / f"patroni-4.1.5-py{version}"
    if not (cache / "patroni").is_dir():
        # By the Python that will run it: wheels are of its version.
        command = [python, "-m", "pip", "install", "-q", "--target", str(cache), *_PACKAGES]
        subprocess.run(command, check=True, timeout=300)
    site = folder / "patroni-site"
    # A home folder is closed to the servers' user.
    shutil.copytree(cache, site)
    return python, site
