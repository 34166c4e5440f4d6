"""A real Valkey cluster: three masters, each with a replica, on free ports."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis
from redis.exceptions import RedisError

from payflow.run.embedded.binaries import valkey_server
from payflow.run.embedded.valkey import wait_until_ready
from tests.support.ports import free_ports, wait_for_port
from tests.support.servers import server

# Below this the nodes themselves, on a busy machine, take one another for dead.
NODE_TIMEOUT_MS: Final = 2000
_FORM_S: Final = 60.0
_SLOTS: Final = 16384
KINDS: Final = ("one server", "a cluster")


class ValkeyCluster:
    """Six nodes; `masters` of them share the slots."""

    def __init__(self, folder: Path, *, masters: int = 3, replicas: int = 1) -> None:
        self._folder = folder
        self._masters = masters
        self._replicas = replicas
        # The bus of a node is on a port of its own, named outright: the default is 10,000 above.
        ports = free_ports(2 * masters * (1 + replicas))
        self.ports, self._buses = ports[::2], ports[1::2]
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """For PAYFLOW_REDIS_URL: two of the nodes are enough to find all."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports[:2])

    def start(self) -> None:
        """Start the nodes and have them form a cluster."""
        for port, bus in zip(self.ports, self._buses, strict=True):
            place = self._folder / f"valkey-{port}"
            place.mkdir()
            options = {
                "port": port,
                "cluster-port": bus,
                "bind": "127.0.0.1",
                "cluster-enabled": "yes",
                "cluster-node-timeout": NODE_TIMEOUT_MS,
                "cluster-require-full-coverage": "no",
                "save": "",
                "appendonly": "no",
                "repl-diskless-sync-delay": 0,
                "dir": place,
            }
            arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
            with (place / "log").open("wb") as log:
                self.processes[port] = subprocess.Popen(
                    [valkey_server(), *arguments],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={"PATH": os.environ["PATH"], "LANG": "C"},
                )
        for port in self.ports:
            wait_for_port(port, seconds=15)
        self._form()

    def _form(self) -> None:
        share = _SLOTS // self._masters
        first, *others = self.ports
        for number, port in enumerate(self.ports[: self._masters]):
            last = _SLOTS - 1 if number == self._masters - 1 else (number + 1) * share - 1
            self.ask(port, "CLUSTER", "ADDSLOTSRANGE", number * share, last)
        for port in others:
            bus = self._buses[self.ports.index(port)]
            self.ask(first, "CLUSTER", "MEET", "127.0.0.1", port, bus)
        self._until(lambda: all(self._info(port, "cluster_known_nodes") == str(len(self.ports)) for port in self.ports))
        for number, port in enumerate(self.ports[self._masters :]):
            master = self.ports[number % self._masters]
            self._until(partial(self._replicate, port, master))
        self._until(lambda: all(self._info(port, "cluster_state") == "ok" for port in self.ports))
        self._until(self._are_replicas_up)

    def master_of(self, key: str) -> int:
        """The port of the master that has this key, as the living nodes know it."""
        for port in self.living():
            slot = int(self.ask(port, "CLUSTER", "KEYSLOT", key))
            for entry in self.ask(port, "CLUSTER", "SLOTS"):
                first, last, master, *_ = entry
                if first <= slot <= last:
                    return int(master[1])
        raise AssertionError(f"nobody has {key}")

    def living(self) -> list[int]:
        return [port for port, process in self.processes.items() if process.poll() is None]

    def kill(self, port: int) -> None:
        self.processes[port].kill()
        self.processes[port].wait()

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def ask(self, port: int, *command: object) -> Any:
        """One command of one node, its answer as the protocol tells it."""
        connection = redis.Connection(host="127.0.0.1", port=port, socket_timeout=2, decode_responses=True)
        try:
            connection.send_command(*command)
            return connection.read_response()
        finally:
            connection.disconnect()

    def _info(self, port: int, field: str) -> str:
        lines = str(self.ask(port, "CLUSTER", "INFO")).split("\r\n")
        return dict(line.split(":") for line in lines if ":" in line)[field]

    def _replicate(self, port: int, master: int) -> bool:
        try:
            self.ask(port, "CLUSTER", "REPLICATE", str(self.ask(master, "CLUSTER", "MYID")))
        except RedisError:
            return False
        return True

    def _are_replicas_up(self) -> bool:
        texts = [str(self.ask(port, "INFO", "replication")) for port in self.ports[self._masters :]]
        return all("master_link_status:up" in text for text in texts)

    def _until(self, is_so: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _FORM_S
        while not is_so():
            assert time.monotonic() < deadline, "the cluster does not form"
            time.sleep(0.1)


@contextmanager
def running_cluster(folder: Path, *, replicas: int = 1) -> Iterator[ValkeyCluster]:
    """A cluster that takes commands; its nodes are killed at the end."""
    cluster = ValkeyCluster(folder, replicas=replicas)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@contextmanager
def running_valkey(kind: str) -> Iterator[str]:
    """The address of a real Valkey of this kind (KINDS), in a directory of its own: a server that starts clears the
    sockets of the directory that it is given, PostgreSQL's too."""
    directory = Path(tempfile.mkdtemp(prefix="pf-v-", dir="/tmp"))
    directory.chmod(0o755)
    (directory / "secrets").mkdir(mode=0o700)
    (directory / "run").mkdir()
    try:
        if kind == "a cluster":
            with running_cluster(directory, replicas=0) as cluster:
                yield cluster.url
        else:
            with server("valkey", directory) as url:
                wait_until_ready(path=Path(url.removeprefix("unix://")), seconds=15)
                yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)
