"""Brokers as child processes of this one: started, killed and started again one by one, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from payflow.run.datadir import ensure_secret, write_atomically
from payflow.run.supervisor.environment import KAFKA_USER
from payflow_dev.kafka.jars import fetch, java
from payflow_dev.kafka.node import Node, new_cluster_id

_READY_S: Final = 90.0
_STOP_S: Final = 10.0


class ClusterFailed(Exception):
    """A broker ended, or did not become ready; the message has the end of its log."""


def make_nodes(*, folder: Path, ports: Sequence[tuple[int, int]], more: Mapping[str, str] | None = None) -> list[Node]:
    """A node for each pair of ports (the broker's, the controller's), with their files below `folder`.

    Their cluster's id and password are made at the first call. Raises ToolMissing.
    """
    jars, program = fetch(), java()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    id_file = folder / "cluster.id"
    if not id_file.exists():
        write_atomically(id_file, new_cluster_id() + "\n")
    voters = [(number, controller_port) for number, (_, controller_port) in enumerate(ports, start=1)]
    return [
        Node(
            number=number,
            port=port,
            controller_port=controller_port,
            voters=voters,
            folder=folder / f"node-{number}",
            jars=jars,
            java=program,
            cluster_id=id_file.read_text().strip(),
            password=ensure_secret(folder / "password"),
            more=more or {},
        )
        for number, (port, controller_port) in enumerate(ports, start=1)
    ]


class Cluster:
    """Running brokers; use as a context manager. They die with this process, however it ends."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = list(nodes)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Cluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def brokers(self) -> str:
        """host:port,host:port of all nodes."""
        return ",".join(node.address for node in self.nodes)

    def start(self) -> None:
        """Start every node and return when all are in the cluster. Raises ClusterFailed."""
        for node in self.nodes:
            node.write_configuration()
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(Node.format, self.nodes))
        for node in self.nodes:
            self.start_node(node.number)
        self.wait_ready(count=len(self.nodes))

    def start_node(self, number: int) -> None:
        """Start one node, which is then not ready yet."""
        node = self.nodes[number - 1]
        with self.log_of(number).open("ab") as log:
            self._processes[number] = subprocess.Popen(
                [sys.executable, "-m", "payflow_dev.kafka.broker_process", str(os.getpid()), *node.command()],
                env={**node.environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def log_of(self, number: int) -> Path:
        """Where a node's log is."""
        return self.nodes[number - 1].folder / "broker.log"

    def kill_node(self, number: int) -> None:
        """End a node by SIGKILL and see it gone."""
        process = self._processes.pop(number)
        process.kill()
        process.wait(timeout=10)

    def is_running(self, number: int) -> bool:
        """Whether a node's process lives."""
        process = self._processes.get(number)
        return process is not None and process.poll() is None

    def pid_of(self, number: int) -> int:
        """The process of a running node."""
        return self._processes[number].pid

    def wait_ready(self, *, count: int, seconds: float = _READY_S) -> None:
        """Return when so many nodes are in the cluster. Raises ClusterFailed."""
        deadline = time.monotonic() + seconds
        while self._in_cluster() < count:
            for number, process in self._processes.items():
                if process.poll() is not None:
                    raise ClusterFailed(f"Node {number} ended with {process.returncode}: {self._end_of_log(number)}")
            if time.monotonic() >= deadline:
                ends = "\n".join(self._end_of_log(node.number) for node in self.nodes)
                raise ClusterFailed(f"The cluster was not ready within {seconds:.0f} s: {ends}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop every node; whoever is too slow is killed."""
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=max(0.0, deadline - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait(timeout=10)
        self._processes.clear()

    def _in_cluster(self) -> int:
        running = [replace(node) for node in self.nodes if self.is_running(node.number)]
        return members_of(running) if running else 0

    def _end_of_log(self, number: int) -> str:
        with suppress(OSError):
            return self.log_of(number).read_text(encoding="utf-8", errors="replace")[-1500:]
        return "there is no log"


def members_of(nodes: Sequence[Node]) -> int:
    """How many brokers the cluster has; 0 where it does not answer within a second or two."""
    admin = AdminClient(
        {
            "bootstrap.servers": ",".join(node.address for node in nodes),
            "security.protocol": nodes[0].properties()["listener.security.protocol.map"].split(",")[0].split(":")[1],
            "sasl.mechanism": "PLAIN",
            "sasl.username": KAFKA_USER,
            "sasl.password": nodes[0].password,
            "reconnect.backoff.max.ms": 100,
            "log_level": 0,
        }
    )
    try:
        return len(admin.list_topics(timeout=1.0).brokers)
    except KafkaException:
        return 0
