"""The bench against real servers: the loader on sockets, pgbench and the look into the ledger on PostgreSQL."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import asyncpg

from payflow.run.embedded.binaries import postgres_tree
from payflow.run.embedded.postgres import wait_until_ready
from payflow_dev.bench.drive import drive
from payflow_dev.bench.job import Job
from payflow_dev.bench.ledger import read_ledger, wait_until_finished
from payflow_dev.bench.money import Leg
from payflow_dev.bench.options import choose_loader
from payflow_dev.bench.pgbench import DATABASE, Pgbench, in_database
from payflow_dev.bench.population import make_customers, make_payments
from payflow_dev.bench.wire import Outcome, id_prefix, render_heads, render_templates, transaction_id
from payflow_dev.bench.wrk import find_wrk, read_answers, read_summary
from tests.builders import new_id

RUN_ID = "abc123"
Answer = Callable[[int, bytes], bytes | None]


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


class Bank:
    """Answers requests as `answer(number of the request, its body)` says; None cuts the connection."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.ids: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.ids.append(body.split(b'"')[3].decode())
                answer = self._answer(len(self.ids), body)
                if answer is None:
                    return
                # In two packets, as a network may do.
                writer.write(answer[:20])
                await writer.drain()
                writer.write(answer[20:])
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


@contextmanager
def served(bank: Bank) -> Iterator[int]:
    """The bank on a free port, in a thread of its own."""
    loop = asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    server = loop.run_until_complete(asyncio.start_server(bank.handle, sock=listener))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield listener.getsockname()[1]
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def a_job(port: int, *, connections: int = 4, seconds: float = 0.5, first: int = 100) -> Job:
    customers = make_customers(count=3, run_id=RUN_ID, seed=1)
    payments = make_payments(customers=customers, count=50, seed=1, is_hot=False, inter_bank_share=0.0)
    length = len(transaction_id(run_id=RUN_ID, number=0))
    return Job(
        host="127.0.0.1",
        port=port,
        connections=connections,
        seconds=seconds,
        run_id=RUN_ID,
        first=first,
        heads=render_heads(authority=f"127.0.0.1:{port}", tokens=["a", "b", "c"]),
        templates=render_templates(payments=payments, customers=customers, id_length=length),
    )


def test_the_loader_sends_each_payment_once_and_knows_what_came_of_it() -> None:
    def answer(number: int, _body: bytes) -> bytes:
        return http(422, b'{"error":"INSUFFICIENT_FUNDS"}') if number == 3 else http(200, b'{"status":"SUCCESS"}')

    bank = Bank(answer)
    with served(bank) as port:
        load = drive(job=a_job(port), loader="own", tick=lambda _note: None).load

    assert sorted(bank.ids) == [transaction_id(run_id=RUN_ID, number=100 + n) for n in range(len(load.outcomes))]
    assert load.errors == {"422 INSUFFICIENT_FUNDS": 1}
    assert load.outcomes.count(Outcome.REFUSED) == 1
    assert load.acknowledged_in_all == len(bank.ids) - 1
    assert 0 < load.acknowledged <= load.acknowledged_in_all
    assert 0 < load.latencies.p50_ms <= load.latencies.p99_ms
    assert load.cpu_s > 0


def test_a_cut_connection_leaves_its_payment_unknown_and_is_opened_again() -> None:
    bank = Bank(lambda number, _body: None if number % 5 == 0 else http(202, b'{"status":"PENDING"}'))
    with served(bank) as port:
        load = drive(job=a_job(port), loader="own", tick=lambda _note: None).load

    cut = len(bank.ids) // 5
    assert cut > 2
    assert load.errors == {"no answer: connection lost": cut}
    assert load.outcomes.count(Outcome.UNKNOWN) == cut
    assert load.outcomes.count(Outcome.PENDING) == len(bank.ids) - cut


def test_nobody_listening_is_an_error_and_no_payment() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    load = drive(job=a_job(port), loader="own", tick=lambda _note: None).load

    assert load.outcomes == b""
    assert set(load.errors) == {"no connection"}


def test_what_wrk_s_script_leaves_is_read() -> None:
    lines = ["S 000000101\n", "P 000000102\n", "E 422 INSUFFICIENT_FUNDS\n", "E 502 \n"]

    outcomes, errors = read_answers(lines, first=100, sent=5)

    unknown = Outcome.UNKNOWN
    assert list(outcomes) == [unknown, Outcome.SUCCESS, Outcome.PENDING, unknown, unknown]
    assert errors == {"422 INSUFFICIENT_FUNDS": 1, "502": 1}
    assert read_summary("sent 5\np50_us 1200\n") == {"sent": 5, "p50_us": 1200}


def test_the_loader_of_this_machine_names_exactly_the_payments_that_were_acknowledged() -> None:
    """wrk where it is installed, else our own: by default a run's acknowledgements can be checked one by one."""

    def answer(number: int, body: bytes) -> bytes:
        name = body.split(b'"')[3]
        if number % 3 == 0:
            return http(422, b'{"error":"INSUFFICIENT_FUNDS"}')
        acknowledged.append(name.decode())
        return http(200, b'{"status":"SUCCESS","transaction_id":"%s"}' % name)

    acknowledged: list[str] = []
    program = find_wrk()
    loader = choose_loader("auto", wrk=program)
    bank = Bank(answer)

    with served(bank) as port:
        load = drive(job=a_job(port, seconds=1), loader=loader, tick=lambda _note: None).load

    told = [
        transaction_id(run_id=RUN_ID, number=100 + place)
        for place, outcome in enumerate(load.outcomes)
        if outcome == Outcome.SUCCESS
    ]
    assert loader == ("own" if program is None else "wrk")
    assert len(told) > 10
    assert set(told) <= set(acknowledged)
    # wrk cuts off what is under way at its end, at most one payment a connection.
    assert len(set(acknowledged) - set(told)) <= 4


async def test_pgbench_measures_a_real_server(postgres_url: str) -> None:
    await wait_until_ready(url=postgres_url, seconds=30)
    program = postgres_tree() / "pginstall/bin/pgbench"
    pgbench = Pgbench(program=program, owner_url=postgres_url, tick=lambda: None, scale=1)
    await pgbench.create_database()

    await asyncio.to_thread(pgbench.initialise)
    run = await asyncio.to_thread(lambda: pgbench.run(clients=2, seconds=1))

    connection = await asyncpg.connect(in_database(postgres_url, DATABASE))
    moved = await connection.fetchval("SELECT count(*) FROM pgbench_history")
    await connection.close()
    await pgbench.drop_database()
    assert moved == run.transactions > 0
    assert run.tps > 0
    assert run.failed == 0


async def add_payment(connection: asyncpg.Connection[Any], *, name: str, state: str) -> UUID:
    """A payment as confirm stores it."""
    payment_id = new_id()
    ended = state in ("COMPLETED", "REJECTED")
    await connection.execute(
        """
        INSERT INTO confirm.transactions (payment_id, customer_id, idempotency_key, fingerprint, transaction_id, amount,
            debtor_account, creditor_account, state, version, fencing_token, due_at, error_code, traceparent,
            received_at, updated_at, completed_at)
        VALUES ($1, 'c', $2, '', $2, '1.00', 'A', 'B', $3, 1, 1, CASE WHEN $4 THEN NULL ELSE now() END,
            CASE WHEN $3 = 'REJECTED' THEN 'X' END, '', now(), now(), CASE WHEN $3 = 'COMPLETED' THEN now() END)
        """,
        payment_id,
        name,
        state,
        ended,
    )
    return payment_id


async def add_account(
    connection: asyncpg.Connection[Any], *, number: str, posted_minor: int, held_minor: int = 0
) -> str:
    account_id = new_id()
    await connection.execute(
        "INSERT INTO account.customers (customer_id, name_encrypted, created_at) VALUES ($1, '', now())", number
    )
    await connection.execute(
        "INSERT INTO account.accounts (account_id, number, customer_id, kind, currency, opened_at) "
        "VALUES ($1, $2, $2, 'customer', 'USD', now())",
        account_id,
        number,
    )
    await connection.execute(
        "INSERT INTO account.account_balance (account_id, currency, is_internal, posted_minor, held_minor) "
        "VALUES ($1, 'USD', false, $2, $3)",
        account_id,
        posted_minor,
        held_minor,
    )
    return str(account_id)


async def test_the_ledger_is_read_payment_by_payment_with_the_balances(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    debtor = await add_account(connection, number="A", posted_minor=900, held_minor=50)
    creditor = await add_account(connection, number="B", posted_minor=1100)
    prefix = id_prefix(RUN_ID)
    payment_id = await add_payment(connection, name=f"{prefix}1", state="COMPLETED")
    await add_payment(connection, name=f"{prefix}2", state="REJECTED")
    await add_payment(connection, name=f"{prefix}3", state="SUBMITTED")
    await add_payment(connection, name="b999999-1", state="REJECTED")
    entry = new_id()
    await connection.execute(
        "INSERT INTO account.journal_entry (entry_id, payment_id, kind, fencing_token, booked_at) "
        "VALUES ($1, $2, 'transfer', 1, now())",
        entry,
        payment_id,
    )
    for account, amount in ((debtor, -100), (creditor, 100)):
        await connection.execute(
            "INSERT INTO account.posting (account_id, sequence, entry_id, amount_minor, balance_minor, booked_at) "
            "VALUES ($1, 1, $2, $3, 0, now())",
            account,
            entry,
            amount,
        )
    await connection.close()

    unfinished = await wait_until_finished(url=database_url, prefix=prefix, seconds_max=0, tick=lambda: None)
    state = await read_ledger(url=database_url, prefix=prefix, accounts=["A", "B", "C"])

    assert unfinished == 1
    assert state.balances == {"A": (900, 50), "B": (1100, 0)}
    assert {name: payment.state for name, payment in state.payments.items()} == {
        f"{prefix}1": "COMPLETED",
        f"{prefix}2": "REJECTED",
        f"{prefix}3": "SUBMITTED",
    }
    legs = sorted(state.payments[f"{prefix}1"].legs, key=lambda leg: leg.amount_minor)
    assert legs == [Leg(entry.bytes, "A", -100), Leg(entry.bytes, "B", 100)]
    assert list(state.payments[f"{prefix}2"].legs) == []
