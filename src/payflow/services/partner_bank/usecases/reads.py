"""Questions of operators; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence

from payflow.contracts.operation import Answers
from payflow.contracts.partner_bank import InstructionPage, ListInstructions
from payflow.services.partner_bank.ports import Store

PAGE_MAX = 200


async def list_instructions(*, queries: Sequence[ListInstructions], store: Store) -> Answers[InstructionPage]:
    """A page of instructions for each query, newest first, at most 200 on one page."""
    pages: Answers[InstructionPage] = []
    for query in queries:
        limit = max(1, min(query.limit, PAGE_MAX))
        pages.append(await store.page(_limited(query, limit)))
    return pages


def _limited(query: ListInstructions, limit: int) -> ListInstructions:
    return ListInstructions(direction=query.direction, status=query.status, cursor=query.cursor, limit=limit)
