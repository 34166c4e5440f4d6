"""PAYFLOW_ENV=production refuses what is there for trying Payflow out, and starts with what an operator brings.

The PostgreSQL and the Valkey of the test run stand for the operator's own: they are outside the instance.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from argon2 import PasswordHasher

from payflow.contracts.gateway import DEMO_PASSWORD
from payflow.platform.service import Runtime
from payflow.platform.settings import SettingsError
from payflow.run.commands.serve import checked_settings
from payflow.run.embedded.places import remove_server_homes
from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.registry import SERVICES, Deployable, find, service_names
from payflow.run.secrets import require_secrets
from tests.support.production import OWN_BANKS, OWN_CHANNEL, Operator, ask, execute, until_answers
from tests.support.servers import ROOT, with_database


@pytest.fixture(scope="module")
def empty_database(postgres_url: str) -> Iterator[str]:
    """The owner's address of a database in which nothing is yet."""
    name = f"production_{os.getpid()}_{token_hex(4)}"
    asyncio.run(execute(postgres_url, f"CREATE DATABASE {name}"))
    yield with_database(postgres_url, database=name)
    asyncio.run(execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="module")
def role_passwords(password_files: dict[str, Path], postgres_url: str) -> Iterator[None]:
    """Roles belong to the server: what this module changes about their passwords is put back for the others."""
    yield
    for service, file in password_files.items():
        text = file.read_text().strip()
        asyncio.run(execute(postgres_url, f"ALTER ROLE payflow_{service} PASSWORD '{text}'"))


@pytest.fixture(scope="module")
def operator(empty_database: str, valkey_url: str, role_passwords: None) -> Iterator[Operator]:
    """An operator who has brought everything: databases, secrets, banks."""
    folder = Path(tempfile.mkdtemp(prefix="pf-prod-"))
    folder.chmod(0o755)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PAYFLOW_")}
    environ |= {
        "PYTHONPATH": str(ROOT / "src"),
        "PAYFLOW_ENV": "production",
        "PAYFLOW_POSTGRES_URL": empty_database,
        "PAYFLOW_REDIS_URL": valkey_url,
        "PAYFLOW_AGENTS": OWN_BANKS,
        **OWN_CHANNEL,
    }
    someone = Operator(folder, environ)
    made = someone.run("secrets", str(folder / "secrets"))
    assert made.returncode == 0, made.stderr
    environ |= dict(line.split("=", 1) for line in made.stdout.splitlines())
    yield someone
    someone.on_instance("down")
    remove_server_homes(make_instance(data_dir=someone.data_dir))
    subprocess.run(["rm", "-rf", str(folder)], check=False)


def test_secrets_are_made_once_and_for_their_owner_alone(operator: Operator) -> None:
    folder = operator.folder / "secrets"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    again = operator.run("secrets", str(folder))

    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    private = {path.name for path in after if stat.S_IMODE(path.stat().st_mode) == 0o600}
    assert again.returncode == 0
    assert after == before
    assert {path.name for path in after} - private == {"services.jwks.json"}
    assert {f"{service}.jwk" for service in service_names(SERVICES)} <= private
    assert {f"postgres_{service}" for service in service_names(SERVICES)} <= private


@pytest.mark.parametrize("missing", ["POSTGRES_URL", "REDIS_URL"])
def test_embedded_servers_are_refused_by_name(operator: Operator, missing: str) -> None:
    line = operator.refusal(**{missing: None})

    assert line == f"PAYFLOW_ENV=production uses no embedded server: set PAYFLOW_{missing}."
    assert not (operator.data_dir / "postgres").exists()


NEEDED = ["COLUMN_KEYS_FILE", "OTP_KEY_FILE", "AUDIT_KEY_FILE", "TOKEN_KEYS_DIR", "SERVICE_KEYS_DIR"]


@pytest.mark.parametrize("missing", NEEDED)
def test_a_secret_that_is_not_set_is_named(operator: Operator, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in operator.environ.items():
        if name != f"PAYFLOW_{missing}" and name.startswith("PAYFLOW_"):
            monkeypatch.setenv(name, value)

    with pytest.raises(StartError) as told:
        require_secrets(make_instance(data_dir=operator.data_dir), service_names(SERVICES))

    assert told.value.message.startswith(f"PAYFLOW_ENV=production makes no secrets by itself: set PAYFLOW_{missing} (")
    assert told.value.message.count("PAYFLOW_") == 2


def test_secrets_that_are_not_set_are_all_named_and_none_is_made(operator: Operator) -> None:
    line = operator.refusal(**dict.fromkeys(NEEDED))

    assert [f"PAYFLOW_{name}" in line for name in NEEDED] == [True] * 5
    assert list((operator.data_dir / "secrets").rglob("*.j*")) == []


def test_a_folder_without_a_services_key_is_refused(operator: Operator) -> None:
    (operator.folder / "empty").mkdir()

    line = operator.refusal(SERVICE_KEYS_DIR=str(operator.folder / "empty"))

    assert line.endswith("there is no services.jwks.json that we can read.")


def test_a_word_near_production_is_not_taken_for_development(operator: Operator) -> None:
    assert operator.refusal(ENV="prod") == "PAYFLOW_ENV=prod: choose development or production."


def test_production_in_the_configuration_file_counts_too(operator: Operator) -> None:
    config = operator.folder / "payflow.toml"
    config.write_text('env = "production"\n')

    line = operator.refusal(ENV=None, CONFIG_FILE=str(config), POSTGRES_URL=None)

    assert "uses no embedded server" in line


def test_what_a_service_refuses_ends_the_start_of_all_with_its_line(operator: Operator) -> None:
    line = operator.refusal(DEMO_CHANNEL="true")
    mute = operator.refusal(SMTP_HOST=None)

    assert "the demo channel shows one-time passwords; not in production" in line
    assert "no channel for one-time codes is set" in mute


def test_what_an_operator_brings_starts_without_anything_of_the_demo(operator: Operator) -> None:
    started = operator.up()
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        status = json.loads(operator.on_instance("status", "--json").stdout)
        public = status["public_url"]
        password = (operator.folder / "secrets" / "admin_password").read_text().strip()
        admin = ask(f"{public}/auth/login", {"username": "admin", "password": password})
        demo = ask(f"{public}/auth/login", {"username": "demo", "password": DEMO_PASSWORD})
        code = operator.on_instance("otp", "txn_001")
    finally:
        stopped = operator.on_instance("down")

    names = {process["name"] for process in status["processes"]}
    assert names == {"supervisor", *(row.name for row in SERVICES)}
    assert {process["health"] for process in status["processes"]} == {"healthy"}
    assert (admin[0], demo[0]) == (200, 401)
    assert demo[1]["error"] == "INVALID_CREDENTIALS"
    assert code.returncode == 1
    assert "demo channel is off" in code.stderr
    assert not (operator.data_dir / "secrets" / "operators.txt").exists()
    assert DEMO_PASSWORD not in started.stdout
    assert stopped.returncode == 0, stopped.stderr


@pytest.fixture(scope="module")
def roles(operator: Operator) -> Path:
    """The folder with the roles' passwords, after `payflow migrate` has set them."""
    folder = operator.folder / "secrets" / "roles"
    migrated = operator.run("migrate", "--passwords-dir", str(folder))
    assert migrated.returncode == 0, migrated.stderr
    return folder


def as_role(operator: Operator, service: str, roles: Path) -> str:
    """The operator's database as one service's role."""
    owner = operator.environ["PAYFLOW_POSTGRES_URL"]
    password = (roles / f"postgres_{service}").read_text().strip()
    name = owner.split("?")[0].rsplit("/", 1)[1]
    return with_database(owner, database=name, user=f"payflow_{service}", password=password)


def test_a_database_with_demo_users_is_refused_until_they_are_disabled(operator: Operator, roles: Path) -> None:
    url = as_role(operator, "gateway", roles)
    owner = operator.environ["PAYFLOW_POSTGRES_URL"]
    hashed = PasswordHasher().hash(DEMO_PASSWORD)
    asyncio.run(
        execute(
            owner,
            "INSERT INTO gateway.users (user_id, username, role, customer_id, password_hash, created_at) "
            f"VALUES (gen_random_uuid(), 'Demo', 'customer', 'cust_001', '{hashed}', now())",
        )
    )

    line = operator.serve_refusal("gateway", POSTGRES_URL=url)
    asyncio.run(execute(owner, "UPDATE gateway.users SET is_enabled = false WHERE username = 'Demo'"))
    process = operator.serve("gateway", POSTGRES_URL=url)
    try:
        live = until_answers(f"http://127.0.0.1:{operator.base + 18}/live", process)
    finally:
        process.terminate()
        process.communicate(timeout=10)

    assert "the database has demo users with their public password (Demo)" in line
    assert live["status"] != "no answer"


def test_the_demo_password_is_refused_for_the_first_administrator(operator: Operator, roles: Path) -> None:
    url = as_role(operator, "gateway", roles)

    line = operator.serve_refusal(
        "gateway", POSTGRES_URL=url, BOOTSTRAP_ADMIN_PASSWORD=DEMO_PASSWORD, BOOTSTRAP_ADMIN_PASSWORD_FILE=None
    )

    assert "the demo password is public" in line


async def start(row: Deployable, runtime: Runtime) -> None:
    """What `payflow serve` does before it listens."""
    checked_settings(row)
    await importlib.import_module(row.module).build(runtime)


SERVE_REFUSALS = [
    ("account", {"COLUMN_KEYS_FILE": None}, "PAYFLOW_COLUMN_KEYS is not set."),
    ("otp", {"OTP_KEY_FILE": None}, "PAYFLOW_OTP_KEY is not set."),
    ("otp", {"OTP_KEY_FILE": None, "OTP_KEY": "short"}, "PAYFLOW_OTP_KEY: "),
    ("audit", {"AUDIT_KEY_FILE": None}, "PAYFLOW_AUDIT_KEY is not set."),
    ("gateway", {"TOKEN_KEYS_DIR": None}, "PAYFLOW_TOKEN_KEYS_DIR is not set."),
    ("gateway", {"REDIS_URL": None}, "PAYFLOW_REDIS_URL is not set."),
    ("kyc", {"POSTGRES_URL": None}, "PAYFLOW_POSTGRES_URL is not set."),
    ("kyc", {"SERVICE_KEYS_DIR": None}, "PAYFLOW_SERVICE_KEYS_DIR is not set"),
    ("kyc", {"SERVICE_KEYS_DIR": "/nowhere"}, "there is no services.jwks.json that we can read"),
    ("kyc", {"LOG_LEVL": "debug"}, "PAYFLOW_LOG_LEVL is no setting of Payflow: did you mean PAYFLOW_LOG_LEVEL?"),
    ("kyc", {"OTP_TRIES": "3"}, "PAYFLOW_OTP_TRIES is no setting of Payflow: did you mean PAYFLOW_OTP_TRIES_MAX?"),
    ("kyc", {"PORT": "http"}, "PAYFLOW_PORT='http': expected a whole number"),
    ("notification", {"DEMO_CHANNEL": "true"}, "not in production"),
    ("notification", {"SMTP_HOST": None}, "no channel for one-time codes is set"),
    ("notification", {"CODE_CHANNELS": "sms"}, "no channel for one-time codes is set"),
    ("notification", {"SMTP_TLS": "none"}, "only to a mail server on this machine"),
    ("partner-bank", {"AGENTS": None}, "in production every bank needs a url"),
    ("partner-bank", {"INBOUND_SECRET_FILE": None}, "the demo secret is refused in production"),
    ("other-bank", {}, "The simulated other bank is refused in production."),
]


@pytest.mark.parametrize(("service", "settings", "line"), SERVE_REFUSALS)
async def test_a_service_alone_refuses_what_it_lacks(
    operator: Operator,
    service: str,
    settings: dict[str, str | None],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = find(service)
    assert row is not None
    for name, value in operator.with_settings(settings).items():
        monkeypatch.setenv(name, value)
    runtime = Runtime(service=row.service, instance=row.name, environ=os.environ)

    try:
        with pytest.raises((StartError, SettingsError)) as told:
            await start(row, runtime)
    finally:
        await runtime.close()

    assert line in str(told.value)


def test_a_refusal_of_a_service_alone_is_one_line_and_exit_code_1(operator: Operator) -> None:
    mistyped = operator.serve_refusal("kyc", LOG_LEVL="debug")
    refused = operator.serve_refusal("notification", DEMO_CHANNEL="true")

    assert mistyped == "PAYFLOW_LOG_LEVL is no setting of Payflow: did you mean PAYFLOW_LOG_LEVEL?"
    assert refused.startswith("PAYFLOW_DEMO_CHANNEL: ")


def test_a_service_alone_serves_and_stops_when_told(operator: Operator, roles: Path) -> None:
    as_kyc = as_role(operator, "kyc", roles)
    process = operator.serve("kyc", POSTGRES_URL=as_kyc, OTP_TRIES_MAX="3")

    try:
        health = until_answers(f"http://127.0.0.1:{operator.base + 18}/health", process)
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)

    assert health["status"] == "healthy", output
    assert process.returncode == 0


def test_check_config_says_what_is_wrong_before_anything_starts(operator: Operator) -> None:
    good = operator.run("check-config")
    bad = operator.run("check-config", OTP_KEY_FILE="/nowhere/key", TOKEN_KEYS_DIR=None, LOG_LEVEL="loud")

    assert (good.returncode, good.stdout.splitlines()[-1]) == (0, "The settings are right.")
    assert bad.returncode == 1
    assert "PAYFLOW_OTP_KEY_FILE=/nowhere/key: No such file or directory" in bad.stdout
    assert "PAYFLOW_TOKEN_KEYS_DIR is not set." in bad.stdout
    assert "PAYFLOW_LOG_LEVEL='loud': expected debug or info or warning or error" in bad.stdout
    assert bad.stdout.count("PAYFLOW_LOG_LEVEL") == 1
    assert "3 settings are wrong." in bad.stderr


def test_check_config_demands_a_channel_for_codes(operator: Operator) -> None:
    without = operator.run("check-config", SMTP_HOST=None)
    one_service = operator.run("check-config", "notification", SMTP_HOST=None)
    contradicted = operator.run("check-config", SENDGRID_API_KEY="SG.x")

    for told in (without, one_service):
        assert told.returncode == 1
        assert "no channel for one-time codes is set" in told.stdout
        assert "1 setting is wrong." in told.stderr
    assert "choose one for e-mail" in contradicted.stdout
    assert "SG.x" not in contradicted.stdout + contradicted.stderr


def test_check_config_shows_no_secret(operator: Operator) -> None:
    done = operator.run("check-config", "--all")

    secrets = [path.read_text().strip() for path in (operator.folder / "secrets").glob("*") if path.is_file()]
    assert len(secrets) == 5
    assert [secret for secret in secrets if secret in done.stdout] == []
    assert "PAYFLOW_OTP_KEY=********" in done.stdout
