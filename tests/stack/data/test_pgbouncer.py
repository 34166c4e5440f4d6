"""Everything runs behind a PgBouncer that gives a connection to a transaction only, of which there are few."""

from __future__ import annotations

from collections.abc import Iterator

import asyncpg
import pytest

from payflow.platform.postgres import Database
from tests.stack.data.world import World, assert_verified
from tests.support.api import eventually, new_key
from tests.support.files import ended, lines_of, upload
from tests.support.load import Load
from tests.support.other_bank import NORDBANK
from tests.support.pgbouncer import running_pgbouncer
from tests.support.postgres_node import OWNER, PASSWORD, PostgresNode, running_postgres, server_folder
from tests.support.system import RELAXED, StartFailed, System, running_system

# Of each role; the services' pools would open three for each process.
SERVER_CONNECTIONS = 2

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresNode]:
    with server_folder() as folder, running_postgres(folder) as node:
        yield node


@pytest.fixture(scope="module")
def bouncer_url(postgres: PostgresNode) -> Iterator[str]:
    with running_pgbouncer(postgres.folder, server=postgres.port, pool_size=SERVER_CONNECTIONS) as port:
        yield f"postgresql://{OWNER}:{PASSWORD}@127.0.0.1:{port}/payflow"


@pytest.fixture(scope="module")
def system(postgres: PostgresNode, bouncer_url: str) -> Iterator[System]:
    settings = {
        "POSTGRES_URL": bouncer_url,
        "POSTGRES_POOLING": "transaction",
        "POSTGRES_DIRECT_URL": postgres.url(),
        "POSTGRES_POOL_SIZE": "4",
    }
    with running_system(**RELAXED, **settings) as system:
        yield system


async def test_services_hold_no_connections_to_the_server_but_those_that_listen(
    world: World, postgres: PostgresNode
) -> None:
    connection = await asyncpg.connect(postgres.url())
    rows = await connection.fetch(
        "SELECT usename, count(*) FILTER (WHERE query NOT LIKE 'LISTEN%') AS pooled FROM pg_stat_activity "
        "WHERE usename LIKE 'payflow_%' GROUP BY usename"
    )
    await connection.close()

    assert {row["usename"] for row in rows} >= {"payflow_confirm", "payflow_account", "payflow_gateway"}
    assert all(row["pooled"] <= SERVER_CONNECTIONS for row in rows), rows


async def test_a_payment_within_the_bank_and_one_to_another_bank(world: World) -> None:
    debtor, creditor = await world.make.customer(USD="1000.00"), await world.make.customer(USD="0.00")

    inside = await debtor.pay(creditor.account, "10.00")
    body = debtor.body(NORDBANK, "20.00")
    outside = await debtor.client.confirm(body, key=new_key())

    assert (inside.status, inside.json["status"]) == (200, "SUCCESS")
    assert outside.status in (200, 202)

    async def done() -> bool:
        return (await debtor.payment(body["transaction_id"]))["status"] == "SUCCESS"

    await eventually(done, seconds=15)
    assert await debtor.balances() == ("970.00", "0.00", "970.00")


async def test_a_payment_with_a_one_time_password(world: World) -> None:
    debtor, creditor = await world.make.customer(USD="50000.00"), await world.make.customer(USD="0.00")
    body, key = debtor.body(creditor.account, "10000.01"), new_key()

    asked = await debtor.client.confirm(body, key=key)
    paid = await debtor.client.confirm(body | {"otp": await debtor.otp(body["transaction_id"])}, key=key)

    assert asked.json["status"] == "OTP_REQUIRED"
    assert paid.json["status"] == "SUCCESS", paid


async def test_a_file_of_payments(world: World) -> None:
    debtor, creditor = await world.make.customer(USD="1000.00"), await world.make.customer(USD="0.00")
    bodies = [debtor.body(creditor.account, "0.10") for _ in range(1000)]

    accepted = await upload(debtor, lines_of(bodies), key=new_key())
    done = await ended(debtor, accepted.json["bulk_id"])

    assert (done["status"], done["counts"]) == ("COMPLETED", {"SUCCESS": 1000})


async def test_many_customers_at_once_and_every_rule_is_kept(world: World, system: System) -> None:
    customers = [await world.make.customer(USD="100000.00") for _ in range(32)]
    load = Load(customers, pause_s=0.2, seed=3)
    load.start()

    async def enough() -> bool:
        return load.paid >= 300

    await eventually(enough, seconds=60)
    await load.stop()

    assert not load.bugs
    assert set(load.told) <= {"200", "202", "422", "409"}, load.told
    assert_verified(system)


async def test_events_arrive_by_notification_and_not_by_looking_anyway(world: World, postgres: PostgresNode) -> None:
    """LISTEN goes past PgBouncer: each consumer has a connection that hears."""
    connection = await asyncpg.connect(postgres.url())
    listening = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'payflow_%' AND query LIKE 'LISTEN%'"
    )
    await connection.close()

    assert listening >= 3


async def test_in_session_mode_a_service_connects_as_without_it(system: System, postgres: PostgresNode) -> None:
    """With what docs/howto/run-behind-pgbouncer.md says: parameters that PgBouncer does not know, the role has."""
    ignored = "search_path, plan_cache_mode, enable_seqscan, enable_hashjoin, enable_mergejoin"
    password = system.instance.password_file("kyc").read_text().strip()
    with running_pgbouncer(postgres.folder, server=postgres.port, pool_size=2, mode="session", ignored=ignored) as port:
        url = f"postgresql://payflow_kyc:{password}@127.0.0.1:{port}/payflow"
        database = await Database.connect(url=url, pool_size=2, application="test", schema="kyc")
        keeps, seqscan = await database.keeps_search_path("kyc"), await database.fetchval("SHOW enable_seqscan")
        await database.close()

    assert (keeps, seqscan) == (True, "off")


def test_without_the_direct_address_nothing_starts_and_one_line_says_why(bouncer_url: str) -> None:
    with (
        pytest.raises(StartFailed, match="needs PAYFLOW_POSTGRES_DIRECT_URL"),
        running_system(POSTGRES_URL=bouncer_url, POSTGRES_POOLING="transaction"),
    ):
        pass
