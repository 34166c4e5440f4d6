"""Adapts the contract to the use cases: wires the store, the clock and ids, and repeats batches that collide."""

from __future__ import annotations

import asyncio
import logging
import re
from datetime import datetime, time
from typing import Final

import structlog
from prometheus_client import Gauge

from payflow.contracts.account import (
    AccountList,
    AccountView,
    Booked,
    CaptureHold,
    ChangeAccountState,
    ChangeCustomerState,
    CreditFromSuspense,
    CreditIncoming,
    CustomerView,
    EntryPage,
    GetAccount,
    GetCustomer,
    HoldKept,
    HoldPlaced,
    KeepHold,
    LedgerVerified,
    ListAccounts,
    ListEntries,
    NewAccount,
    NewCustomer,
    PartiesResolved,
    PlaceHold,
    Released,
    ReleaseHold,
    ResolveParties,
    ReturnFromSuspense,
    Transfer,
    VerifyLedger,
)
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.platform.context import current_traceparent
from payflow.platform.postgres import repeat_then_halve
from payflow.platform.replica import Reads
from payflow.platform.turns import Turns
from payflow.services.account.domain import KnownBalances
from payflow.services.account.ports import BankDirectory, Store
from payflow.services.account.usecases import incoming, ledger, reads, records, upkeep

TRANSFERS_MAX: Final = 500
log = structlog.get_logger(__name__)


_verified_at: Final = Gauge(
    "payflow_ledger_verified_at", "When the ledger was last verified, in Unix seconds; 0: never."
)
_began_at: Final = Gauge(
    "payflow_ledger_began_at", "When the first customer's account was opened, in Unix seconds; 0: there is none."
)
_broken: Final = Gauge("payflow_ledger_broken", "Rules that the last verification of the ledger found broken.")
_stray: Final = Gauge("payflow_ledger_stray_rows", "Entries and postings outside the month that they belong to.")


def read_time_of_day(text: str) -> time:
    """Read "02:00". Raises ValueError."""
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError("expected HH:MM such as 02:00")
    return time.fromisoformat(text)


class Upkeep:
    """The ledger's duties, which tell by logs and metrics what they found. `busy_pause_s`: until a ledger that was too
    busy for its partitions is asked again."""

    def __init__(self, *, store: Store, clock: Clock, at: time, busy_pause_s: float = 60.0) -> None:
        self._store, self._clock, self._at = store, clock, at
        self._busy_pause_s = busy_pause_s
        self._told: datetime | None = None

    async def make_partitions(self) -> None:
        """Make the months to come, and count what stands outside its month; asked again until the ledger answers."""
        while True:
            try:
                stray = await self._store.make_partitions()
                break
            except Unavailable as error:
                log.warning("ledger.no_partition", error=repr(error))
            await asyncio.sleep(self._busy_pause_s)
        _stray.set(stray)
        if stray:
            log.warning("ledger.stray_rows", rows=stray)

    async def verify_daily(self) -> None:
        """Verify the ledger where this is due, and tell what the last verification found, whoever made it.

        The one before is told first, or since when the ledger could have been verified: how long ago this is has to be
        known most of all where verifying fails. A failure is an
        error in the log and no exception: who repeats this waits as ever, and a long ledger is not read without pause.
        """
        try:
            self._tell(await self._store.last_verification())
            if self._told is None and (first_at := await self._store.first_account_at()):
                _began_at.set(first_at.timestamp())
            self._tell(await upkeep.verify_daily(store=self._store, clock=self._clock, at=self._at))
        except Exception as error:
            log.error("ledger.not_verified", error=repr(error))

    def _tell(self, last: tuple[datetime, int] | None) -> None:
        if last is None or last[0] == self._told:
            return
        self._told, broken = last
        _verified_at.set(self._told.timestamp())
        _broken.set(broken)
        log.log(logging.ERROR if broken else logging.INFO, "ledger.verified", verified_at=self._told, broken=broken)


class AccountApi:
    """Implements contracts.account.Account."""

    def __init__(
        self, *, store: Store, banks: BankDirectory, clock: Clock, ids: Ids, reads: Reads[Store] | None = None
    ) -> None:
        self._store = store
        self._reads = reads or Reads(store)
        self._banks = banks
        self._clock = clock
        self._ids = ids
        self._known = KnownBalances()
        # Batches that each rely on the balances they have written can only follow each other.
        self._transfers: Turns[Transfer, Booked | PayflowError] = Turns(self._transfer, batch_max=TRANSFERS_MAX)

    async def resolve(self, queries: list[ResolveParties]) -> Answers[PartiesResolved]:
        return await reads.resolve_parties(queries=queries, store=self._store, banks=self._banks)

    async def transfer(self, commands: list[Transfer]) -> Answers[Booked]:
        return await self._transfers.do(commands)

    async def _transfer(self, commands: list[Transfer]) -> Answers[Booked]:
        return await repeat_then_halve(
            lambda batch: ledger.transfer(
                commands=batch, store=self._store, known=self._known, ids=self._ids, now=self._clock.now()
            ),
            commands,
        )

    async def place_hold(self, commands: list[PlaceHold]) -> Answers[HoldPlaced]:
        return await repeat_then_halve(
            lambda batch: ledger.place_hold(commands=batch, store=self._store, ids=self._ids, now=self._clock.now()),
            commands,
        )

    async def keep_hold(self, commands: list[KeepHold]) -> Answers[HoldKept]:
        return await repeat_then_halve(
            lambda batch: ledger.keep_hold(commands=batch, store=self._store, now=self._clock.now()),
            commands,
        )

    async def capture_hold(self, commands: list[CaptureHold]) -> Answers[Booked]:
        return await repeat_then_halve(
            lambda batch: ledger.capture_hold(commands=batch, store=self._store, ids=self._ids, now=self._clock.now()),
            commands,
        )

    async def release_hold(self, commands: list[ReleaseHold]) -> Answers[Released]:
        return await repeat_then_halve(
            lambda batch: ledger.release_hold(commands=batch, store=self._store, now=self._clock.now()),
            commands,
        )

    async def credit_incoming(self, commands: list[CreditIncoming]) -> Answers[Booked]:
        return await repeat_then_halve(
            lambda batch: incoming.credit_incoming(
                commands=batch, store=self._store, ids=self._ids, now=self._clock.now()
            ),
            commands,
        )

    async def credit_from_suspense(self, commands: list[CreditFromSuspense]) -> Answers[Booked]:
        return await repeat_then_halve(
            lambda batch: incoming.credit_from_suspense(
                commands=batch, store=self._store, ids=self._ids, now=self._clock.now()
            ),
            commands,
        )

    async def return_from_suspense(self, commands: list[ReturnFromSuspense]) -> Answers[Booked]:
        return await repeat_then_halve(
            lambda batch: incoming.return_from_suspense(
                commands=batch, store=self._store, ids=self._ids, now=self._clock.now()
            ),
            commands,
        )

    async def create_customers(self, commands: list[NewCustomer]) -> Answers[CustomerView]:
        return await records.create_customers(
            commands=commands, store=self._store, events=self._events(), now=self._clock.now()
        )

    async def create_accounts(self, commands: list[NewAccount]) -> Answers[AccountView]:
        return await records.create_accounts(
            commands=commands, store=self._store, ids=self._ids, events=self._events(), now=self._clock.now()
        )

    async def change_account_state(self, commands: list[ChangeAccountState]) -> Answers[AccountView]:
        return [
            await records.change_account_state(command=command, store=self._store, events=self._events())
            for command in commands
        ]

    async def change_customer_state(self, commands: list[ChangeCustomerState]) -> Answers[CustomerView]:
        return [
            await records.change_customer_state(command=command, store=self._store, events=self._events())
            for command in commands
        ]

    async def get_customers(self, queries: list[GetCustomer]) -> Answers[CustomerView]:
        return await reads.get_customers(customer_ids=[query.customer_id for query in queries], store=self._store)

    async def get_accounts(self, queries: list[GetAccount]) -> Answers[AccountView]:
        return await reads.get_accounts(queries=queries, store=self._store, now=self._clock.now())

    async def list_accounts(self, queries: list[ListAccounts]) -> Answers[AccountList]:
        return await reads.list_accounts(queries=queries, store=self._store)

    async def list_entries(self, queries: list[ListEntries]) -> Answers[EntryPage]:
        now = self._clock.now()
        return await self._reads.answer(
            queries, lambda some, store: reads.list_entries(queries=some, store=store, now=now)
        )

    async def verify_ledger(self, queries: list[VerifyLedger]) -> Answers[LedgerVerified]:
        return [await self._store.verify() for _ in queries]

    def _events(self) -> records.EventMaker:
        return records.EventMaker(ids=self._ids, now=self._clock.now(), traceparent=current_traceparent.get())
