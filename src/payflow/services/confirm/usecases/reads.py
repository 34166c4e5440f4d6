"""Questions about payments; nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from payflow.contracts.confirm import (
    AwaitEnd,
    GetPayment,
    ListPayments,
    PaymentHistory,
    PaymentNotFound,
    PaymentPage,
    PaymentView,
)
from payflow.contracts.operation import Answers
from payflow.contracts.sides import ListSides, SidesList, sides_lists
from payflow.services.confirm.domain import Payment
from payflow.services.confirm.ports import Ports, Store


async def get_payments(*, queries: Sequence[GetPayment], store: Store) -> Answers[PaymentView]:
    """Payments by the customer's transaction_id, or by payment id for operators. Items may be PaymentNotFound."""
    found = await _find(queries, store)
    return [PaymentNotFound() if payment is None else payment.view() for payment in found]


async def histories(*, queries: Sequence[GetPayment], store: Store) -> Answers[PaymentHistory]:
    """Payments with every step of their lives. Items may be PaymentNotFound."""
    found = await _find(queries, store)
    steps = await store.transitions([payment.payment_id for payment in found if payment is not None])
    return [
        PaymentNotFound()
        if payment is None
        else PaymentHistory(payment=payment.view(), transitions=steps.get(payment.payment_id, []))
        for payment in found
    ]


async def list_payments(*, queries: Sequence[ListPayments], store: Store) -> Answers[PaymentPage]:
    """Pages of payments, newest first."""
    pages: Answers[PaymentPage] = []
    for query in queries:
        payments = await store.page(query)
        shown = payments[: query.limit]
        next_cursor = shown[-1].payment_id if len(payments) > query.limit else None
        pages.append(PaymentPage(payments=[payment.view() for payment in shown], next_cursor=next_cursor))
    return pages


async def list_sides(*, queries: Sequence[ListSides], store: Store) -> Answers[SidesList]:
    """Who paid whom, and what for, of each query's payments and returns. Unknown ids are left out."""
    known = await store.sides(sorted({id for query in queries for id in query.payment_ids}))
    return sides_lists(queries, known)


async def await_ends(*, queries: Sequence[AwaitEnd], ports: Ports) -> Answers[PaymentView]:
    """Wait until every one of these payments has ended or its time is up. Items may be PaymentNotFound."""
    left_s = max(query.wait_s for query in queries)
    ids = [query.payment_id for query in queries]
    while True:
        known = await ports.store.by_ids(ids)
        waiting = [payment for payment in known.values() if not payment.is_final]
        if not waiting or left_s <= 0:
            return [PaymentNotFound() if id not in known else known[id].view() for id in ids]
        # This process tells of its own endings at once; those of another are seen by looking again.
        pause_s = min(left_s, 0.25)
        await ports.endings.wait(waiting[0].payment_id, seconds=pause_s)
        left_s -= pause_s


async def _find(queries: Sequence[GetPayment], store: Store) -> list[Payment | None]:
    own = [(query.customer_id, query.transaction_id) for query in queries if query.customer_id is not None]
    by_transaction = await store.by_transaction(own) if own else {}
    ids = {query.transaction_id: _payment_id(query.transaction_id) for query in queries if query.customer_id is None}
    by_id = await store.by_ids([id for id in ids.values() if id is not None]) if ids else {}
    return [
        by_transaction.get((query.customer_id, query.transaction_id))
        if query.customer_id is not None
        else _of(by_id, ids[query.transaction_id])
        for query in queries
    ]


def _of(payments: dict[UUID, Payment], payment_id: UUID | None) -> Payment | None:
    return None if payment_id is None else payments.get(payment_id)


def _payment_id(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
