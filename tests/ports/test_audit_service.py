"""The audit service as it runs: its own wiring, a real server, the event log, the heads file, the command line."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from joserfc.jwk import OKPKey

from payflow.contracts.audit import Audit, AuditPage, SearchAudit
from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Database
from payflow.platform.process import running
from payflow.platform.rpc import RpcClients
from payflow.platform.rpc.client import NotInContract
from payflow.platform.rpc.identity import Signer, ensure_keys
from payflow.platform.service import Runtime
from payflow.platform.settings import SettingsError
from payflow.services.audit import app
from payflow.services.audit.heads import HEADS_FILE
from tests.conftest import role_url
from tests.fakes_audit import an_event
from tests.support.serving import serving

ConnectAs = Callable[[str], Awaitable[Database]]


@dataclass
class Running:
    """A running audit service."""

    url: str
    client: Audit
    keys_dir: Path
    heads_dir: Path
    outbox: Outbox
    confirm: Database

    async def emit(self, count: int) -> None:
        """Append events as another service does, and wait until they have been recorded and signed."""
        wanted = self._last_signed() + count
        async with self.confirm.transaction() as connection:
            await self.outbox.append(connection, [an_event(data={"n": n}) for n in range(count)])
        self.outbox.wake_consumers()
        async with asyncio.timeout(10):
            while self._last_signed() < wanted:  # noqa: ASYNC110 - there is nothing to wait for but the file
                await asyncio.sleep(0.02)

    def _last_signed(self) -> int:
        file = self.heads_dir / HEADS_FILE
        lines = file.read_text().splitlines() if file.exists() else []
        return int(json.loads(lines[-1])["sequence"]) if lines else 0

    async def command(self, *arguments: str) -> tuple[int, str, str]:
        """Run `payflow audit ...`; exit code, standard output, standard error."""
        environ = {**os.environ, "PAYFLOW_AUDIT_URL": self.url, "PAYFLOW_SERVICE_KEYS_DIR": str(self.keys_dir)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "payflow.run.main", "audit", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environ,
        )
        out, err = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()


def settings_of(directory: Path, url: str) -> dict[str, str]:
    key = directory / "audit_key.jwk"
    if not key.exists():
        key.write_text(json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)))
    return {
        "PAYFLOW_DATA_DIR": str(directory),
        "PAYFLOW_POSTGRES_URL": url,
        "PAYFLOW_SERVICE_KEYS_DIR": str(directory / "keys"),
        "PAYFLOW_AUDIT_KEY_FILE": str(key),
        "PAYFLOW_AUDIT_HEAD_INTERVAL_S": "0.05",
    }


@pytest.fixture(scope="module")
async def audit(
    tmp_path_factory: pytest.TempPathFactory,
    database_url: str,
    password_files: dict[str, Path],
    connect_as: ConnectAs,
) -> AsyncIterator[Running]:
    directory = tmp_path_factory.mktemp("audit")
    ensure_keys(directory / "keys", ["audit", "gateway", "cli", "risk"])
    settings = settings_of(directory, role_url(database_url, "audit", password_files))
    runtime = Runtime(service="audit", instance="audit", environ=settings)
    clients = RpcClients(signer=Signer.load(service="gateway", directory=directory / "keys"), queue_max=100)
    confirm = await connect_as("confirm")
    async with running(runtime, app.build) as application, serving(application) as url:
        yield Running(
            url, clients.connect(Audit, url), directory / "keys", directory / "audit-heads", Outbox(confirm), confirm
        )
        await clients.close()


async def test_what_another_service_emits_is_recorded_signed_and_verified(audit: Running) -> None:
    await audit.emit(5)

    (page,) = await audit.client.search([SearchAudit(limit=5)])
    code, out, err = await audit.command("verify", "--json")

    assert isinstance(page, AuditPage), page
    assert [row.data["n"] for row in page.rows] == [4, 3, 2, 1, 0]
    assert (code, err) == (0, "")
    assert json.loads(out)["problems"] == []
    assert json.loads(out)["rows"] == page.rows[0].sequence


async def test_the_command_line_says_in_words_that_the_chain_is_whole(audit: Running) -> None:
    await audit.emit(1)

    code, out, _ = await audit.command("verify")

    assert code == 0
    assert "the chain is whole" in out


async def test_the_command_line_shows_rows_and_where_to_go_on(audit: Running) -> None:
    await audit.emit(3)

    code, out, _ = await audit.command("search", "--type", "payment.completed", "--limit", "2")
    _, as_json, _ = await audit.command("search", "--limit", "1", "--json")

    assert code == 0
    assert out.count("payment.completed") == 2
    assert "There are more: --cursor" in out
    assert json.loads(as_json)["rows"][0]["data"] == {"n": 2}


async def test_an_export_has_every_row_in_order(audit: Running) -> None:
    await audit.emit(205)

    code, out, _ = await audit.command("export")

    sequences = [json.loads(line)["sequence"] for line in out.splitlines()]
    assert code == 0
    assert sequences == list(range(1, len(sequences) + 1))
    assert len(sequences) >= 205


async def test_the_service_says_that_it_is_healthy(audit: Running) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{audit.url}/health") as response:
        document = await response.json()

    assert response.status == 200
    assert document["dependencies"] == {"postgres": "healthy", "heads": "healthy", "events": "healthy"}


async def test_only_the_gateway_and_the_command_line_may_ask(audit: Running) -> None:
    clients = RpcClients(signer=Signer.load(service="risk", directory=audit.keys_dir), queue_max=100)

    (answer,) = await clients.connect(Audit, audit.url).search([SearchAudit()])

    assert isinstance(answer, NotInContract)
    await clients.close()


async def test_a_tampered_row_ends_the_command_with_exit_code_1(audit: Running, database_url: str) -> None:
    await audit.emit(3)
    owner: asyncpg.Connection[Any] = await asyncpg.connect(database_url)
    await owner.execute("UPDATE audit.audit_logs SET data = '{\"n\":7}' WHERE sequence = 2")

    code, out, _ = await audit.command("verify")
    await owner.execute("UPDATE audit.audit_logs SET data = '{\"n\":1}' WHERE sequence = 2")
    repaired, _, _ = await audit.command("verify")
    await owner.close()

    assert code == 1, out
    assert "row 2: its contents do not match its hash" in out
    assert repaired == 0


async def test_the_command_warns_of_events_that_are_set_aside(audit: Running, connect_as: ConnectAs) -> None:
    kyc = await connect_as("kyc")
    async with kyc.transaction() as connection:
        await Outbox(kyc).append(connection, [an_event(type="payment.rejected", source="confirm")])
    await audit.emit(1)

    code, out, _ = await audit.command("verify")

    assert code == 0, out
    assert "events set aside, unhandled or forged: 1 " in out


async def test_a_service_that_does_not_run_is_told_in_one_line(audit: Running) -> None:
    elsewhere = Running(
        "http://127.0.0.1:9", audit.client, audit.keys_dir, audit.heads_dir, audit.outbox, audit.confirm
    )

    code, out, err = await elsewhere.command("verify")

    assert code == 1, out
    assert "cannot be reached" in err, err
    assert "Traceback" not in err


async def test_a_heads_folder_that_cannot_be_made_stops_the_start_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "audit-heads").write_text("not a folder")
    runtime = Runtime(service="audit", instance="audit", environ=settings_of(tmp_path, "postgresql://nobody@/nothing"))

    with pytest.raises(Unavailable, match="folder of the audit heads"):
        await app.build(runtime)


async def test_a_key_that_is_none_stops_the_start_with_the_settings_name(tmp_path: Path) -> None:
    environ = {**settings_of(tmp_path, ""), "PAYFLOW_AUDIT_KEY": "nonsense"}
    runtime = Runtime(service="audit", instance="audit", environ=environ)

    with pytest.raises(SettingsError, match="PAYFLOW_AUDIT_KEY"):
        await app.build(runtime)
