"""`payflow demo` plays against a running instance, again and again."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from payflow.contracts.notification import FindDemoCode, Notification
from payflow.kernel.errors import PayflowError
from payflow.run.local_rpc import LocalServices
from tests.support.api import Api, new_key
from tests.support.system import System


async def demo(system: System) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(system.run, "demo")


@pytest.mark.parametrize("time", ["first", "second"])
async def test_the_demo_tells_its_story_to_the_end(system: System, time: str) -> None:
    played = await demo(system)

    assert played.returncode == 0, played.stdout + played.stderr
    for told in ("OTP_REQUIRED", "byte for byte", "CREDITOR_UNREACHABLE", "ACSC", "every cent", "payment.completed"):
        assert told in played.stdout, time
    assert "All as it should be" in played.stdout


async def test_the_demo_goes_on_when_earlier_runs_have_spent_the_money(
    system: System, api: Api, services: LocalServices
) -> None:
    client = await api.sign_in("demo", "password123")
    available = (await client.get("/accounts/ACC001")).json["available"]
    body = {
        "transaction_id": new_key(),
        "customer_id": "cust_001",
        "amount": available,
        "from_account": "ACC001",
        "to_account": "ACC002",
    }
    key = new_key()
    await client.confirm(body, key=key)
    query = FindDemoCode(transaction_id=body["transaction_id"])
    (code,) = await services.client(Notification).find_demo_codes([query])
    assert not isinstance(code, PayflowError)
    assert (await client.confirm(body | {"otp": code.code}, key=key)).status == 200

    played = await demo(system)

    assert played.returncode == 0, played.stdout + played.stderr
    assert "back first" in played.stdout
