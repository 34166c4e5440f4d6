"""Commands on the ledger: lock the balances, read earlier outcomes, decide, write, all in one database transaction.

Every command carries its payment's id, so that each of them is safe to repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from payflow.contracts.account import (
    Booked,
    CaptureHold,
    HoldKept,
    HoldPlaced,
    KeepHold,
    PlaceHold,
    Released,
    ReleaseHold,
    Transfer,
)
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Ids
from payflow.kernel.errors import PayflowError
from payflow.services.account.domain import Batch, KnownBalances, Outcomes
from payflow.services.account.ports import LedgerTransaction, Store

Answer = TypeVar("Answer")


async def _open_batch(
    ledger: LedgerTransaction, *, account_ids: Sequence[UUID], payment_ids: Sequence[UUID], now: datetime
) -> Batch:
    balances = await ledger.lock_balances(account_ids)
    return Batch(balances=balances, outcomes=await ledger.outcomes(payment_ids), now=now)


async def transfer(
    *, commands: Sequence[Transfer], store: Store, known: KnownBalances, ids: Ids, now: datetime
) -> Answers[Booked]:
    """Move money between accounts of ours: one balanced journal entry per payment, at most once.

    Items may be InsufficientFunds, AccountBlocked, AccountClosed, AccountNotFound, CurrencyMismatch (remembered: a
    repeat gets the same), HoldNotFound, StaleCommand. Raises Unavailable or UnknownOutcome for the whole batch.
    """
    account_ids = list(
        {account for command in commands for account in (command.debtor_account_id, command.creditor_account_id)}
    )
    payment_ids = [command.payment_id for command in commands]
    if len(set(payment_ids)) == len(commands) and all(_is_first(command) for command in commands):
        at_once = await _transfer_at_once(
            commands=commands, account_ids=account_ids, store=store, known=known, ids=ids, now=now
        )
        if at_once is not None:
            return at_once
    async with store.transaction() as ledger:
        batch = await _open_batch(ledger, account_ids=account_ids, payment_ids=payment_ids, now=now)
        answers = [batch.transfer(command, entry_id=ids.new()) for command in commands]
        await ledger.save(batch.changes)
    known.learn(batch.balances_after())
    return answers


def _is_first(command: Transfer) -> bool:
    """Whether nobody can have sent a command for this payment before: usual, and the store checks it."""
    return command.fencing_token == 1 and not command.captures_hold


async def _transfer_at_once(
    *,
    commands: Sequence[Transfer],
    account_ids: Sequence[UUID],
    store: Store,
    known: KnownBalances,
    ids: Ids,
    now: datetime,
) -> Answers[Booked] | None:
    """Decide on balances known from before and write all in one statement; None when they turn out to be wrong."""
    balances = known.take(account_ids)
    unknown = [account_id for account_id in account_ids if account_id not in balances]
    if unknown:
        balances |= await store.balances(unknown)
    if len(balances) < len(account_ids):
        return None
    batch = Batch(balances=balances, outcomes=Outcomes(), now=now)
    answers = [batch.transfer(command, entry_id=ids.new()) for command in commands]
    is_written = await store.book_whole(
        batch.changes, balances=list(balances.values()), payment_ids=[command.payment_id for command in commands]
    )
    if not is_written:
        return None
    for balance in balances.values():
        balance.version += 1
    known.learn(balances.values())
    return answers


async def place_hold(*, commands: Sequence[PlaceHold], store: Store, ids: Ids, now: datetime) -> Answers[HoldPlaced]:
    """Reserve funds on the debtor accounts until capture, release or expiry: one answer per command, in order.

    Safe to repeat: one hold per payment id, a second command for it gets the first hold.
    Items may be InsufficientFunds, AccountBlocked, AccountClosed, AccountNotFound, CurrencyMismatch, StaleCommand.
    """
    async with store.transaction() as ledger:
        batch = await _open_batch(
            ledger,
            account_ids=[command.account_id for command in commands],
            payment_ids=[command.payment_id for command in commands],
            now=now,
        )
        answers = [batch.place_hold(command, hold_id=ids.new()) for command in commands]
        await ledger.save(batch.changes)
    return answers


async def _decide_on_holds(
    *,
    payment_ids: Sequence[UUID],
    store: Store,
    now: datetime,
    decide: Callable[[Batch, int], Answer],
    further_account_ids: Sequence[UUID] = (),
) -> list[Answer]:
    """Lock the accounts on which the payments hold funds, then let `decide(batch, index)` answer each command."""
    async with store.transaction() as ledger:
        held_on = await ledger.hold_accounts(payment_ids)
        account_ids = [*held_on.values(), *further_account_ids]
        batch = await _open_batch(ledger, account_ids=account_ids, payment_ids=payment_ids, now=now)
        answers = [decide(batch, index) for index in range(len(payment_ids))]
        await ledger.save(batch.changes)
    return answers


async def keep_hold(*, commands: Sequence[KeepHold], store: Store, now: datetime) -> Answers[HoldKept]:
    """Take the expiry off holds before submission. Items may be HoldNotFound, StaleCommand."""
    return await _decide_on_holds(
        payment_ids=[command.payment_id for command in commands],
        store=store,
        now=now,
        decide=lambda batch, index: batch.keep_hold(commands[index].payment_id, commands[index].fencing_token),
    )


async def capture_hold(*, commands: Sequence[CaptureHold], store: Store, ids: Ids, now: datetime) -> Answers[Booked]:
    """Book held amounts, or parts of them, to the other banks' nostro accounts; the rest is released with the booking.

    Items may be HoldNotFound, CaptureTooLarge, InvalidAmount (nothing happened: the hold stays), StaleCommand.
    """
    nostros: dict[UUID, UUID] = {}
    async with store.transaction() as ledger:
        earlier = await ledger.outcomes([command.payment_id for command in commands])
    for command in commands:
        hold = earlier.holds.get(command.payment_id)
        if hold is not None:
            nostros[command.payment_id] = await store.internal_account(
                kind="nostro", currency=hold.currency, agent_bic=command.agent_bic
            )

    def decide(batch: Batch, index: int) -> Booked | PayflowError:
        command = commands[index]
        return batch.capture_hold(
            command.payment_id,
            command.fencing_token,
            nostro_account_id=nostros.get(command.payment_id, command.payment_id),
            entry_id=ids.new(),
            amount_minor=command.amount_minor,
        )

    return await _decide_on_holds(
        payment_ids=[command.payment_id for command in commands],
        store=store,
        now=now,
        decide=decide,
        further_account_ids=list(nostros.values()),
    )


async def release_hold(*, commands: Sequence[ReleaseHold], store: Store, now: datetime) -> Answers[Released]:
    """End payments' funds: what is held is given back. Items may be AlreadyBooked, StaleCommand."""
    return await _decide_on_holds(
        payment_ids=[command.payment_id for command in commands],
        store=store,
        now=now,
        further_account_ids=[command.account_id for command in commands if command.account_id is not None],
        decide=lambda batch, index: batch.release_hold(
            commands[index].payment_id,
            commands[index].fencing_token,
            commands[index].reason,
            account_id=commands[index].account_id,
        ),
    )


async def expire_holds(*, store: Store, now: datetime, limit: int = 500) -> int:
    """Release open holds whose expiry has passed; returns how many. Holds of submitted payments have no expiry."""
    payment_ids = await store.expired_holds(now=now, limit=limit)
    if not payment_ids:
        return 0
    answers = await _decide_on_holds(
        payment_ids=payment_ids,
        store=store,
        now=now,
        decide=lambda batch, index: batch.expire_hold(payment_ids[index]),
    )
    return sum(answers)
