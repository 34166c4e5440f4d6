"""The processes of the rendered Deployments run: each with the arguments, variables and files of its manifest only.

PostgreSQL is of its own, and its owner no superuser: a role that may make roles, as operators of clusters get one.
Codes go out by a mail server with TLS, a stand-in of ours, whose password and certificate come from a Secret.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import shutil
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
from tests.stack.helm.processes import START_S, Deployed, Pod, is_free, mail_server
from tests.support.servers import server, with_database

pytestmark = pytest.mark.timeout(600)


PASSWORD = secrets.token_urlsafe(16)
# Two customers, one of whom signs in and pays the other.
PEOPLE: list[dict[str, str]] = [
    {
        "type": "customer",
        "customer_id": "cust_901",
        "name": "Grace Example",
        "country": "DE",
        "email": "grace@example.org",
    },
    {"type": "customer", "customer_id": "cust_902", "name": "Alan Example", "country": "DE"},
    {"type": "verification", "customer_id": "cust_901"},
    {"type": "verification", "customer_id": "cust_902"},
    {
        "type": "account",
        "number": "T901USD",
        "customer_id": "cust_901",
        "currency": "USD",
        "opening_balance": "20000.00",
    },
    {"type": "account", "number": "T902USD", "customer_id": "cust_902", "currency": "USD"},
    {"type": "user", "username": "grace", "password": PASSWORD, "customer_id": "cust_901"},
]


def ask(
    url: str, body: dict[str, Any] | None = None, token: str | None = None, *, key: str | None = None
) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    headers |= {"Idempotency-Key": key} if key else {}
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
def base() -> int:
    """The first of 30 ports: those of the services, the public one, and those of the vendors' stand-ins."""
    return next(base for base in range(23000, 31000, 30) if all(map(is_free, range(base, base + 30))))


@pytest.fixture(scope="module")
def mail(base: int, secret_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The values by which an installation names its mail server; its Secret is there."""
    folder = tmp_path_factory.mktemp("mail") / "vendors"
    with mail_server(folder, base + 20) as settings:
        secret_folders["payflow-mail"] = folder
        yield mail_values(settings)


def mail_values(settings: dict[str, str]) -> list[str]:
    """Plain settings under `settings`; those given as files from a Secret, for notification only."""
    values: list[str] = []
    of_secret = 0
    for name, value in settings.items():
        if name.endswith("_FILE"):
            entry = f"secrets.extra[{of_secret}]"
            values += [f"{entry}.setting={name.removesuffix('_FILE')}", f"{entry}.existingSecret=payflow-mail"]
            values += [f"{entry}.key={Path(value).name}", f"{entry}.services={{notification}}"]
            of_secret += 1
        else:
            values.append(f"settings.{name}={value}")
    return values


@pytest.fixture(scope="module")
def deployed(
    postgres: tuple[str, str],
    valkey_url: str,
    secret_folders: dict[str, Path],
    base: int,
    mail: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Deployed]:
    ports = {name: base + row.port_offset for name, row in rows().items()}
    values = ["bindAddress=127.0.0.1", "postgres.sslMode=disable", "postgres.owner.name=owner", "ingress.enabled=true"]
    values += ["ingress.host=pay.example", "ingress.trustedProxies={127.0.0.1/32}", "commandLine.enabled=true"]
    values += [f"services.{name}.port={port}" for name, port in ports.items()]
    values += [f"services.gateway.publicPort={base}", "defaults.drainSeconds=2", *mail]
    objects = manifests(values=tuple(values))
    found = Deployed(tmp_path_factory.mktemp("pods"), ports, base)

    job = of_kind(objects, "Job")["migration"]["spec"]["template"]["spec"]
    migrated = run_migration(job, objects, found.folder, postgres[0], secret_folders)
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    try:
        for name, deployment in of_kind(objects, "Deployment").items():
            pod = start_pod(name, deployment["spec"]["template"]["spec"], objects, found.folder, secret_folders)
            found.pods[name] = (pod, {})
            if name != "cli":
                role = f"payflow_{name.replace('-', '_')}"
                assert f"//{role}@payflow-db-rw:5432/payflow?sslmode=disable" in pod.given["PAYFLOW_POSTGRES_URL"]
                replaced = {"PAYFLOW_POSTGRES_URL": socket_url(postgres[0], role), "PAYFLOW_REDIS_URL": valkey_url}
                found.pods[name] = (pod, replaced)
                found.start(name)
        found.wait_until_ready()
        yield found
    finally:
        found.stop()


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


@pytest.fixture
def token(deployed: Deployed, secret_folders: dict[str, Path]) -> str:
    password = (secret_folders["payflow-keys"] / "admin_password").read_text().strip()
    status, text = ask(f"http://127.0.0.1:{deployed.public}/auth/login", {"username": "admin", "password": password})
    assert status == 200, text
    return str(json.loads(text)["access_token"])


def test_all_of_it_is_healthy(deployed: Deployed) -> None:
    deadline = time.monotonic() + 30
    while True:
        status, text = ask(f"http://127.0.0.1:{deployed.public}/health")
        if status == 200 and set(json.loads(text)["dependencies"].values()) == {"healthy"}:
            break
        # A gateway asks the others every few seconds.
        assert time.monotonic() < deadline, text
        time.sleep(0.5)


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


def test_what_the_command_lines_pod_loads_is_paid_with_a_code_that_comes_by_mail(
    deployed: Deployed, secret_folders: dict[str, Path]
) -> None:
    public = f"http://127.0.0.1:{deployed.public}"
    file = deployed.pods["cli"][0].place("/tmp/people.jsonl")
    file.write_text("".join(json.dumps(record) + "\n" for record in PEOPLE))
    loaded = deployed.run_command_line("load", str(file))
    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    status, text = ask(f"{public}/auth/login", {"username": "grace", "password": PASSWORD})
    assert status == 200, text
    body = {"transaction_id": "txn-1", "customer_id": "cust_901", "amount": "15000.00"}
    body |= {"from_account": "T901USD", "to_account": "T902USD"}

    def confirm(**more: str) -> tuple[int, str]:
        return ask(f"{public}/payment/confirm", body | more, json.loads(text)["access_token"], key="key-1")

    asked = confirm()
    paid = confirm(otp=mailed_code(secret_folders["payflow-mail"] / "vendors.log", "grace@example.org"))

    assert json.loads(asked[1])["status"] == "OTP_REQUIRED", asked
    assert json.loads(paid[1])["status"] == "SUCCESS", paid
    file.unlink()


def mailed_code(log: Path, recipient: str) -> str:
    """The code in a mail that the stand-in was handed."""
    deadline = time.monotonic() + 30
    while True:
        told = log.read_text().partition(f"[smtp] to {recipient}:")[2]
        code = re.search(r"\b[0-9]{6}\b", told)
        if code is not None:
            return code[0]
        assert time.monotonic() < deadline, f"no code was mailed: {log.read_text()[-1000:]}"
        time.sleep(0.1)


def test_audit_signs_its_heads_on_its_volume(deployed: Deployed, token: str) -> None:
    heads = deployed.folder / "audit/var/lib/payflow/audit-heads/heads.jsonl"
    deadline = time.monotonic() + 30
    while not heads.exists():
        assert time.monotonic() < deadline, "no head was signed"
        time.sleep(0.2)

    assert json.loads(heads.read_text().splitlines()[0])["sequence"] >= 1


def test_a_second_audit_over_the_same_volume_shares_the_work_and_the_trail_is_whole(
    deployed: Deployed, base: int, token: str
) -> None:
    pod, replaced = deployed.pods["audit"]
    deployed.pods["audit-2"] = (pod, replaced | {"PAYFLOW_PORT": str(base + 29)})
    deployed.ports["audit-2"] = base + 29
    deployed.start("audit-2")
    deployed.wait_until_ready()

    for number in range(910, 930):
        body = {"customer_id": f"cust_{number}", "name": "Ada Example", "country": "DE"}
        assert ask(f"http://127.0.0.1:{deployed.public}/customers", body, token)[0] in (200, 201)
        time.sleep(0.2)
    verified = deployed.run_command_line("audit", "verify", "--json")

    assert verified.returncode == 0, verified.stdout + verified.stderr
    told = json.loads(verified.stdout)
    assert told["problems"] == []
    assert told["rows"] > 20
    assert told["heads"] > 1


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


def test_a_process_that_ends_by_itself_is_told_at_once_with_its_last_words(
    secret_folders: dict[str, Path], tmp_path: Path
) -> None:
    # A channel is named, but may not carry codes: only the process can tell.
    values = ("postgres.sslMode=disable", "services.notification.port=22999", "settings.PAYFLOW_CODE_CHANNELS=sms")
    objects = manifests(values=values)
    spec = of_kind(objects, "Deployment")["notification"]["spec"]["template"]["spec"]
    alone = Deployed(tmp_path, {"notification": 22999}, 0)
    alone.pods["notification"] = (start_pod("notification", spec, objects, tmp_path, secret_folders), {})
    started = time.monotonic()

    alone.start("notification")
    with pytest.raises(pytest.fail.Exception, match=r"exit code 1: .*no channel for one-time codes is set"):
        alone.wait_until_ready()

    assert time.monotonic() - started < START_S / 4


def test_each_process_ends_by_itself_when_told(deployed: Deployed) -> None:
    deployed.stop()

    assert deployed.stopped == dict.fromkeys(deployed.processes, 0)
