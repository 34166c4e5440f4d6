"""What `payflow dev kafka` does: brokers in the foreground, below the data directory."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Final

from payflow.run.errors import StartError
from payflow.run.instance import SERVICE_HOST, Instance
from payflow.run.supervisor.environment import kafka_client_settings
from payflow.run.supervisor.sockets import listen
from payflow_dev.kafka.cluster import Cluster, ClusterFailed, make_nodes
from payflow_dev.kafka.jars import ToolMissing, fetch

_START_AGAIN_S: Final = 10.0


def fetch_only() -> Path:
    """The folder of the jars, fetched if need be. Raises StartError."""
    try:
        return fetch()
    except ToolMissing as error:
        raise StartError(str(error)) from error


def run(*, instance: Instance, count: int) -> None:
    """Run so many nodes until SIGINT or SIGTERM; a node that ends is started again. Raises StartError."""
    ports = [instance.kafka_ports(number) for number in range(1, count + 1)]
    for port in (port for pair in ports for port in pair):
        listen(host=SERVICE_HOST, port=port, option="--port-base").close()
    # One node and three are different clusters, with data of their own.
    folder = instance.data_dir / "brokers" / str(count)
    # Also where whoever started it had SIGINT ignored, as shells do with what runs in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        with Cluster(make_nodes(folder=folder, ports=ports)) as cluster:
            _tell(cluster, folder)
            while True:
                _start_again(cluster)
                time.sleep(0.5)
    except (ToolMissing, ClusterFailed) as error:
        raise StartError(str(error)) from error
    except KeyboardInterrupt:
        print("Stopped.")


def _tell(cluster: Cluster, folder: Path) -> None:
    print(f"Kafka is ready; its data and logs are in {folder}. Ctrl-C stops it. To use it, in another terminal:\n")
    for name, value in kafka_client_settings(brokers=cluster.brokers, password_file=folder / "password").items():
        print(f"export {name}={value}")
    print("./payflow up\n", flush=True)


def _start_again(cluster: Cluster) -> None:
    for node in cluster.nodes:
        if not cluster.is_running(node.number):
            print(f"Node {node.number} ended; it is started again in {_START_AGAIN_S:.0f} s.", flush=True)
            time.sleep(_START_AGAIN_S)
            cluster.start_node(node.number)
