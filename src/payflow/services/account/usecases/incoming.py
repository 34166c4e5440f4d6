"""Money from other banks: credited to its creditor or to suspense, and from there to the creditor or back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import msgspec

from payflow.contracts.account import (
    Booked,
    CreditFromSuspense,
    CreditIncoming,
    Party,
    ReturnFromSuspense,
)
from payflow.contracts.incoming import suspense_exit_id
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Ids
from payflow.services.account.domain import Batch
from payflow.services.account.ports import LedgerTransaction, Store


@dataclass(frozen=True, slots=True)
class _Credit:
    """A credit with the accounts between which it moves; `creditor` None: it is parked, or the account is not known."""

    payment_id: UUID
    token: int
    from_account_id: UUID
    account_id: UUID | None
    amount_minor: int
    currency: str
    creditor: Party | None


async def credit_incoming(
    *, commands: Sequence[CreditIncoming], store: Store, ids: Ids, now: datetime
) -> Answers[Booked]:
    """Credit money from other banks, once per payment id; `to_suspense` parks it on the suspense account.

    Items may be AccountNotFound, AccountBlocked, AccountClosed, CurrencyMismatch (remembered: a repeat gets the same,
    whatever has become of the account). The nostro account's lock settles races for a payment.
    """
    parties = await store.parties(sorted({command.creditor_account for command in commands}))
    credits: list[_Credit] = []
    for command in commands:
        creditor = None if command.to_suspense else parties.get(command.creditor_account)
        target = creditor.account_id if creditor else None
        if command.to_suspense:
            target = await store.internal_account(kind="suspense", currency=command.currency)
        credits.append(
            _Credit(
                payment_id=command.payment_id,
                token=command.fencing_token,
                from_account_id=await store.internal_account(
                    kind="nostro", currency=command.currency, agent_bic=command.agent_bic
                ),
                account_id=target,
                amount_minor=command.amount_minor,
                currency=command.currency,
                creditor=creditor,
            )
        )
    return await _credit(credits, store=store, ids=ids, now=now)


async def credit_from_suspense(
    *, commands: Sequence[CreditFromSuspense], store: Store, ids: Ids, now: datetime
) -> Answers[Booked]:
    """Credit what waited on the suspense account to its creditors, once per payment.

    Items may be as of credit_incoming (remembered too), or AlreadyBooked where it went back to the bank. The suspense
    account's lock settles races for a payment.
    """
    parties = await store.parties(sorted({command.creditor_account for command in commands}))
    credits: list[_Credit] = []
    for command in commands:
        creditor = parties.get(command.creditor_account)
        credits.append(
            _Credit(
                payment_id=suspense_exit_id(command.payment_id),
                token=command.fencing_token,
                from_account_id=await store.internal_account(kind="suspense", currency=command.currency),
                account_id=creditor.account_id if creditor else None,
                amount_minor=command.amount_minor,
                currency=command.currency,
                creditor=creditor,
            )
        )
    return await _credit(credits, store=store, ids=ids, now=now)


async def _credit(credits: Sequence[_Credit], *, store: Store, ids: Ids, now: datetime) -> Answers[Booked]:
    account_ids = [account for one in credits for account in (one.from_account_id, one.account_id) if account]
    answers: Answers[Booked] = []
    async with store.transaction() as ledger:
        batch = await _open_batch(ledger, account_ids, [one.payment_id for one in credits], now)
        for one in credits:
            answer = batch.credit(
                payment_id=one.payment_id,
                token=one.token,
                from_account_id=one.from_account_id,
                account_id=one.account_id,
                amount_minor=one.amount_minor,
                currency=one.currency,
                entry_id=ids.new(),
            )
            if isinstance(answer, Booked) and one.creditor is not None:
                answer = msgspec.structs.replace(answer, customer_id=one.creditor.customer_id)
            answers.append(answer)
        await ledger.save(batch.changes)
    return answers


async def return_from_suspense(
    *, commands: Sequence[ReturnFromSuspense], store: Store, ids: Ids, now: datetime
) -> Answers[Booked]:
    """Book what waited on the suspense account back to the banks that sent it, once per payment.

    Items may be AlreadyBooked (it went to the creditor), StaleCommand.
    """
    accounts = [
        (
            await store.internal_account(kind="nostro", currency=command.currency, agent_bic=command.agent_bic),
            await store.internal_account(kind="suspense", currency=command.currency),
        )
        for command in commands
    ]
    payment_ids = [suspense_exit_id(command.payment_id) for command in commands]
    async with store.transaction() as ledger:
        batch = await _open_batch(ledger, [one for pair in accounts for one in pair], payment_ids, now)
        answers: Answers[Booked] = [
            batch.return_from_suspense(
                payment_id=payment_id,
                token=command.fencing_token,
                nostro_account_id=nostro,
                suspense_account_id=suspense,
                amount_minor=command.amount_minor,
                entry_id=ids.new(),
            )
            for command, payment_id, (nostro, suspense) in zip(commands, payment_ids, accounts, strict=True)
        ]
        await ledger.save(batch.changes)
    return answers


async def _open_batch(
    ledger: LedgerTransaction, account_ids: Sequence[UUID], payment_ids: Sequence[UUID], now: datetime
) -> Batch:
    balances = await ledger.lock_balances(account_ids)
    return Batch(balances=balances, outcomes=await ledger.outcomes(payment_ids), now=now)
