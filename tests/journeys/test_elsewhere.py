"""The command line reaches services that run somewhere else, by the settings that containers have."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from payflow.run.registry import OTHER_BANK, SERVICES
from tests.support.api import Api, Customer, Factory, new_key
from tests.support.servers import ROOT
from tests.support.system import System


class Elsewhere:
    """Somebody with a data directory in which nothing runs, who knows where the services are."""

    def __init__(self, system: System, folder: Path) -> None:
        self.folder = folder
        urls = {
            f"PAYFLOW_{row.service.upper()}_URL": system.service_url(row.port_offset)
            for row in reversed((*SERVICES, OTHER_BANK))
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PAYFLOW_")}
        keys = {"PAYFLOW_SERVICE_KEYS_DIR": str(system.instance.service_keys_dir)}
        self.environ = kept | urls | keys | {"PYTHONPATH": str(ROOT / "src")}

    def run(self, *arguments: str, **settings: str | None) -> subprocess.CompletedProcess[str]:
        environ = self.environ | {f"PAYFLOW_{name}": value or "" for name, value in settings.items()}
        return subprocess.run(
            [sys.executable, "-m", "payflow.run.main", *arguments, "--data-dir", str(self.folder)],
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
def elsewhere(system: System, tmp_path: Path) -> Elsewhere:
    (tmp_path / "secrets").mkdir()
    shutil.copy(system.instance.secrets_dir / "admin_password", tmp_path / "secrets")
    shutil.copy(system.instance.operators_file, tmp_path / "secrets")
    return Elsewhere(system, tmp_path)


async def test_a_code_is_read_from_anywhere(elsewhere: Elsewhere, make: Factory, bystander: Customer) -> None:
    payer = await make.customer(USD="50000.00")
    transaction_id = f"txn-{new_key()}"
    key = new_key()
    asked = await payer.pay(bystander.account, "15000.00", key=key, transaction_id=transaction_id)
    assert asked.json["status"] == "OTP_REQUIRED", asked

    code = elsewhere.run("otp", transaction_id)

    assert code.returncode == 0, code.stderr
    paid = await payer.pay(
        bystander.account, "15000.00", key=key, transaction_id=transaction_id, otp=code.stdout.strip()
    )
    assert paid.json["status"] == "SUCCESS", paid


async def test_records_are_loaded_from_anywhere(elsewhere: Elsewhere, api: Api, tmp_path: Path) -> None:
    name = f"user_{new_key()[:8]}"
    records = [
        {"type": "customer", "customer_id": f"cust_{name}", "name": "Ada Testperson"},
        {"type": "user", "username": name, "password": "a long password", "customer_id": f"cust_{name}"},
    ]
    (tmp_path / "records.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))

    loaded = elsewhere.run("load", str(tmp_path / "records.jsonl"))

    assert loaded.returncode == 0, loaded.stdout + loaded.stderr
    assert (await api.login(name, "a long password")).status == 200


async def test_the_demo_data_can_be_loaded_again_and_is_the_same(elsewhere: Elsewhere, api: Api) -> None:
    done = elsewhere.run("demo-data")

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith(f"{elsewhere.folder}/secrets/operators.txt.")
    assert (await api.login("demo", "password123")).status == 200


def test_production_has_no_demo_data(elsewhere: Elsewhere) -> None:
    refused = elsewhere.run("demo-data", ENV="production")
    passed_over = elsewhere.run("demo-data", "--if-allowed", ENV="production")

    assert (refused.returncode, refused.stderr.strip()) == (1, "PAYFLOW_ENV=production has no demo users.")
    assert (passed_over.returncode, passed_over.stdout.strip()) == (0, "PAYFLOW_ENV=production: nothing was loaded.")


def test_who_knows_nothing_is_told_how_to_start_an_instance(elsewhere: Elsewhere) -> None:
    done = elsewhere.run("otp", "txn-1", GATEWAY_URL=None)

    assert done.returncode == 3
    assert "start one with `./payflow up" in done.stderr
