"""The core as it ships: start order, rights, networks, a payment, killed containers, a new certificate, a restart."""

from __future__ import annotations

import json
import os
import ssl
import time
from collections.abc import Callable
from typing import Final
from uuid import uuid4

from rig import (
    HTTP,
    HTTPS,
    SETTINGS,
    ask,
    compose,
    container,
    container_image,
    containers,
    docker,
    eventually,
    inside,
    inspect,
    is_ours,
    lines_of,
    memory_is_enough,
    network_address,
    pay,
    sign_in,
    start,
)


def everything_starts_in_order_and_becomes_healthy() -> None:
    SETTINGS["COMPOSE_PROFILES"] = "core"
    start()
    states = {name: inspect(name)["State"] for name in containers()}
    done = {name for name, state in states.items() if state["Status"] == "exited" and state["ExitCode"] == 0}
    assert done == {"secrets", "migrate", "demo-data"}, states
    healthy = {name for name, state in states.items() if state.get("Health", {}).get("Status") == "healthy"}
    assert healthy == states.keys() - done, states.keys() - done - healthy
    migrated_at = states["migrate"]["FinishedAt"]
    early = [name for name in healthy if is_ours(name) and states[name]["StartedAt"] < migrated_at]
    assert not early, f"started before the database was migrated: {early}"


def the_door_is_open_and_nothing_else_is() -> None:
    for url in (HTTP, HTTPS):
        status, answer = ask(f"{url}/health")
        assert status == 200, answer
        assert set(answer["dependencies"].values()) == {"healthy"}, answer
    for path in ("/metrics", "/rpc/gateway/rotate_keys"):
        assert ask(HTTP + path)[0] == 404
    published = {name: inspect(name)["NetworkSettings"]["Ports"] for name in containers(running=True)}
    assert [name for name, ports in published.items() if any(ports.values())] == ["nginx"], published


def a_payment_is_made_with_a_code_from_the_command_line() -> None:
    token = sign_in()
    small, large = f"small-{uuid4()}", f"large-{uuid4()}"
    assert pay(token, small, "1000.00")[1]["status"] == "SUCCESS"
    waiting = pay(token, large, "15000.00")
    assert waiting[1]["status"] == "OTP_REQUIRED", waiting
    code = compose("run", "--rm", "--no-deps", "payflow", "otp", large).strip().splitlines()[-1]
    assert pay(token, large, "15000.00", otp=code)[1]["status"] == "SUCCESS"
    abroad = {
        "from_account": "ACC001-EUR",
        "to_account": "DE08990100100000001001",
        "creditor": {"name": "Erika Musterfrau"},
    }
    assert pay(token, f"abroad-{uuid4()}", "250.00", **abroad)[1]["status"] in ("SUCCESS", "PENDING")


def each_container_has_the_rights_that_it_needs_and_no_more() -> None:
    for name in filter(is_ours, containers(running=True)):
        settings = inspect(name)
        host = settings["HostConfig"]
        assert settings["Config"]["User"] == "10001:10001", name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert host["SecurityOpt"] == ["no-new-privileges:true"], name
        assert host["Memory"] > 0, name
        status = inside(name, "cat", "/proc/1/status")
        assert "\nCapEff:\t0000000000000000\n" in status, name
        assert "\nNoNewPrivs:\t1\n" in status, name
        written = compose("exec", "-T", name, "touch", "/opt/payflow/x", is_checked=False)
        assert "Read-only file system" in written, (name, written)


def each_service_sees_its_own_secrets_only() -> None:
    for name in filter(is_ours, containers(running=True)):
        service = inspect(name)["Config"]["Cmd"][1].removesuffix("-1").removesuffix("-2").replace("-", "_")
        keys = set(inside(name, "ls", "/run/payflow/services").split())
        assert keys - {"services.jwks.json"} <= {f"{service}.jwk"}, (name, keys)
        assert "roles" not in inside(name, "ls", "/run/payflow")
    assert "otp_key" not in inside("confirm-service", "ls", "/run/payflow")
    assert "column_keys.json" in inside("confirm-service", "ls", "/run/payflow")


def the_stores_are_in_the_inner_network_and_in_no_other() -> None:
    for name in ("postgres-db", "redis-cache", "kafka"):
        assert list(inspect(name)["NetworkSettings"]["Networks"]) == ["payflow_data"], name
    assert json.loads(docker("network", "inspect", "payflow_data"))[0]["Internal"]
    assert list(inspect("nginx")["NetworkSettings"]["Networks"]) == ["payflow_edge"]


def a_killed_gateway_is_not_missed_and_comes_back() -> None:
    token = sign_in()
    address = network_address("api-gateway-1")
    docker("kill", "--signal", "KILL", container("api-gateway-1"))
    for _ in range(20):
        assert ask(f"{HTTP}/accounts", token=token)[0] == 200
        assert pay(token, f"after-{uuid4()}", "1.00")[0] in (200, 422)
    # Docker takes a kill by its own hand for a wish: such a container is not restarted by itself.
    compose("up", "--detach", "--wait", "--no-build", "api-gateway-1")
    assert network_address("api-gateway-1") == address
    seen = {ask(f"{HTTP}/live")[0] for _ in range(20)}
    assert seen == {200}


def a_service_that_dies_by_itself_is_started_again() -> None:
    pid = inspect("risk-service")["State"]["Pid"]
    os.kill(pid, 9)
    eventually(lambda: inspect("risk-service")["RestartCount"] >= 1, "restarted")
    eventually(lambda: inspect("risk-service")["State"]["Health"]["Status"] == "healthy", "healthy again")
    eventually(lambda: ask(f"{HTTP}/health")[0] == 200, "payments can be made again")


def the_edge_shows_a_new_certificate_after_a_reload() -> None:
    before = ssl.get_server_certificate(("localhost", 443), timeout=5)
    image = container_image("account-service")
    volume = next(mount["Name"] for mount in inspect("nginx")["Mounts"] if mount["Destination"] == "/etc/payflow/tls")
    make = "from pathlib import Path; from payflow.run.shares import ensure_certificate as make; p = Path('/t');"
    make += "(p / 'payflow.crt').unlink(); make(p, hosts=['localhost'])"
    docker("run", "--rm", "--network", "none", "-v", f"{volume}:/t", "--entrypoint", "python", image, "-c", make)
    inside("nginx", "nginx", "-p", "/tmp/", "-c", "/etc/payflow/nginx/nginx.conf", "-s", "reload")
    eventually(lambda: ssl.get_server_certificate(("localhost", 443), timeout=5) != before, "another certificate")


def what_was_paid_survives_a_stop_and_the_books_are_whole() -> None:
    before = ask(f"{HTTP}/accounts", token=sign_in())[1]
    began_at = time.monotonic()
    compose("down", "--timeout", "20")
    assert time.monotonic() - began_at < 40
    compose("up", "--detach", "--wait", "--wait-timeout", "600", "--no-build")
    assert ask(f"{HTTP}/accounts", token=sign_in())[1] == before
    assert "The ledger is whole" in compose("run", "--rm", "--no-deps", "payflow", "ledger", "verify")
    assert "the chain is whole" in compose("run", "--rm", "--no-deps", "payflow", "audit", "verify")


def nobody_complains_of_the_collector_that_was_not_started() -> None:
    for name in filter(is_ours, containers(running=True)):
        told = [line for line in lines_of(name) if str(line["message"]).startswith("otlp.")]
        assert {line["log.level"] for line in told} <= {"info"}, (name, told)
        assert not [line for line in lines_of(name) if line.get("payflow.signal") and line["log.level"] == "error"]


def nobody_came_near_a_limit() -> None:
    memory_is_enough()


CHECKS: Final[tuple[Callable[[], None], ...]] = (
    everything_starts_in_order_and_becomes_healthy,
    the_door_is_open_and_nothing_else_is,
    a_payment_is_made_with_a_code_from_the_command_line,
    each_container_has_the_rights_that_it_needs_and_no_more,
    each_service_sees_its_own_secrets_only,
    the_stores_are_in_the_inner_network_and_in_no_other,
    a_killed_gateway_is_not_missed_and_comes_back,
    a_service_that_dies_by_itself_is_started_again,
    the_edge_shows_a_new_certificate_after_a_reload,
    what_was_paid_survives_a_stop_and_the_books_are_whole,
    nobody_complains_of_the_collector_that_was_not_started,
    nobody_came_near_a_limit,
)
