"""The final read: every payment, every statement, what repeats are told, and the other bank's own books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from decimal import Decimal
from typing import Any

import aiohttp

from payflow_dev.bench.population import Customer
from payflow_dev.chaos.clients import Clients
from payflow_dev.chaos.files import items_of
from payflow_dev.chaos.history import (
    Counts,
    FinalAccount,
    FinalBank,
    FinalEnd,
    FinalFile,
    FinalIncoming,
    FinalItem,
    FinalPayment,
    FinalReturn,
    History,
    Line,
    ToldAgain,
)
from payflow_dev.chaos.incoming import OtherBank
from payflow_dev.chaos.mix import File, Order
from payflow_dev.chaos.office import Office

AT_ONCE = 16
BOOKS_PAGE = 1000


async def final_read(
    *,
    clients: Clients,
    customers: Sequence[Customer],
    history: History,
    bank_url: str,
    seconds_to_quiet: float,
    faults: int,
    unsettled: list[str],
) -> None:
    """Read everything through the public API (and the other bank's own address) into the history.

    It ends with how much there was to read, and how many `faults` were done: what is missing then is missed.
    `unsettled`: what has no final answer.
    """
    await _all(_payment(clients, customers, order, history) for order in clients.orders)
    repeated = [order for order in clients.orders if order.final]
    await _all(_again(clients, customers, order, history) for order in repeated)
    incoming = clients.bank.payments if clients.bank is not None else []
    await _all(clients.bank.send(payment) for payment in incoming if clients.bank is not None)
    accounts = [(payer, account) for payer, customer in enumerate(customers) for account in customer.accounts]
    await _all(_account(clients, payer, account, history) for payer, account in accounts)
    await _all(_file(clients, file, history) for file in clients.files)
    returns = await _returns(clients, clients.office, history) if clients.office is not None else 0
    if clients.bank is not None and clients.office is not None:
        await _incoming(clients, clients.bank, clients.office, history)
    counts = Counts(
        accounts=len(accounts),
        faults=faults,
        payments=len(clients.orders),
        repeats=len(repeated),
        files=len(clients.files),
        returns=returns,
        bank=await _bank(bank_url, history),
        incoming=len(incoming),
    )
    history.write(FinalEnd(seconds_to_quiet=seconds_to_quiet, counts=counts, unsettled=unsettled))


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all of it, some at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def each(work: Coroutine[Any, Any, None]) -> None:
        async with gate:
            await work

    await asyncio.gather(*(each(work) for work in works))


async def _payment(clients: Clients, customers: Sequence[Customer], order: Order, history: History) -> None:
    found = await clients.read(order.payer, f"/payments/{order.key}")
    history.write(
        FinalPayment(
            customer=customers[order.payer].customer_id,
            transaction=order.key,
            payment_id=found and found["payment_id"],
            state=found and found["state"],
            amount_minor=found and _minor(found["amount"]),
            error=found and found["error"],
            returned_minor=_minor(found["returned_amount"] or "0") if found else 0,
        )
    )


async def _file(clients: Clients, file: File, history: History) -> None:
    bulk = items = None
    if file.bulk_id is not None:
        bulk = await clients.read(file.payer, f"/payments/bulk/{file.bulk_id}")
        items = await items_of(clients, file)
    history.write(
        FinalFile(
            customer=clients.customer_id(file.payer),
            key=file.key,
            state=bulk and bulk["status"],
            total=bulk["total"] if bulk else 0,
            counts=bulk["counts"] if bulk else {},
            items=[
                FinalItem(
                    row["line"], row["transaction_id"], row["status"], row["payment"] and row["payment"]["payment_id"]
                )
                for row in items or ()
            ],
        )
    )


async def _returns(clients: Clients, office: Office, history: History) -> int:
    """Every return that there is, whoever has asked for it; how many."""
    count = 0
    async for row in _rows(clients, office, "/returns?limit=200"):
        history.write(
            FinalReturn(
                return_id=row["return_id"],
                payment_id=row["payment_id"],
                key=row["note"],
                state=row["state"],
                amount_minor=_minor(row["amount"]),
                debtor=row["from_account"],
                creditor=row["to_account"],
                requested_by=row["requested_by"],
                decided_by=row["decided_by"],
            )
        )
        count += 1
    return count


async def _incoming(clients: Clients, bank: OtherBank, office: Office, history: History) -> None:
    """Everything that came in, or was to, by the other bank's books and by ours."""
    theirs = {row["end_to_end_id"]: row["status"] async for row in _books(bank.url, "paid")}
    path = "/partner-bank/instructions?direction=INCOMING&limit=200"
    ours = {row["end_to_end_id"]: row async for row in _rows(clients, office, path)}
    sent = {payment.end_to_end_id for payment in bank.payments}
    for id in sorted(sent | theirs.keys() | ours.keys()):
        row = ours.get(id)
        history.write(
            FinalIncoming(
                end_to_end_id=id,
                told=theirs.get(id),
                payment_id=row["payment_id"] if row else None,
                state=row["status"] if row else None,
                amount_minor=_minor(row["amount"]) if row else None,
            )
        )


async def _rows(clients: Clients, office: Office, path: str) -> AsyncIterator[dict[str, Any]]:
    """Every row of a list that operators may read, page by page."""
    token, cursor = office.staff.operators[0].token, ""
    while True:
        page = await clients.wire.read(f"{clients.url}{path}{cursor}", token=token)
        for row in page["data"]:
            yield row
        if page["next_cursor"] is None:
            return
        cursor = f"&cursor={page['next_cursor']}"


async def _again(clients: Clients, customers: Sequence[Customer], order: Order, history: History) -> None:
    for _ in range(50):
        status, body = await clients.send(order)
        if status in (200, 422):
            told = ToldAgain(
                customer=customers[order.payer].customer_id, key=order.key, status=status, body=body.decode()
            )
            history.write(told)
            return
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{order.key} is told nothing any more")


async def _account(clients: Clients, payer: int, account: str, history: History) -> None:
    found = await clients.read(payer, f"/accounts/{account}")
    lines: list[Line] = []
    cursor = ""
    while True:
        page = await clients.read(payer, f"/accounts/{account}/entries?limit=200{cursor}")
        lines += [
            Line(
                row["sequence"],
                row["payment_id"],
                row["kind"],
                _minor(row["amount"]),
                _minor(row["balance"]),
                row["booked_at"],
            )
            for row in page["data"]
        ]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    history.write(
        FinalAccount(
            account=account, posted_minor=_minor(found["posted"]), held_minor=_minor(found["held"]), lines=lines[::-1]
        )
    )


async def _bank(url: str, history: History) -> int:
    """Every payment that the other bank has received; how many, by the totals of its books."""
    async for row in _books(url, "received"):
        history.write(
            FinalBank(
                end_to_end_id=row["end_to_end_id"],
                status=row["status"],
                amount_minor=row["amount_minor"],
                times_received=row["times_received"],
            )
        )
    async with aiohttp.ClientSession(url) as session, session.get("/books?limit=1") as answer:
        totals = (await answer.json())["totals"]
    return sum(row["payments"] for row in totals if row["what"] == "received")


async def _books(url: str, kind: str) -> AsyncIterator[dict[str, Any]]:
    """The other bank's rows of a kind, page by page: `received` or `paid`."""
    after = 0
    async with aiohttp.ClientSession(url) as session:
        while True:
            async with session.get(f"/books?after={after}&limit={BOOKS_PAGE}") as answer:
                rows = (await answer.json())[kind]
            for row in rows:
                yield row
                after = max(after, row["sequence"])
            if len(rows) < BOOKS_PAGE:
                return


def _minor(amount: str) -> int:
    return int(Decimal(amount).scaleb(2))
