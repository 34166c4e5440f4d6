"""Draws docs/pictures/compose-*: all containers run, payments of every kind flow, and the watchers are asked.

`python tests/stack/full/run.py pictures` after `build`. The alert's page is Prometheus' own, by Chromium, where that is
installed; the rest is drawn from what Jaeger and Prometheus answer (payflow_dev.pictures).
"""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import uuid4

import watched
from rig import FILES, HTTP, ROOT, SETTINGS, ask, compose, compose_command, eventually, memory_is_enough, pay

from payflow_dev.pictures import dashboard, trace
from tests.support.system import RELAXED

PICTURES: Final = ROOT / "docs" / "pictures"
DRAWN: Final = ("payments", "services")
_CUSTOMERS: Final = 40
_MINUTES: Final = 5.0
_PASSWORD: Final = "password of a picture"


def main() -> None:
    """Start, pay, draw."""
    SETTINGS.update(RELAXED)
    SETTINGS["PAYFLOW_TRACES_PER_SECOND"] = "50"
    watched.everything_that_can_be_had_here_starts_and_becomes_healthy()
    load_customers()
    with paying():
        time.sleep(60 * _MINUTES + 30)
        for name in DRAWN:
            dashboard.main([name, f"--minutes={_MINUTES}", f"--out={PICTURES / f'compose-{name}.svg'}"])
        watched.a_payment_through_the_edge_is_one_trace_over_all_services()
        time.sleep(3)
        trace.main([watched.PAID["trace_id"], f"--out={PICTURES / 'compose-trace.svg'}"])
    memory_is_enough()
    draw_alert()


def load_customers() -> None:
    """Customers with money, by `payflow load` as the how-to has it."""
    records: list[dict[str, Any]] = []
    for number in range(_CUSTOMERS):
        customer = {"customer_id": f"pic_{number}"}
        records += [
            {"type": "customer", "name": f"Customer {number}", "country": "DE", **customer},
            {"type": "verification", **customer},
            {"type": "account", "number": f"PIC{number}", "currency": "USD", "opening_balance": "900000", **customer},
            {"type": "account", "number": f"PIC{number}-EUR", "currency": "EUR", "opening_balance": "9000", **customer},
            {"type": "account", "number": f"PIC{number}-EMPTY", "currency": "USD", **customer},
            {"type": "user", "username": f"pic_{number}", "password": _PASSWORD, **customer},
        ]
    subprocess.run(
        [*compose_command(), *FILES, "run", "--rm", "-T", "payflow", "load", "/dev/stdin"],
        input="\n".join(json.dumps(record) for record in records) + "\n",
        cwd=ROOT,
        text=True,
        check=True,
        timeout=300,
    )


@contextmanager
def paying() -> Iterator[None]:
    """Payments of every kind, until the end of the block. Raises AssertionError where one was not answered."""
    tokens = [sign_in(number) for number in range(_CUSTOMERS)]
    is_over = threading.Event()
    failures: list[BaseException] = []

    def again_and_again(pay_once: Callable[[int, str], None], pause_s: float) -> None:
        number = 0
        try:
            while not is_over.wait(pause_s):
                number = (number + 1) % (_CUSTOMERS - 1)
                pay_once(number, tokens[number])
        except BaseException as error:
            failures.append(error)

    kinds = [
        (pay_small, 0.06),
        (pay_small, 0.11),
        (pay_from_nothing, 0.7),
        (pay_to_nobody, 1.1),
        (pay_abroad, 0.5),
        (pay_with_code, 1.5),
    ]
    threads = [threading.Thread(target=again_and_again, args=kind) for kind in kinds]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures


def sign_in(number: int) -> str:
    status, answer = ask(f"{HTTP}/auth/login", {"username": f"pic_{number}", "password": _PASSWORD})
    assert status == 200, answer
    return str(answer["access_token"])


def accounts(number: int) -> dict[str, str]:
    return {"customer_id": f"pic_{number}", "from_account": f"PIC{number}", "to_account": f"PIC{number + 1}"}


def pay_small(number: int, token: str) -> None:
    pay(token, f"small-{uuid4()}", "12.00", **accounts(number))


def pay_from_nothing(number: int, token: str) -> None:
    """Out of an account in which there is nothing."""
    pay(token, f"refused-{uuid4()}", "12.00", **{**accounts(number), "from_account": f"PIC{number}-EMPTY"})


def pay_to_nobody(number: int, token: str) -> None:
    pay(token, f"nobody-{uuid4()}", "12.00", **{**accounts(number), "to_account": "NOBODY1"})


def pay_abroad(number: int, token: str) -> None:
    to = {"to_account": "DE08990100100000001001", "creditor": {"name": "Erika Musterfrau"}}
    pay(token, f"abroad-{uuid4()}", "1.00", **{**accounts(number), "from_account": f"PIC{number}-EUR", **to})


def pay_with_code(number: int, token: str) -> None:
    transaction_id = f"code-{uuid4()}"
    asked = pay(token, transaction_id, "15000.00", **accounts(number))[1]
    if asked["status"] == "OTP_REQUIRED":
        code = compose("run", "--rm", "--no-deps", "payflow", "otp", transaction_id).strip().splitlines()[-1]
        pay(token, transaction_id, "15000.00", otp=code, **accounts(number))


def draw_alert() -> None:
    """Stop a service, and take Prometheus' page of alerts when its alert fires."""
    import alert_page

    compose("stop", "kyc-service")
    eventually(lambda: "firing" in watched.states_of("ProcessDown", "kyc"), "the alert fires", seconds=240)
    alert_page.take(f"{watched.PROMETHEUS}/classic/alerts", PICTURES / "compose-alert.png", alert="ProcessDown")
    compose("start", "kyc-service")
