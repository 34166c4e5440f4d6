"""confirm and account are killed in the middle of returns: each is made once, and nothing is left waiting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
import pytest

from payflow.run.local_rpc import LocalServices, local_services
from payflow.run.supervisor.status import read_status
from tests.support.api import Answer, Api, Client, Customer, Factory, eventually, new_key
from tests.support.system import RELAXED, System, kill, running_system

PAYMENTS: Final = 12
ROUNDS: Final = 5
# Who is killed again and again is started again after a longer and longer pause.
_BACK_S: Final = 60.0
_ENDED_S: Final = 40.0

pytestmark = pytest.mark.timeout(480)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running_system(**RELAXED) as system:
        yield system


@pytest.fixture(scope="module")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as session:
        yield session


@pytest.fixture(scope="module")
async def services(system: System) -> AsyncIterator[LocalServices]:
    async with local_services(system.instance) as services:
        yield services


async def paid(make: Factory) -> tuple[Customer, Customer, str]:
    payer, payee = await make.customer(USD="1000.00"), await make.customer(USD="0")
    answer = await payer.pay(payee.account, "900.00")
    assert answer.status == 200, answer
    payment = await payer.payment(answer.json["transaction_id"])
    return payer, payee, payment["payment_id"]


async def ask(operator: Client, payment_id: str, key: str) -> Answer | None:
    """Ask for 100.00 of it back, once; None where no answer came."""
    path, headers = f"/operator/payments/{payment_id}/returns", {"Idempotency-Key": key}
    try:
        return await operator.post(path, {"reason_code": "AM05", "amount": "100.00"}, headers=headers)
    except (aiohttp.ClientError, TimeoutError):
        return None


async def until_told(operator: Client, payment_id: str, key: str) -> dict[str, Any]:
    """Ask under one key until the answer is a return."""
    deadline = time.monotonic() + _ENDED_S
    while True:
        answer = await ask(operator, payment_id, key)
        if answer is not None and answer.status == 201:
            return dict(answer.json)
        assert answer is None or answer.status in (409, 429, 503), answer
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("victim", ["confirm", "account"])
async def test_returns_survive_the_death_of_who_makes_them(
    system: System, session: aiohttp.ClientSession, services: LocalServices, victim: str
) -> None:
    api = Api(session, system.url)
    make = Factory(api=api, services=services)
    operator = await api.sign_in("operator", system.operator_password("operator"))
    payments = await asyncio.gather(*(paid(make) for _ in range(PAYMENTS)))
    made: list[dict[str, Any]] = []

    for _ in range(ROUNDS):
        pid = int((await asyncio.to_thread(system.processes))[victim]["pid"])
        asked = [asyncio.ensure_future(until_told(operator, payment_id, new_key())) for _, _, payment_id in payments]
        await asyncio.sleep(0.02)
        kill(pid)
        made += await asyncio.gather(*asked)
        await eventually(lambda pid=pid: _is_back(system, victim, pid), seconds=_BACK_S)

    async def all_ended() -> bool:
        page = await operator.get("/returns?state=APPROVED")
        return page.status == 200 and page.json["data"] == []

    await eventually(all_ended, seconds=_ENDED_S)
    assert len({one["return_id"] for one in made}) == PAYMENTS * ROUNDS
    for payer, payee, _ in payments:
        assert (await payer.balances())[0] == f"{100 + 100 * ROUNDS}.00"
        assert (await payee.balances())[0] == f"{900 - 100 * ROUNDS}.00"
    verified = await asyncio.to_thread(system.run, "verify", timeout_s=120)
    assert verified.returncode == 0, verified.stdout + verified.stderr


async def _is_back(system: System, name: str, old_pid: int) -> bool:
    status = read_status(system.instance)
    process = None if status is None else next((one for one in status.processes if one.name == name), None)
    return process is not None and process.pid not in (None, old_pid) and process.state == "healthy"
