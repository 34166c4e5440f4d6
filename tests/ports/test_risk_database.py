"""What only PostgreSQL can show of the risk service: rights, cost of the count, events, and the wired service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest

from payflow.contracts.risk import AssessPayment
from payflow.contracts.topics import ReturnChanged
from payflow.kernel.envelope import Event
from payflow.platform.eventlog import Consumer, Outbox
from payflow.platform.postgres import Database
from payflow.platform.rpc.identity import ensure_keys
from payflow.platform.service import Runtime, Service
from payflow.platform.settings import SettingsError
from payflow.services.risk.app import build
from payflow.services.risk.consumer import TOPICS, OutcomeHandler
from payflow.services.risk.domain import Screening
from payflow.services.risk.rules import default_rules
from payflow.services.risk.rules.evaluate import assess_in_order
from payflow.services.risk.store import PostgresCorrections, PostgresStore
from payflow.services.risk.usecases import REFUSED, RETURNS
from tests.builders import NOON, new_id
from tests.builders_risk import an_outcome
from tests.conftest import role_url

ConnectAs = Callable[[str], Awaitable[Database]]
RULES = default_rules()
CLEAR = Screening(is_possible_sanctions_match=False, review_id=None, list_version="1", is_kyc_verified=True)


def a_payment(customer_id: str) -> AssessPayment:
    return AssessPayment(
        payment_id=new_id(),
        customer_id=customer_id,
        amount_minor=100,
        currency="USD",
        debtor="A",
        creditor="B",
        party_names=["Ada Byron"],
    )


async def store_payments(store: PostgresStore, *commands: AssessPayment) -> None:
    assessments = assess_in_order(
        commands=commands, screenings=[CLEAR] * len(commands), earlier={}, rules=RULES, now=NOON
    )
    async with store.transaction() as transaction:
        await transaction.save(assessments)


async def count(store: PostgresStore, customer_id: str) -> int:
    async with store.transaction() as transaction:
        counts = await transaction.count_recent(customer_ids=[customer_id], since=NOON - timedelta(hours=24), at_most=5)
    return counts[customer_id]


async def test_a_customer_with_thousands_of_payments_costs_no_more_than_one_with_a_few(
    connect_as: ConnectAs, database_url: str
) -> None:
    database = await connect_as("risk")
    owner = await asyncpg.connect(database_url)
    insert = (
        "INSERT INTO risk.assessment (payment_id, customer_id, assessed_at, amount_minor, currency, debtor, creditor, "
        "level, points, sanctions_points, needs_otp, is_possible_match, rules_hit, rules_version, list_version, "
        "is_kyc_verified, payments_in_window) SELECT gen_random_uuid(), $3, $1, 1, 'USD', 'A', 'B', 'LOW', 0, 0, "
        "false, false, '{}', 1, '1', true, 1 FROM generate_series(1, $2)"
    )
    ask = "SELECT payments FROM risk.count_recent(ARRAY['busy', 'idle'], $1, 5) ORDER BY 1"
    read = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'risk.assessment'::regclass"

    await owner.execute(insert, NOON, 20, "early")
    await owner.execute("ANALYZE risk.assessment")
    async with database.transaction() as connection:
        # Planned while the table is known to be small, on the connection that is asked again when it no longer is.
        for _ in range(10):
            await connection.fetch(ask, NOON - timedelta(hours=24))
        await owner.execute(insert, NOON, 20_000, "busy")
        before = await connection.fetchrow(read)
        counts = [await connection.fetch(ask, NOON - timedelta(hours=24)) for _ in range(10)]
        after = await connection.fetchrow(read)
    await owner.close()

    assert [[row["payments"] for row in rows] for rows in counts] == [[0, 5]] * 10
    assert before is not None
    assert after is not None
    assert after["seq_scan"] == before["seq_scan"] == 0
    assert after["idx_tup_fetch"] - before["idx_tup_fetch"] <= 10 * 5


async def test_the_services_role_cannot_change_what_was_decided(connect_as: ConnectAs) -> None:
    database = await connect_as("risk")

    for statement in (
        "UPDATE assessment SET points = 0",
        "UPDATE assessment SET needs_otp = false",
        "DELETE FROM assessment",
        "TRUNCATE assessment",
        "UPDATE rule_set SET document = '{}'",
        "DELETE FROM rule_set",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.execute(statement)


async def test_outcomes_from_the_event_log_take_refused_payments_out_of_the_count(
    connect_as: ConnectAs, database_url: str, password_files: dict[str, Path]
) -> None:
    database, confirm = await connect_as("risk"), await connect_as("confirm")
    store = PostgresStore(database=database)
    commands = [a_payment("hears") for _ in range(4)]
    await store_payments(store, *commands)
    before = await count(store, "hears")
    states = ["completed", "rejected", "cancelled", "expired"]
    async with confirm.transaction() as connection:
        await Outbox(confirm).append(
            connection,
            [an_outcome(command.payment_id, state) for command, state in zip(commands, states, strict=True)],
        )
    consumer = Consumer(
        name="risk",
        topics=TOPICS,
        handler=OutcomeHandler(PostgresCorrections),
        database=database,
        listen_url=role_url(database_url, "risk", password_files),
    )

    while await consumer.step():
        pass

    assert (before, await count(store, "hears")) == (4, 1)


async def test_a_return_does_not_count_as_a_payment_of_who_pays_back(
    connect_as: ConnectAs, database_url: str, password_files: dict[str, Path]
) -> None:
    database, confirm = await connect_as("risk"), await connect_as("confirm")
    store = PostgresStore(database=database)
    commands = [a_payment("pays back") for _ in range(3)]
    await store_payments(store, *commands)
    ends = ["return.completed", "return.rejected", "return.under_review"]
    async with confirm.transaction() as connection:
        events = [a_return(command.payment_id, end) for command, end in zip(commands, ends, strict=True)]
        await Outbox(confirm).append(connection, events)
    consumer = Consumer(
        name="risk",
        topics=TOPICS,
        types=REFUSED | RETURNS,
        handler=OutcomeHandler(PostgresCorrections),
        database=database,
        listen_url=role_url(database_url, "risk", password_files),
    )

    while await consumer.step():
        pass

    assert await count(store, "pays back") == 0


def a_return(return_id: Any, type_: str) -> Event:
    data = ReturnChanged(
        return_id=return_id,
        payment_id=new_id(),
        transaction_id="txn",
        customer_id="gets back",
        debtor_customer_id="pays back",
        state=type_.upper(),
        amount_minor=100,
        currency="USD",
        debtor_account="…C002",
        creditor_account="…C001",
        reason_code="AM05",
        requested_by="olga",
    )
    return Event(
        id=new_id(),
        source="confirm",
        type=type_,
        subject=str(return_id),
        version=2,
        time=NOON,
        data=msgspec.to_builtins(data),
    )


async def wired(
    tmp_path: Path, database_url: str, password_files: dict[str, Path], **settings: str
) -> tuple[Runtime, Service]:
    ensure_keys(tmp_path, ["risk"])
    environ = {
        "PAYFLOW_POSTGRES_URL": role_url(database_url, "risk", password_files),
        "PAYFLOW_SERVICE_KEYS_DIR": str(tmp_path),
        **settings,
    }
    runtime = Runtime(service="risk", instance="risk", environ=environ)
    try:
        return runtime, await build(runtime)
    except BaseException:
        await runtime.close()
        raise


async def test_the_service_starts_with_the_rules_of_this_release_in_force(
    tmp_path: Path, database_url: str, password_files: dict[str, Path]
) -> None:
    runtime, service = await wired(tmp_path, database_url, password_files)

    await service.checks["postgres"]()

    assert set(service.background) == {"take_out_refused"}
    await runtime.close()


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [("version = 1", "missing required field"), ("high_at = 50", "raise the version")],
    ids=["incomplete", "other contents under a stored version"],
)
async def test_the_service_does_not_start_with_rules_that_cannot_be_relied_on(
    tmp_path: Path, database_url: str, password_files: dict[str, Path], rules: str, complaint: str
) -> None:
    runtime, _ = await wired(tmp_path, database_url, password_files)
    await runtime.close()
    built_in = Path("src/payflow/services/risk/rules/default.toml")
    text = (Path(__file__).parents[2] / built_in).read_text().replace(rules, rules.replace("50", "45"), 1)
    file = tmp_path / "rules.toml"
    file.write_text(rules if complaint.startswith("missing") else text)

    with pytest.raises(SettingsError, match=complaint):
        await wired(tmp_path, database_url, password_files, PAYFLOW_RISK_RULES_FILE=str(file))
