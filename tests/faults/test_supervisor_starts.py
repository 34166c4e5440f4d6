"""Starts of an instance: what is refused, whose ports and data are left alone, and where its servers may live."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import psutil
import pytest

from payflow.run import control
from payflow.run.embedded.places import remove_server_homes
from tests.faults.tiny import Tiny
from tests.support.ports import is_unused


def test_a_service_that_cannot_start_stops_the_start_with_its_own_reason(tiny: Tiny) -> None:
    done = tiny.run("--detach", TINY_BROKEN="beta")

    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "beta ended during the start with exit code 2: beta: PAYFLOW_LIMT is no setting"
    ]
    assert control.running(tiny.instance) is None
    assert is_unused(tiny.instance.port)


def test_a_mistyped_setting_stops_the_start_and_names_the_one_that_was_meant(tiny: Tiny) -> None:
    done = tiny.run("--detach", PAYFLOW_LOG_LEVL="debug")

    assert done.returncode == 1
    assert "PAYFLOW_LOG_LEVL is no setting of Payflow: did you mean PAYFLOW_LOG_LEVEL?" in done.stderr


def test_a_malformed_setting_stops_the_start_and_says_what_is_expected(tiny: Tiny) -> None:
    done = tiny.run("--detach", PAYFLOW_POSTGRES_POOL_SIZE="many")

    assert done.returncode == 1
    assert done.stderr.strip() == "PAYFLOW_POSTGRES_POOL_SIZE='many': expected a whole number"


@pytest.mark.parametrize("wrong", [{"PAYFLOW_POSTGRES_POOL_SIZE": "many"}, {"PAYFLOW_LOG_LEVL": "debug"}])
def test_a_wrong_setting_is_found_before_a_database_is_made(tiny: Tiny, wrong: dict[str, str]) -> None:
    done = tiny.run("--detach", **wrong)

    assert done.returncode == 1
    assert not tiny.instance.log_file("postgres").exists()
    assert not tiny.instance.log_file("valkey").exists()
    assert not list(tiny.instance.data_dir.rglob("PG_VERSION"))


def test_production_takes_no_embedded_server(tiny: Tiny) -> None:
    done = tiny.run("--detach", PAYFLOW_ENV="production")

    assert done.returncode == 1
    assert "PAYFLOW_ENV=production uses no embedded server: set PAYFLOW_POSTGRES_URL" in done.stderr


@pytest.mark.parametrize(("offset", "option"), [(15, "--port"), (3, "--port-base")])
def test_a_taken_port_is_named_with_its_holder(tiny: Tiny, offset: int, option: str) -> None:
    with socket.create_server(("127.0.0.1", tiny.instance.port_base + offset)):
        done = tiny.run("--detach")

    assert done.returncode == 1
    line = done.stderr.strip()
    assert f"Port {tiny.instance.port_base + offset} is taken by " in line
    assert f"(pid {os.getpid()})" in line
    assert line.endswith(f"choose other ports with {option}.")
    assert control.running(tiny.instance) is None
    assert not tiny.instance.data_dir.exists()


def test_a_data_directory_in_use_is_refused_and_its_holder_named(tiny: Tiny) -> None:
    pid = tiny.start().pid

    done = tiny.run("--detach")

    assert done.returncode == 1
    assert f"is in use by pid {pid}" in done.stderr
    assert tiny.status().pid == pid


def test_two_instances_stand_side_by_side(tiny: Tiny, folder: Path) -> None:
    tiny.start()
    other = Tiny(folder / "other data")
    try:
        other.start()

        assert tiny.answer("alpha") != other.answer("alpha")
        assert set(tiny.pids()).isdisjoint(other.pids())
    finally:
        control.stop(other.instance)
    assert tiny.status().state == "ready"


def test_data_of_a_newer_version_is_left_alone(tiny: Tiny) -> None:
    tiny.instance.data_dir.mkdir(parents=True)
    tiny.instance.version_file.write_text(json.dumps({"format": 2, "postgres": 19}))

    done = tiny.run("--detach")

    assert done.returncode == 1
    assert "was written by a newer Payflow" in done.stderr
    assert not (tiny.instance.data_dir / "postgres").exists()


def test_a_folder_with_other_things_in_it_is_not_taken_for_a_data_directory(tiny: Tiny) -> None:
    tiny.instance.data_dir.mkdir(parents=True)
    (tiny.instance.data_dir / "thesis.tex").touch()

    done = tiny.run("--detach")

    assert done.returncode == 1
    assert "is not empty and no data directory of Payflow" in done.stderr


def test_a_long_path_gets_its_sockets_elsewhere_and_they_go_at_the_stop(folder: Path) -> None:
    tiny = Tiny(folder / ("deep folder " * 8) / "data")
    try:
        tiny.start()
        sockets = Path((tiny.instance.run_dir / "sockets.location").read_text().strip())
        mode = sockets.stat().st_mode & 0o777

        control.stop(tiny.instance)

        assert mode == 0o700
        assert not sockets.exists()
    finally:
        control.stop(tiny.instance)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a normal user's servers run as that user")
def test_as_root_below_a_closed_folder_the_database_goes_elsewhere_and_no_mode_changes(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    tiny = Tiny(closed / "data")
    try:
        tiny.start()
        home = Path((tiny.instance.data_dir / "postgres.location").read_text().strip())
        postgres = psutil.Process(tiny.process("postgres").pid)

        assert closed.stat().st_mode & 0o777 == 0o700
        assert home.stat().st_mode & 0o777 == 0o700
        assert (home / "18" / "PG_VERSION").exists()
        assert postgres.uids().effective != 0
        assert psutil.Process(tiny.process("valkey").pid).uids().effective != 0
    finally:
        control.stop(tiny.instance)
        remove_server_homes(tiny.instance)
    assert not home.exists()


def test_secrets_are_readable_by_their_owner_only(tiny: Tiny) -> None:
    tiny.start()

    modes = {path: path.stat().st_mode & 0o077 for path in tiny.instance.secrets_dir.rglob("*") if path.is_file()}

    assert modes
    private = {path for path in modes if path.name != "services.jwks.json"}
    assert {path: modes[path] for path in private} == dict.fromkeys(private, 0)
    assert tiny.instance.secrets_dir.stat().st_mode & 0o077 == 0
