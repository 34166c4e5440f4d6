"""Builds our image, starts the core as it ships on stand-ins for the official images, and looks at all of it.

    python tests/stack/full/run.py build FOLDER     # stand-ins (see stand_ins.py), then our image: needs a network
    python tests/stack/full/run.py check            # start, look, break, repair, stop: needs none

Docker is found by DOCKER_HOST, Compose as `docker compose` or what COMPOSE names. `make test-stack-full` does both.
docs/howto/run-with-compose.md tells how a daemon is started that touches nothing of its machine.
"""

from __future__ import annotations

import json
import os
import shlex
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import yaml

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
FILES: Final = ("-f", str(ROOT / "compose.yaml"))
COMPOSE: Final = shlex.split(os.environ.get("COMPOSE", "docker compose"))
HTTP, HTTPS = "http://localhost", "https://localhost"
# Nobody else's addresses are counted here, and this one pays much.
SETTINGS: Final = {"PAYFLOW_RATE_LIMIT_PER_IP": "1000000/15m", "COMPOSE_PROFILES": "core"}


def main(arguments: list[str]) -> int:
    """Do what was asked for; 0 when every check held."""
    if arguments[:1] == ["build"]:
        build(Path(arguments[1]))
        return 0
    if arguments[:1] != ["check"]:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        for check in CHECKS:
            began_at = time.monotonic()
            print(f"{check.__name__.replace('_', ' ')} ...", flush=True)
            check()
            print(f"    held, {time.monotonic() - began_at:.1f} s", flush=True)
    finally:
        compose("down", "--volumes", "--timeout", "20")
    print(f"{len(CHECKS)} checks held.")
    return 0


def build(folder: Path) -> None:
    """The stand-ins, and our image as Compose builds it."""
    import stand_ins

    stand_ins.main(folder)
    compose("-f", str(HERE / "override.yaml"), "build", "secrets", BASE_IMAGE=stand_ins.PYTHON)


def everything_starts_in_order_and_becomes_healthy() -> None:
    compose("down", "--volumes", "--timeout", "20")
    compose("up", "--detach", "--wait", "--wait-timeout", "600", "--no-build")
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


def nobody_came_near_a_limit() -> None:
    for name in containers(running=True):
        settings = inspect(name)
        assert not settings["State"]["OOMKilled"], name
        used = docker("stats", "--no-stream", "--format", "{{.MemPerc}}", container(name)).strip().rstrip("%")
        print(f"      {name}: {used} % of {settings['HostConfig']['Memory'] // 2**20} MB")
        assert float(used) < 95, name


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
    nobody_came_near_a_limit,
)


def compose(*arguments: str, is_checked: bool = True, **variables: str) -> str:
    """Run Compose on the shipped file; what it printed. Raises AssertionError with it."""
    return run([*COMPOSE, *FILES, *arguments], is_checked=is_checked, **SETTINGS, **variables)


def docker(*arguments: str) -> str:
    return run(["docker", *arguments])


def inside(name: str, *command: str) -> str:
    """What a command printed in a service's container."""
    return compose("exec", "-T", name, *command)


def run(command: list[str], *, is_checked: bool = True, **variables: str) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=1200,
        check=False,
    )
    assert done.returncode == 0 or not is_checked, f"{shlex.join(command)}\n{done.stdout[-3000:]}"
    return done.stdout


def containers(*, running: bool = False) -> list[str]:
    """The services that have a container."""
    listed = compose("ps", *([] if running else ["--all"]), "--format", "{{.Service}}")
    return sorted(set(listed.split()))


def container(name: str) -> str:
    return compose("ps", "--all", "--quiet", name).strip()


def inspect(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", container(name)))[0]
    return found


def container_image(name: str) -> str:
    return str(inspect(name)["Config"]["Image"])


def network_address(name: str) -> str:
    return str(inspect(name)["NetworkSettings"]["Networks"]["payflow_edge"]["IPAddress"])


def is_ours(name: str) -> bool:
    """Whether a service runs our image for good."""
    service = yaml.safe_load((ROOT / "deploy/compose/core.yaml").read_text(encoding="utf-8"))["services"][name]
    return str(service["image"]).startswith("payflow:") and "restart" in service


def ask(url: str, body: dict[str, Any] | None = None, *, token: str = "", key: str = "") -> tuple[int, Any]:
    """The status and the JSON of an answer."""
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    if key:
        request.add_header("Idempotency-Key", key)
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    try:
        with urllib.request.urlopen(request, timeout=20, context=trusting) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def sign_in() -> str:
    status, answer = ask(f"{HTTP}/auth/login", {"username": "demo", "password": "password123"})
    assert status == 200, answer
    return str(answer["access_token"])


def pay(token: str, transaction_id: str, amount: str, **fields: Any) -> tuple[int, Any]:
    body = {
        "transaction_id": transaction_id,
        "customer_id": "cust_001",
        "amount": amount,
        "from_account": "ACC001",
        "to_account": "ACC002",
    }
    return ask(f"{HTTP}/payment/confirm", body | fields, token=token, key=transaction_id)


def eventually(is_true: Callable[[], bool], what: str, *, seconds: float = 180) -> None:
    """Wait for something. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if is_true():
                return
        except (OSError, KeyError):
            pass
        time.sleep(0.5)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
