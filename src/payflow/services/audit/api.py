"""Adapts the contract to the use cases, and keeps the heads signed."""

from __future__ import annotations

from typing import Final

from prometheus_client import Gauge

from payflow.contracts.audit import AuditPage, AuditVerified, SearchAudit, VerifyAudit
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock
from payflow.platform.replica import Reads
from payflow.services.audit import usecases
from payflow.services.audit.ports import Heads, Store

_signed_at: Final = Gauge(
    "payflow_audit_head_signed_timestamp_seconds", "When the end of the audit trail was last signed; 0: never."
)


class AuditApi:
    """Implements contracts.audit.Audit."""

    def __init__(self, *, store: Store, heads: Heads, clock: Clock, reads: Reads[Store] | None = None) -> None:
        self._store = store
        self._reads = reads or Reads(store)
        self._heads = heads
        self._clock = clock
        self._is_signing = True

    async def search(self, queries: list[SearchAudit]) -> Answers[AuditPage]:
        return await self._reads.answer(queries, lambda some, store: usecases.search(queries=some, store=store))

    async def verify(self, queries: list[VerifyAudit]) -> Answers[AuditVerified]:
        return await usecases.verify(queries=queries, store=self._store, heads=self._heads, now=self._clock.now())

    async def sign_head(self) -> None:
        """Sign the chain's end. Raises what keeps it from being signed; `heads_are_signed` then says so."""
        try:
            await usecases.sign_head(store=self._store, heads=self._heads, now=self._clock.now())
        except Exception:
            self._is_signing = False
            raise
        self._is_signing = True
        _signed_at.set(self._clock.now().timestamp())

    async def heads_are_signed(self) -> bool:
        """A health check: whether the last attempt to sign a head went well."""
        return self._is_signing
