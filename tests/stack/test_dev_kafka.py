"""`payflow dev kafka`: brokers for whoever wants to try something with them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil

from payflow.platform.eventlog.kafka.config import kafka_of
from payflow.platform.eventlog.kafka.topics import ensure_topics
from payflow.platform.settings import CommonSettings, read_settings
from payflow_dev.kafka.node import new_cluster_id
from tests.support.system import LAUNCHER, free_port_base


def test_an_id_of_a_cluster_is_never_taken_for_an_option() -> None:
    ids = [new_cluster_id() for _ in range(2_000)]

    assert len(set(ids)) == 2_000
    assert not [id for id in ids if id.startswith("-")]


def test_it_runs_brokers_prints_their_settings_starts_a_dead_one_again_and_stops_with_ctrl_c() -> None:
    base = free_port_base()
    with tempfile.TemporaryDirectory(prefix="pf-dev-") as folder:
        command = [str(LAUNCHER), "dev", "kafka", "--port-base", str(base), "--data-dir", str(Path(folder) / "data")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert process.stdout is not None
        try:
            settings: dict[str, str] = {}
            for line in process.stdout:
                settings |= dict(re.findall(r"^export (\w+)=(.*)$", line))
                if line.startswith("./payflow up"):
                    break
            kafka = kafka_of(read_settings(CommonSettings, settings))
            assert kafka is not None
            ensure_topics(kafka, ["payments"])
            (broker,) = [child for child in psutil.Process(process.pid).children() if child.name() == "java"]
            broker.kill()
            said = next(line for line in process.stdout if line.strip())
            ensure = None
            for _ in range(30):
                try:
                    ensure = ensure_topics(kafka, ["bulk"])
                    break
                except Exception as error:
                    ensure = error
        finally:
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=30)

    assert settings["PAYFLOW_KAFKA_BROKERS"] == f"127.0.0.1:{base + 21}"
    assert said == "Node 1 ended; it is started again in 10 s.\n"
    assert ensure is None
    assert process.returncode == 0
    assert out.endswith("Stopped.\n")
    assert not broker.is_running()
