"""Questions of operators, and about statement lines; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from payflow.contracts.operation import Answers
from payflow.contracts.partner_bank import BankStatus, InstructionPage, InstructionView, ListInstructions
from payflow.contracts.sides import ListSides, SidesList, sides_lists
from payflow.services.partner_bank.ports import Store

PAGE_MAX = 200


async def list_instructions(
    *, queries: Sequence[ListInstructions], store: Store, now: datetime
) -> Answers[InstructionPage]:
    """A page of instructions for each query, newest first, at most 200 on one page.

    An operator's word that waits for a second person's is told until it has expired.
    """
    pages: Answers[InstructionPage] = []
    for query in queries:
        limit = max(1, min(query.limit, PAGE_MAX))
        page = await store.page(_limited(query, limit))
        pages.append(
            msgspec.structs.replace(page, instructions=[_without_expired_word(one, now) for one in page.instructions])
        )
    return pages


async def list_sides(*, queries: Sequence[ListSides], store: Store) -> Answers[SidesList]:
    """Who paid whom, and what for, of each query's incoming payments. Unknown ids are left out."""
    known = await store.sides(sorted({id for query in queries for id in query.payment_ids}))
    return sides_lists(queries, known)


def _without_expired_word(view: InstructionView, now: datetime) -> InstructionView:
    if view.end_expires_at is None or now < view.end_expires_at or view.status != BankStatus.UNKNOWN:
        return view
    return msgspec.structs.replace(view, end_requested_by=None, end_reference=None, end_expires_at=None)


def _limited(query: ListInstructions, limit: int) -> ListInstructions:
    return ListInstructions(direction=query.direction, status=query.status, cursor=query.cursor, limit=limit)
