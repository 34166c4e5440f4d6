"""One broker: its configuration, and the commands that format its storage and run it."""

from __future__ import annotations

import base64
import os
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from payflow.run.supervisor.environment import KAFKA_USER

HOST: Final = "127.0.0.1"
_MEMORY: Final = (
    "-Xmx128m",
    "-Xms64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
)
_FORMAT_TIMEOUT_S: Final = 60

_LOGGING: Final = """\
Configuration:
  status: WARN
  Appenders:
    Console:
      name: stdout
      PatternLayout: {pattern: "%d{yyyy-MM-dd HH:mm:ss.SSS} %p %c{1} - %m%n%throwable{short.message}"}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: stdout}}
    Logger:
      - {name: kafka.server.KafkaRaftServer, level: INFO}
      - {name: org.apache.kafka.clients.NetworkClient, level: ERROR}
"""

# A small broker that is quick to start: few threads, small buffers, quick to see that a neighbour has died. Without the
# cleaner's setting a broker with a heap below 256 MB dies at its start.
_SMALL: Final[dict[str, str]] = {
    "num.network.threads": "2",
    "num.io.threads": "4",
    "num.recovery.threads.per.data.dir": "1",
    "background.threads": "2",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "log.index.size.max.bytes": "1048576",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.fetch.timeout.ms": "2000",
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    # What keeps an idle cluster busy: it says nothing new.
    "metadata.max.idle.interval.ms": "10000",
    "group.coordinator.threads": "1",
}


def new_cluster_id() -> str:
    """A fresh id: nodes of another cluster on the same ports are then refused, not joined.

    As Kafka's own ids it never begins with a dash, which a command line would take for an option.
    """
    while True:
        id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not id.startswith("-"):
            return id


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A broker and controller. `voters` are (number, controller's port) of every node; `folder` is its own.

    Clients and nodes log in with a password: the ports are open to every user of this machine.
    """

    number: int
    port: int
    controller_port: int
    voters: Sequence[tuple[int, int]]
    folder: Path
    jars: Path
    java: str
    cluster_id: str
    password: str
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def write_configuration(self) -> None:
        """Write what the broker reads at its start, readable by its user only: it holds the password."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(mode=0o700, exist_ok=True)
        (self.folder / "log4j2.yaml").write_text(_LOGGING, encoding="utf-8")
        lines = "".join(f"{name}={value}\n" for name, value in self.properties().items())
        descriptor = os.open(self._properties_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(lines)

    def properties(self) -> dict[str, str]:
        """The broker's settings."""
        copies = min(3, len(self.voters))
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="{KAFKA_USER}" password="{self.password}" user_{KAFKA_USER}="{self.password}";'
        )
        return {
            "process.roles": "broker,controller",
            "node.id": str(self.number),
            "controller.quorum.voters": ",".join(f"{number}@{HOST}:{port}" for number, port in self.voters),
            "listeners": f"CLIENT://{self.address},CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": f"CLIENT://{self.address}",
            "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT",
            "inter.broker.listener.name": "CLIENT",
            "controller.listener.names": "CONTROLLER",
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.client.plain.sasl.jaas.config": login,
            "listener.name.controller.plain.sasl.jaas.config": login,
            "log.dirs": str(self.folder / "log"),
            "default.replication.factor": str(copies),
            "offsets.topic.replication.factor": str(copies),
            "transaction.state.log.replication.factor": str(copies),
            "min.insync.replicas": str(max(1, copies - 1)),
            "transaction.state.log.min.isr": str(max(1, copies - 1)),
            # Where there is no other copy, acknowledged must mean on disk.
            **({"log.flush.interval.messages": "1"} if len(self.voters) == 1 else {}),
            **_SMALL,
            **self.more,
        }

    def format(self) -> None:
        """Make the storage, once; blocks for a second. Raises CalledProcessError."""
        if (self.folder / "log" / "meta.properties").exists():
            return
        # One word: an id may begin with a dash.
        cluster = f"--cluster-id={self.cluster_id}"
        arguments = ["kafka.tools.StorageTool", "format", cluster, "-c", str(self._properties_file)]
        subprocess.run(
            [self.java, "-Xmx64m", *self._options(), *arguments, "--ignore-formatted"],
            env=self.environment,
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=_FORMAT_TIMEOUT_S,
        )

    def command(self) -> list[str]:
        """What runs the broker in the foreground."""
        return [self.java, *_MEMORY, *self._options(), "kafka.Kafka", str(self._properties_file)]

    @property
    def environment(self) -> dict[str, str]:
        """All that the broker's process gets of ours."""
        return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self.folder)}

    @property
    def _properties_file(self) -> Path:
        return self.folder / "server.properties"

    def _options(self) -> list[str]:
        return [
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self.folder / 'tmp'}",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}",
            "-cp",
            f"{self.jars}/*",
        ]
