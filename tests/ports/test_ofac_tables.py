"""What the ofac service's tables keep, hide and refuse in PostgreSQL, and that the service is wired to them."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from payflow.contracts.ofac import DecideReviewCase, Screened, ScreeningOutcome, ScreenPayment
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc.identity import ensure_keys
from payflow.platform.service import Runtime
from payflow.services.ofac.api import OfacApi
from payflow.services.ofac.app import build
from payflow.services.ofac.domain.proofs import ClearedNames
from payflow.services.ofac.domain.results import PartyName
from payflow.services.ofac.index import loaded_lists
from payflow.services.ofac.store import PostgresStore
from tests.builders import NOON, FixedClock, new_id
from tests.conftest import role_url
from tests.fakes_ofac import FakePayments

PROOF_KEY = b"k" * 32


@pytest.fixture
async def database(connect_as: Callable[[str], Awaitable[Database]]) -> Database:
    return await connect_as("ofac")


@pytest.fixture
def api(database: Database, cipher: ColumnCipher) -> OfacApi:
    return OfacApi(
        store=PostgresStore(database=database, cipher=cipher, outbox=Outbox(database)),
        payments=FakePayments(),
        lists=loaded_lists(),
        proof_key=PROOF_KEY,
        clock=FixedClock(),
        ids=UuidV7(),
    )


async def screened(api: OfacApi, *names: str, country: str | None = None) -> Screened:
    command = ScreenPayment(payment_id=new_id(), customer_id="cust_004", names=list(names), country=country)
    (answer,) = await api.screen([command])
    assert isinstance(answer, Screened)
    return answer


async def opened(api: OfacApi) -> UUID:
    answer = await screened(api, "Rafael Caro Quintero")
    assert answer.review_id is not None
    return answer.review_id


async def test_a_clear_name_is_proved_once_per_name_and_list_version(api: OfacApi, database: Database) -> None:
    before = await database.fetchval("SELECT count(*) FROM cleared_name")

    for _ in range(3):
        await screened(api, "Hedy Lamarr", "hedy  LAMARR", "Lise Meitner")

    digest = ClearedNames(key=PROOF_KEY, list_version="").proof_of(PartyName("Hedy Lamarr"))
    rows = await database.fetch("SELECT * FROM cleared_name WHERE name_digest = $1", digest)
    assert [(row["list_version"], row["first_cleared_at"]) for row in rows] == [(loaded_lists().index.version, NOON)]
    assert await database.fetchval("SELECT count(*) FROM cleared_name") == before + 2


async def test_no_table_holds_a_name_or_a_comment_in_plain_text(
    api: OfacApi, database_url: str, database: Database
) -> None:
    review_id = await opened(api)
    await screened(api, "Hedy Lamarr", "張偉 Lamarr")
    comment = "Born in 1999, says Miss Lamarr."
    await api.decide([DecideReviewCase(review_id=review_id, is_cleared=True, decided_by="officer", comment=comment)])

    owner = await asyncpg.connect(database_url)
    tables = await owner.fetch(
        "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('ofac', 'event_log') ORDER BY 1, 2"
    )
    texts = []
    for schema, table in tables:
        for row in await owner.fetch(f'SELECT * FROM "{schema}"."{table}"'):
            values = [value if isinstance(value, bytes) else str(value).encode() for value in row.values()]
            texts.append(b" ".join(values).lower())
    await owner.close()

    assert {"review_case", "cleared_name", "batch"} <= {table for _, table in tables}
    assert any(str(review_id).encode() in text for text in texts)
    for secret in ("quintero", "rafael", "lamarr", "hedy", "張偉", "1999"):
        assert not [text for text in texts if secret.encode() in text], secret


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM review_case",
        "DELETE FROM cleared_name",
        "TRUNCATE review_case",
        "UPDATE review_case SET matches = '[]'",
        "UPDATE review_case SET customer_id = 'cust_009'",
        "UPDATE cleared_name SET first_cleared_at = now()",
        "INSERT INTO review_case (review_id, payment_id, customer_id, list_version, matches, names_encrypted,"
        " opened_at, state) VALUES (gen_random_uuid(), gen_random_uuid(), 'c', 'v', '[]', '', now(), 'CLEARED')",
    ],
)
async def test_the_service_may_not_rewrite_what_it_found(database: Database, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute(statement)


async def test_a_decision_is_final_in_the_table_too(api: OfacApi, database: Database) -> None:
    review_id = await opened(api)
    await api.decide([DecideReviewCase(review_id=review_id, is_cleared=False, decided_by="officer", comment="")])

    with pytest.raises(asyncpg.CheckViolationError, match="final"):
        await database.execute("UPDATE review_case SET state = 'CLEARED' WHERE review_id = $1", review_id)


async def test_the_service_starts_on_its_settings_and_screens(
    tmp_path: Path, database_url: str, password_files: dict[str, Path]
) -> None:
    ensure_keys(tmp_path, ["ofac", "confirm"])
    column_keys = {"active": "k1", "keys": {"k1": base64.b64encode(b"c" * 32).decode()}}
    runtime = Runtime(
        service="ofac",
        instance="ofac",
        environ={
            "PAYFLOW_POSTGRES_URL": role_url(database_url, "ofac", password_files),
            "PAYFLOW_SERVICE_KEYS_DIR": str(tmp_path),
            "PAYFLOW_COLUMN_KEYS": json.dumps(column_keys),
        },
    )

    service = await build(runtime)
    ((_, api),) = service.implementations
    assert isinstance(api, OfacApi)
    answer = await screened(api, "Rafael Caro Quintero")
    await service.checks["postgres"]()
    await runtime.close()

    assert answer.outcome is ScreeningOutcome.POSSIBLE_MATCH
    assert service.required == {"postgres"}
    assert set(service.background) == {"deliver_decisions", "measure_open_reviews"}
