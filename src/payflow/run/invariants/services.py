"""What only the services' own secrets and Redis can show: the audit trail's signatures, revoked tokens, clean logs."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import redis.asyncio as redis

from payflow.contracts.audit import Audit, VerifyAudit
from payflow.kernel.errors import PayflowError
from payflow.platform.servers import Connector
from payflow.run.control import running
from payflow.run.instance import Instance, make_instance
from payflow.run.invariants.check import EXAMPLES_MAX, Finding
from payflow.run.local_rpc import local_services

_LOG_SECRETS: Final = re.compile(
    rb"eyJ[A-Za-z0-9_-]{10,}\.|whsec_|\"(otp|code|password|refresh_token|access_token)\"\s*:\s*\"|"
    rb"\b[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}\b"
)


async def check_services(url: str, data_dir: Path | None) -> list[Finding]:
    """The rules that are not about the database alone; those that need an instance of this machine are left out
    where there is none."""
    status = running(make_instance(data_dir=data_dir))
    if status is None:
        return []
    valkey = next((process.url for process in status.processes if process.name == "valkey"), None)
    found = [await _audit(status.instance), _logs(status.instance)]
    if valkey is not None:
        found.append(await _revocations(url, valkey))
    return found


async def _audit(instance: Instance) -> Finding:
    async with local_services(instance) as services:
        (answer,) = await services.client(Audit).verify([VerifyAudit()])
    problems = [f"{answer.code} {answer.detail}"] if isinstance(answer, PayflowError) else answer.problems
    return Finding(
        area="audit",
        words="every row hashes its predecessor, and every signed head is a row",
        checked=0 if isinstance(answer, PayflowError) else answer.rows,
        broken=len(problems),
        waiting=0,
        examples=problems[:EXAMPLES_MAX],
    )


def _logs(instance: Instance) -> Finding:
    checked, broken = 0, []
    for path in sorted((instance.data_dir / "logs").glob("*.log")):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                checked += 1
                if _LOG_SECRETS.search(line):
                    broken.append(f"{path.name}, line {number}")
    return Finding(
        area="secrets",
        words="no log line holds a secret or a whole account number",
        checked=checked,
        broken=len(broken),
        waiting=0,
        examples=broken[:EXAMPLES_MAX],
    )


async def _revocations(url: str, valkey_url: str) -> Finding:
    """A cache that claims to know all revocations must know each of them; one that claims nothing is not believed."""
    connection: asyncpg.Connection[Any] = await Connector(url)(timeout=10)
    try:
        generation = await connection.fetchval("SELECT generation FROM gateway.revocation_count")
        number = await connection.fetchval("SELECT number FROM gateway.revocation_count")
        revoked = await connection.fetch("SELECT id FROM gateway.revoked WHERE ends_at > $1", datetime.now(UTC))
    finally:
        await connection.close()
    prefix = f"{{payflow:{generation}}}:"
    client = redis.Redis.from_url(valkey_url) if "://" in valkey_url else redis.Redis(unix_socket_path=valkey_url)
    try:
        mark = await client.get(f"{prefix}revocations")
        is_believed = mark is not None and int(mark) >= number
        missing = []
        for row in revoked if is_believed else ():
            if not await client.exists(f"{prefix}revoked:{row['id']}"):
                missing.append(f"token or session {row['id']}")
    finally:
        await client.aclose()
    return Finding(
        area="secrets",
        words="a revoked token is revoked in the cache too, or the cache is not believed",
        checked=len(revoked),
        broken=len(missing),
        waiting=0,
        examples=missing[:EXAMPLES_MAX],
    )
