"""`payflow dev prometheus` and `dev kill`: what is watched, and what is refused before anything is ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.registry import OTHER_BANK, SERVICES
from payflow.run.supervisor.status import InstanceStatus, ProcessStatus
from payflow_dev.watchers import killing, prometheus

ROOT = Path(__file__).resolve().parents[2]


def status(folder: Path) -> InstanceStatus:
    """An instance with a server and every process of the registry."""
    rows = [*SERVICES, OTHER_BANK]
    processes = [one("postgres", "postgres", "server", "postgresql://localhost/payflow")]
    processes += [one(row.name, row.service, "service", f"http://127.0.0.1:{4000 + row.port_offset}") for row in rows]
    return InstanceStatus(
        pid=1,
        state="ready",
        started_at="2026-03-02T12:00:00Z",
        data_dir=str(folder),
        host="127.0.0.1",
        port=8080,
        port_base=4000,
        public_url="http://localhost:8080",
        processes=tuple(processes),
    )


def one(name: str, service: str, kind: str, url: str) -> ProcessStatus:
    return ProcessStatus(name=name, service=service, kind=kind, pid=7, url=url, state="healthy", restarts=0)


def test_every_process_of_ours_is_asked_and_the_shipped_alerts_are_beside(tmp_path: Path) -> None:
    processes = prometheus.processes_of(status(tmp_path))

    prometheus.write_configuration(tmp_path, processes, own="127.0.0.1:9090")

    written = yaml.safe_load((tmp_path / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job["static_configs"] for job in written["scrape_configs"]}
    assert jobs["payflow"] == [
        {"targets": [f"127.0.0.1:{4000 + row.port_offset}"], "labels": {"process": row.name}} for row in SERVICES
    ]
    assert jobs["prometheus"] == [{"targets": ["127.0.0.1:9090"]}]
    assert written["rule_files"] == ["alerts.yml"]
    assert (tmp_path / "alerts.yml").read_text() == (ROOT / "deploy/prometheus/alerts.yml").read_text()


def test_prometheus_that_is_not_installed_is_told_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(StartError, match="apt-get install prometheus"):
        prometheus.run(status(tmp_path), port=9090)


def test_a_process_that_there_is_not_is_refused_with_the_names_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(killing, "require_running", lambda _: status(tmp_path))

    with pytest.raises(StartError, match=r"no process kycc: choose one of postgres, gateway-1, .*kyc"):
        killing.kill(make_instance(data_dir=tmp_path), "kycc", for_s=0)


def test_nothing_can_be_killed_where_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(StartError):
        killing.kill(make_instance(data_dir=tmp_path), "kyc", for_s=0)


@pytest.mark.parametrize(
    ("times", "for_s", "told"),
    [
        (1, 0.0, "kyc was killed once."),
        (1, 2.5, "kyc was kept down for 2.5 s (killed once)."),
        (6, 6.0, "kyc was kept down for 6 s (killed 6 times)."),
    ],
)
def test_what_was_done_to_a_process_is_told_as_it_was_asked_for(times: int, for_s: float, told: str) -> None:
    assert killing.told("kyc", times=times, for_s=for_s) == told
