"""The processes of the rendered Deployments run: each with the arguments, variables and files of its manifest only.

PostgreSQL is of its own, and its owner no superuser: a role that may make roles, as operators of clusters get one.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from payflow.run.embedded.postgres import wait_until_ready
from payflow_dev.deploy.helm import rows
from tests.stack.helm.chart import ROOT, environment, manifests, of_kind
from tests.support.servers import server, with_database

START_S = 240

pytestmark = pytest.mark.timeout(600)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Pod:
    """A container's process on this machine, with its volumes as folders."""

    def __init__(self, *, name: str, pod: dict[str, Any], given: dict[str, str], folder: Path) -> None:
        (self.container,) = pod["containers"]
        self.name = name
        self._volumes = {volume["name"]: volume for volume in pod["volumes"]}
        self._folder = folder
        self._given = given

    def mount(self, sources: dict[str, Path]) -> None:
        """Fill the mounted folders from Secrets, each of which is a folder of files here."""
        for mount in self.container["volumeMounts"]:
            target = self.place(mount["mountPath"])
            target.mkdir(parents=True, exist_ok=True)
            volume = self._volumes[mount["name"]]
            for source in volume.get("projected", {}).get("sources", [volume] if "secret" in volume else []):
                secret = source["secret"]
                origin = sources[secret.get("secretName") or secret["name"]]
                items = secret.get("items") or [{"key": file.name, "path": file.name} for file in origin.iterdir()]
                for item in items:
                    shutil.copy(origin / item["key"], target / item["path"])

    def place(self, path: str) -> Path:
        return self._folder / path.lstrip("/")

    def environ(self, replaced: dict[str, str]) -> dict[str, str]:
        """The variables of the manifest; paths of the container are folders here, names of services this machine."""
        system = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        found = system | {"PYTHONPATH": str(ROOT / "src")}
        for name, value in self._given.items():
            moved = str(self.place(value)) if value.startswith(("/etc/payflow", "/var/lib/payflow")) else value
            found[name] = moved.replace(f"http://payflow-{name[8:-4].lower().replace('_', '-')}:", "http://127.0.0.1:")
        return found | replaced

    def command(self) -> list[str]:
        told = [argument.replace("$(POD_NAME)", f"{self.name}-7f9c") for argument in self.container["args"]]
        arguments = [str(self.place(word)) if word.startswith("/etc/payflow") else word for word in told]
        return [sys.executable, "-m", "payflow.run.main", *arguments]


class Deployed:
    """What runs, and how to ask it."""

    def __init__(self, folder: Path, ports: dict[str, int], public: int) -> None:
        self.folder = folder
        self.ports = ports
        self.public = public
        self.pods: dict[str, tuple[Pod, dict[str, str]]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.stopped: dict[str, int] = {}

    def log_of(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def start(self, name: str) -> None:
        """Start a pod's process; again where it has ended, as a kubelet does."""
        pod, replaced = self.pods[name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                pod.command(), env=pod.environ(replaced), cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )


def ask(url: str, body: dict[str, Any] | None = None, token: str | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data, headers=headers), timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def make_database(url: str, password: str) -> None:
    await wait_until_ready(url=url, seconds=30)
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE ROLE owner LOGIN CREATEROLE PASSWORD '{password}'")
    await connection.execute("CREATE DATABASE payflow OWNER owner")
    await connection.close()


@pytest.fixture(scope="module")
def postgres() -> Iterator[tuple[str, str]]:
    """The superuser's address of an empty server, and the password of the database's owner."""
    folder = Path(tempfile.mkdtemp(prefix="pf-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "secrets").mkdir(mode=0o700)
    (folder / "run").mkdir()
    password = secrets.token_urlsafe(16)
    try:
        with server("postgres", folder) as url:
            asyncio.run(make_database(url, password))
            yield url, password
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def secret_folders(tmp_path_factory: pytest.TempPathFactory, postgres: tuple[str, str]) -> dict[str, Path]:
    """Each Secret that docs/howto/run-on-kubernetes.md has one make, as the folder of its files."""
    made = tmp_path_factory.mktemp("made")
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src")}
    for arguments in (["secrets", str(made)], ["keys", "make", str(made / "token_keys")]):
        command = [sys.executable, "-m", "payflow.run.main", *arguments]
        subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60)
    files = tmp_path_factory.mktemp("keys")
    for file in made.iterdir():
        if file.is_file():
            shutil.copy(file, files)
    owner = tmp_path_factory.mktemp("owner")
    (owner / "password").write_text(postgres[1])
    return {
        "payflow-roles": made / "roles",
        "payflow-service-keys": made / "services",
        "payflow-token-keys": made / "token_keys",
        "payflow-keys": files,
        "payflow-db-app": owner,
    }


@pytest.fixture(scope="module")
def deployed(
    postgres: tuple[str, str],
    valkey_url: str,
    secret_folders: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    base = next(base for base in range(23000, 31000, 20) if all(map(is_free, range(base, base + 20))))
    ports = {name: base + row.port_offset for name, row in rows().items()}
    values = ["bindAddress=127.0.0.1", "postgres.sslMode=disable", "postgres.owner.name=owner", "ingress.enabled=true"]
    values += ["ingress.host=pay.example", "ingress.trustedProxies={127.0.0.1/32}"]
    values += [f"services.{name}.port={port}" for name, port in ports.items()]
    values += [f"services.gateway.publicPort={base}", "defaults.drainSeconds=2"]
    objects = manifests(values=tuple(values))
    found = Deployed(tmp_path_factory.mktemp("pods"), ports, base)

    job = of_kind(objects, "Job")["migration"]["spec"]["template"]["spec"]
    migrated = run_migration(job, objects, found.folder, postgres[0], secret_folders)
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    try:
        for name, deployment in of_kind(objects, "Deployment").items():
            pod = start_pod(name, deployment["spec"]["template"]["spec"], objects, found.folder, secret_folders)
            role = f"payflow_{name.replace('-', '_')}"
            assert f"//{role}@payflow-db-rw:5432/payflow?sslmode=disable" in pod._given["PAYFLOW_POSTGRES_URL"]
            replaced = {"PAYFLOW_POSTGRES_URL": socket_url(postgres[0], role), "PAYFLOW_REDIS_URL": valkey_url}
            found.pods[name] = (pod, replaced)
            found.start(name)
        wait_until_ready_all(found)
        yield found
    finally:
        stop(found)


def start_pod(
    name: str, pod: dict[str, Any], objects: list[dict[str, Any]], folder: Path, sources: dict[str, Path]
) -> Pod:
    made = Pod(name=name, pod=pod, given=environment(objects, pod), folder=folder / name)
    made.mount(sources)
    return made


def run_migration(
    job: dict[str, Any], objects: list[dict[str, Any]], folder: Path, postgres: str, sources: dict[str, Path]
) -> subprocess.CompletedProcess[str]:
    pod = start_pod("migration", job, objects, folder, sources)
    environ = pod.environ({"PAYFLOW_POSTGRES_URL": socket_url(postgres, "owner")})
    return subprocess.run(
        pod.command(), env=environ, cwd=folder, capture_output=True, text=True, timeout=START_S, check=False
    )


def socket_url(postgres: str, role: str) -> str:
    """The test's server as a role, without a password: that comes from the mounted file."""
    return with_database(postgres, database="payflow", user=role, password="").replace(f"{role}:@", f"{role}@")


def wait_until_ready_all(found: Deployed) -> None:
    deadline = time.monotonic() + START_S
    waiting = dict(found.ports)
    while waiting:
        for name, port in list(waiting.items()):
            assert time.monotonic() < deadline, f"{name} is not ready: {found.log_of(name)[-2000:]}"
            if found.processes[name].poll() is not None:
                assert found.log_of(name).count("did not start") < 5, found.log_of(name)[-2000:]
                time.sleep(1)
                found.start(name)
            try:
                status, _ = ask(f"http://127.0.0.1:{port}/ready")
            except OSError:
                status = 0
            if status == 200:
                del waiting[name]
        time.sleep(0.2)


def stop(found: Deployed) -> None:
    """The gateway first, as endpoints do it; whatever does not end is killed."""
    for name in sorted(found.processes, key=lambda name: name != "gateway"):
        process = found.processes[name]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            found.stopped[name] = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def token(deployed: Deployed, secret_folders: dict[str, Path]) -> str:
    password = (secret_folders["payflow-keys"] / "admin_password").read_text().strip()
    status, text = ask(f"http://127.0.0.1:{deployed.public}/auth/login", {"username": "admin", "password": password})
    assert status == 200, text
    return str(json.loads(text)["access_token"])


def test_all_of_it_is_healthy(deployed: Deployed) -> None:
    status, text = ask(f"http://127.0.0.1:{deployed.public}/health")

    assert status == 200, text
    assert set(json.loads(text)["dependencies"].values()) == {"healthy"}


def test_the_first_administrator_signs_in_and_reads_what_other_services_keep(deployed: Deployed, token: str) -> None:
    public = f"http://127.0.0.1:{deployed.public}"
    body = {"customer_id": "cust_900", "name": "Ada Example", "country": "DE"}

    created = ask(f"{public}/customers", body, token)
    read = ask(f"{public}/customers/cust_900", token=token)

    assert created[0] in (200, 201), created
    assert read[0] == 200, read
    assert json.loads(read[1])["name"] == "Ada Example"


def test_the_key_that_signs_tokens_is_the_mounted_one(deployed: Deployed, secret_folders: dict[str, Path]) -> None:
    (file,) = secret_folders["payflow-token-keys"].iterdir()
    _, text = ask(f"http://127.0.0.1:{deployed.public}/.well-known/jwks.json")

    (public,) = json.loads(text)["keys"]
    assert public["x"] == json.loads(file.read_text())["key"]["x"]


@pytest.mark.parametrize("path", ["/metrics", "/rpc/gateway/rotate_keys"])
def test_private_addresses_do_not_exist_on_the_public_port(deployed: Deployed, path: str) -> None:
    public = ask(f"http://127.0.0.1:{deployed.public}{path}")
    private = ask(f"http://127.0.0.1:{deployed.ports['gateway']}{path}")

    assert public[0] in (401, 404), public
    assert "payflow_" not in public[1]
    assert private[0] != public[0] or private[1] != public[1]


def test_audit_signs_its_heads_on_its_volume(deployed: Deployed, token: str) -> None:
    heads = deployed.folder / "audit/var/lib/payflow/audit-heads/heads.jsonl"
    deadline = time.monotonic() + 30
    while not heads.exists():
        assert time.monotonic() < deadline, "no head was signed"
        time.sleep(0.2)

    assert json.loads(heads.read_text().splitlines()[0])["sequence"] >= 1


def test_nothing_is_written_anywhere_but_on_the_volumes(deployed: Deployed) -> None:
    written = {
        str(path.relative_to(deployed.folder))
        for path in deployed.folder.rglob("*")
        if path.is_file() and "/etc/payflow/" not in str(path) and path.suffix != ".log"
    }

    assert {path.partition("/")[0] for path in written} <= {"audit"}
    assert all(path.startswith("audit/var/lib/payflow/audit-heads/") for path in written)


def test_the_migration_beside_running_processes_changes_nothing(
    deployed: Deployed, postgres: tuple[str, str], secret_folders: dict[str, Path]
) -> None:
    objects = manifests(values=("postgres.sslMode=disable", "postgres.owner.name=owner"))
    job = of_kind(objects, "Job")["migration"]["spec"]["template"]["spec"]

    again = run_migration(job, objects, deployed.folder, postgres[0], secret_folders)

    assert again.returncode == 0, again.stderr
    assert again.stdout == "The database is up to date.\n"
    assert ask(f"http://127.0.0.1:{deployed.public}/ready")[0] == 200


def test_each_process_ends_by_itself_when_told(deployed: Deployed) -> None:
    stop(deployed)

    assert deployed.stopped == dict.fromkeys(deployed.processes, 0)
