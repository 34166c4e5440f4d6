"""Returns in memory: the store behind ports.ReturnStore, with the constraints of the migration."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from payflow.contracts.returns import ListReturns, ReturnState
from payflow.services.confirm.domain import RETURN_REFUSED, ReturnPayment, ReturnStep


class FakeReturnStore:
    """The returns of the confirm service's database in memory."""

    def __init__(self) -> None:
        self._returns: dict[UUID, ReturnPayment] = {}
        self._steps: dict[UUID, list[ReturnStep]] = {}
        self._originals: dict[UUID, int] = {}
        self._taken: dict[UUID, int] = {}
        self._returned: dict[UUID, int] = {}
        self.events: list[tuple[str, UUID, int]] = []

    async def find(self, keys: Sequence[tuple[str, str]]) -> list[ReturnPayment | None]:
        known = {(made.requested_by, made.idempotency_key): made for made in self._returns.values()}
        return [copy.deepcopy(known.get(key)) for key in keys]

    async def taken(self, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
        return {id: self._taken[id] for id in payment_ids if id in self._taken}

    async def returned(self, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
        return {id: self._returned[id] for id in payment_ids if self._returned.get(id)}

    async def claim(self, made: ReturnPayment, *, original_minor: int, taken_minor: int) -> bool:
        (known,) = await self.find([(made.requested_by, made.idempotency_key)])
        self._originals.setdefault(made.payment_id, original_minor)
        if known is not None or self._taken.setdefault(made.payment_id, 0) != taken_minor:
            return False
        self._count(made, made.amount_minor)
        self._write(made)
        return True

    async def save(self, made: ReturnPayment) -> bool:
        known = self._returns[made.return_id]
        is_ours = known.fencing_token == made.fencing_token and not known.is_final
        if is_ours:
            if made.state in RETURN_REFUSED:
                self._count(made, -made.amount_minor)
            if made.state is ReturnState.COMPLETED:
                self._returned[made.payment_id] = self._returned.get(made.payment_id, 0) + made.amount_minor
            self._write(made)
        made.steps.clear()
        return is_ours

    async def lease(self, return_id: UUID, *, now: datetime, until: datetime) -> ReturnPayment | None:
        return self._lease(return_id, until) if self._is_free(return_id, now) else None

    async def lease_due(self, *, now: datetime, until: datetime, limit: int) -> list[ReturnPayment]:
        due = [
            made.return_id
            for made in self._returns.values()
            if made.due_at is not None and made.due_at <= now and self._is_free(made.return_id, now)
        ]
        return [self._lease(return_id, until) for return_id in due[:limit]]

    async def give_lease_back(self, made: ReturnPayment, *, due_at: datetime) -> None:
        known = self._returns[made.return_id]
        if known.fencing_token == made.fencing_token and known.due_at is not None:
            known.leased_until = None
            if known.state is ReturnState.APPROVED:
                known.due_at = due_at

    async def open_by_state(self) -> dict[ReturnState, tuple[int, datetime]]:
        found: dict[ReturnState, tuple[int, datetime]] = {}
        for made in self._returns.values():
            if not made.is_final:
                count, since = found.get(made.state, (0, made.updated_at))
                found[made.state] = (count + 1, min(since, made.updated_at))
        return found

    async def by_ids(self, return_ids: Sequence[UUID]) -> dict[UUID, ReturnPayment]:
        return {id: copy.deepcopy(self._returns[id]) for id in return_ids if id in self._returns}

    async def page(self, query: ListReturns) -> list[ReturnPayment]:
        matching = [
            made
            for made in sorted(self._returns.values(), key=lambda made: made.return_id, reverse=True)
            if query.payment_id in (None, made.payment_id)
            and query.state in (None, made.state)
            and (query.cursor is None or made.return_id < query.cursor)
        ]
        return copy.deepcopy(matching[: query.limit + 1])

    async def steps(self, return_id: UUID) -> list[ReturnStep]:
        return list(self._steps[return_id])

    def _count(self, made: ReturnPayment, amount_minor: int) -> None:
        taken = self._taken.get(made.payment_id, 0) + amount_minor
        if not 0 <= taken <= self._originals[made.payment_id]:
            raise RuntimeError("never_more_than_the_payment")
        self._taken[made.payment_id] = taken

    def _is_free(self, return_id: UUID, now: datetime) -> bool:
        made = self._returns.get(return_id)
        return made is not None and not made.is_final and (made.leased_until is None or made.leased_until <= now)

    def _lease(self, return_id: UUID, until: datetime) -> ReturnPayment:
        made = self._returns[return_id]
        made.fencing_token += 1
        made.leased_until = until
        if made.state is ReturnState.APPROVED:
            made.due_at = until
        return copy.deepcopy(made)

    def _write(self, made: ReturnPayment) -> None:
        if made.is_final != (made.due_at is None):
            raise RuntimeError("an_unfinished_return_has_a_next_step")
        if made.decided_by == made.requested_by:
            raise RuntimeError("four_eyes_are_two_people")
        self._steps.setdefault(made.return_id, []).extend(made.steps)
        type_ = "return.requested" if made.version == 1 else f"return.{made.state.lower()}"
        self.events.append((type_, made.return_id, made.version))
        self._returns[made.return_id] = replace(copy.deepcopy(made), steps=[])
        made.steps.clear()
