"""What the checks ask with: Compose, the containers, and the API as a client sees it."""

from __future__ import annotations

import json
import os
import shlex
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final

import programs
import yaml

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
FILES: Final = ("-f", str(ROOT / "compose.yaml"))
HTTP, HTTPS = "http://localhost", "https://localhost"
# Megabytes that everything together may use.
MEMORY_MB_MAX: Final = 4096
# Seconds from `up` until everything is healthy, with the images there and nothing else at work on the machine.
START_S_MAX: Final = 120
# Nobody else's addresses are counted here, and this one pays much.
SETTINGS: Final[dict[str, str]] = {"PAYFLOW_RATE_LIMIT_PER_IP": "1000000/15m"}


@cache
def compose_command() -> list[str]:
    """COMPOSE, else Docker's plug-in, else the one that `build` made."""
    if "COMPOSE" in os.environ:
        return shlex.split(os.environ["COMPOSE"])
    plugin = ["docker", "compose"]
    has_plugin = subprocess.run([*plugin, "version"], capture_output=True, check=False).returncode == 0
    return plugin if has_plugin else [str(programs.compose())]


def compose(*arguments: str, is_checked: bool = True, **variables: str) -> str:
    """Run Compose on the shipped file; what it printed. Raises AssertionError with it."""
    return run([*compose_command(), *FILES, *arguments], is_checked=is_checked, **SETTINGS, **variables)


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


def start(*names: str) -> None:
    """Start these, or all, from nothing, and tell how long it took. Raises AssertionError where that was too long."""
    compose("--profile", "*", "down", "--volumes", "--timeout", "20")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    began_at = time.monotonic()
    compose("up", "--detach", "--wait", "--wait-timeout", "900", "--no-build", *names)
    took_s = time.monotonic() - began_at
    is_judged = load < cores
    busy = "" if is_judged else f"; not judged, for others were at work (load {load:.0f} on {cores} cores)"
    print(f"      started in {took_s:.0f} s{busy}")
    assert took_s <= START_S_MAX or not is_judged


def container(name: str) -> str:
    return compose("ps", "--all", "--quiet", name).strip()


def inspect(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(docker("inspect", container(name)))[0]
    return found


def container_image(name: str) -> str:
    return str(inspect(name)["Config"]["Image"])


def network_address(name: str) -> str:
    return str(inspect(name)["NetworkSettings"]["Networks"]["payflow_edge"]["IPAddress"])


@cache
def services(part: str) -> dict[str, Any]:
    """The services of a file of deploy/compose."""
    found: dict[str, Any] = yaml.safe_load((ROOT / f"deploy/compose/{part}.yaml").read_text(encoding="utf-8"))
    return dict(found["services"])


def is_ours(name: str) -> bool:
    """Whether a service runs our image for good."""
    service = services("core").get(name, {"image": ""})
    return str(service["image"]).startswith("payflow:") and "restart" in service


def lines_of(name: str) -> list[dict[str, Any]]:
    """The log lines of a service of ours."""
    lines = compose("logs", "--no-log-prefix", "--no-color", name).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def memory_is_enough() -> None:
    """Nobody was killed for want of memory or came near its bound; all of it together fits. Raises AssertionError."""
    total_mb = bounds_mb = 0.0
    for name in containers(running=True):
        settings = inspect(name)
        assert not settings["State"]["OOMKilled"], name
        bound_mb = settings["HostConfig"]["Memory"] / 2**20
        told = docker("stats", "--no-stream", "--format", "{{.MemPerc}}", container(name)).strip().rstrip("%")
        used_mb = bound_mb * float(told) / 100
        print(f"      {name}: {used_mb:.0f} of {bound_mb:.0f} MB")
        assert used_mb < 0.95 * bound_mb, name
        total_mb, bounds_mb = total_mb + used_mb, bounds_mb + bound_mb
    print(f"      together: {total_mb:.0f} MB, bounds of {bounds_mb:.0f} MB")
    assert bounds_mb <= MEMORY_MB_MAX


def ask(
    url: str,
    body: dict[str, Any] | None = None,
    *,
    token: str = "",
    key: str = "",
    headers: dict[str, str] | None = None,
) -> tuple[int, Any]:
    """The status and the JSON of an answer; its header fields are put into `headers`."""
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
            if headers is not None:
                headers.update((name.lower(), value) for name, value in response.headers.items())
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


def sign_in() -> str:
    status, answer = ask(f"{HTTP}/auth/login", {"username": "demo", "password": "password123"})
    assert status == 200, answer
    return str(answer["access_token"])


def pay(
    token: str,
    transaction_id: str,
    amount: str,
    *,
    at: str = HTTP,
    headers: dict[str, str] | None = None,
    **fields: Any,
) -> tuple[int, Any]:
    body = {
        "transaction_id": transaction_id,
        "customer_id": "cust_001",
        "amount": amount,
        "from_account": "ACC001",
        "to_account": "ACC002",
    }
    return ask(f"{at}/payment/confirm", body | fields, token=token, key=transaction_id, headers=headers)


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
