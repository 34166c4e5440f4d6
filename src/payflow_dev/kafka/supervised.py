"""The Kafka of `payflow up --kafka`: one node, watched by the supervisor as PostgreSQL and Valkey are."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Final, NoReturn

from payflow.run.datadir import ensure_secret, write_atomically
from payflow.run.embedded.places import kafka_home, reachable_copy
from payflow.run.embedded.user import ServerUser
from payflow.run.errors import StartError
from payflow.run.instance import SERVICE_HOST, Instance
from payflow.run.supervisor.environment import kafka_client_settings, setting
from payflow.run.supervisor.servers import Broker, Server
from payflow.run.supervisor.sockets import listen
from payflow_dev.kafka.jars import VERSION, ToolMissing, fetch, java
from payflow_dev.kafka.node import Node, new_cluster_id

_READY_S: Final = 90.0


def prepare_broker(instance: Instance, user: ServerUser | None, *, readers: int) -> Broker:
    """Fetch the jars if need be, find places, and check that the ports are free. Raises StartError.

    `readers`: how many processes at most share a consumer's partitions.
    """
    try:
        jars, program = fetch(), java()
    except ToolMissing as error:
        raise StartError(str(error)) from error
    site = reachable_copy(jars.parent, names=(jars.name,), probe=jars.name, user=user, version=VERSION)
    port, controller_port = instance.kafka_ports()
    for wanted in (port, controller_port):
        if wanted == instance.port:
            raise StartError(f"--port {wanted} is one of Kafka's ports: choose another.")
        listen(host=SERVICE_HOST, port=wanted, option="--port-base").close()
    id_file = instance.data_dir / "kafka.cluster"
    if not id_file.exists():
        write_atomically(id_file, new_cluster_id() + "\n")
    node = Node(
        number=1,
        port=port,
        controller_port=controller_port,
        voters=[(1, controller_port)],
        folder=kafka_home(instance, user),
        jars=site / jars.name,
        java=program,
        cluster_id=id_file.read_text().strip(),
        password=ensure_secret(instance.kafka_password_file),
    )
    server = Server(
        name="kafka",
        url=f"kafka://{node.address}",
        run=partial(_run, node, user),
        stop_signal=signal.SIGTERM,
        wait=partial(_wait, node),
    )
    client = kafka_client_settings(brokers=node.address, password_file=instance.kafka_password_file)
    # A partition for each process that reads, unless asked for more: what would go and come in one request takes one
    # for each partition, of the producer and of every consumer.
    partitions = setting("KAFKA_PARTITIONS") or str(readers)
    return Broker(server, {**client, "PAYFLOW_KAFKA_PARTITIONS": partitions})


def _run(node: Node, user: ServerUser | None, *, settle: Callable[[], None]) -> NoReturn:
    """Become the broker. Never returns.

    `settle` is called after the change of user, which makes the kernel forget what was asked for before.
    """
    if user is not None:
        user.become()
    settle()
    os.chdir("/")
    os.umask(0o077)
    node.write_configuration()
    node.format()
    command = node.command()
    os.execve(command[0], command, node.environment)  # noqa: S606


def _wait(node: Node) -> None:
    """Return when the broker can be used. Raises StartError when it cannot in time."""
    # Here, not above: the client's library is for the process that asks, not for the supervisor.
    from payflow_dev.kafka.cluster import members_of

    deadline = time.monotonic() + _READY_S
    while members_of([node]) == 0:
        if time.monotonic() >= deadline:
            raise StartError(f"Kafka did not answer within {_READY_S:.0f} s: see its log with `payflow logs kafka`.")
        time.sleep(0.1)
