"""The account service's database: the ledger's tables through named queries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg

from payflow.contracts.account import (
    AccountState,
    AccountView,
    CustomerState,
    CustomerView,
    EntryCursor,
    EntryLine,
    EntryPage,
    LedgerVerified,
    ListEntries,
    NewAccount,
    NewCustomer,
    Party,
)
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.account.domain import Balance, Changes, Hold, Outcomes, Refusal, internal_number
from payflow.services.account.rows import (
    account_view_of,
    balance_of,
    booking_columns,
    entry_of,
    hold_of,
    payments_of,
    span_of,
)
from payflow.services.account.verification import rest_as_long_as_it_took, verify_ledger

PARTIES_KNOWN_MAX: Final = 50_000
# How long an account that is being booked on is left before it is looked at again; no connection is held meanwhile.
CLOSING_PAUSES_S: Final = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64)
# Beyond all that is booked.
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)
queries = load_queries(__package__ or "payflow.services.account")


class PostgresLedger:
    """One database transaction over the ledger (see ports.LedgerTransaction)."""

    def __init__(self, connection: Connection, cipher: ColumnCipher, outbox: Outbox) -> None:
        self._connection = connection
        self._cipher = cipher
        self._outbox = outbox
        self.has_events = False

    async def hold_accounts(self, payment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        rows = await self._connection.fetch(queries.hold_accounts, payment_ids)
        return {row["payment_id"]: row["account_id"] for row in rows}

    async def lock_balances(self, account_ids: Sequence[UUID]) -> dict[UUID, Balance]:
        rows = await self._connection.fetch(queries.lock_balances, sorted(set(account_ids)))
        return {row["account_id"]: balance_of(row) for row in rows}

    async def outcomes(self, payment_ids: Sequence[UUID]) -> Outcomes:
        outcomes = Outcomes()
        rows = await self._connection.fetch(queries.outcomes, payment_ids, *span_of(payment_ids))
        for row in rows:
            payment_id = row["payment_id"]
            if row["what"] == "entry":
                outcomes.entries[payment_id] = entry_of(row)
            elif row["what"] == "hold":
                outcomes.holds[payment_id] = hold_of(row)
            else:
                refusal = Refusal(payment_id, row["word"], row["currency"], row["text"], row["fencing_token"])
                outcomes.refusals[payment_id, row["word"]] = refusal
        return outcomes

    async def save(self, changes: Changes) -> None:
        if changes.holds:
            await self._save_holds(list(changes.holds.values()))
        if changes.refusals:
            await self._save_refusals(changes.refusals, changes.at)
        if changes.balances:
            await self._book(changes)

    async def _book(self, changes: Changes) -> None:
        columns = booking_columns(changes, list(changes.balances.values()))
        await self._connection.execute(queries.book, *columns, payments_of(changes))

    async def _save_holds(self, holds: Sequence[Hold]) -> None:
        await self._connection.execute(
            queries.save_holds,
            [hold.payment_id for hold in holds],
            [hold.hold_id for hold in holds],
            [hold.account_id for hold in holds],
            [hold.amount_minor for hold in holds],
            [hold.currency for hold in holds],
            [hold.state for hold in holds],
            [hold.fencing_token for hold in holds],
            [hold.placed_at for hold in holds],
            [hold.expires_at for hold in holds],
            [hold.ended_at for hold in holds],
            [hold.end_reason for hold in holds],
        )

    async def _save_refusals(self, refusals: Sequence[Refusal], at: datetime) -> None:
        await self._connection.execute(
            queries.save_refusals,
            [refusal.payment_id for refusal in refusals],
            [refusal.step for refusal in refusals],
            [refusal.code for refusal in refusals],
            [refusal.detail for refusal in refusals],
            [refusal.fencing_token for refusal in refusals],
            at,
        )

    async def insert_customers(self, customers: Sequence[NewCustomer], now: datetime) -> set[str]:
        unique = list({customer.customer_id: customer for customer in reversed(customers)}.values())
        rows = await self._connection.fetch(
            queries.insert_customers,
            [customer.customer_id for customer in unique],
            [self._encrypt(customer.name, "name", customer.customer_id) for customer in unique],
            [self._encrypt(customer.email, "email", customer.customer_id) for customer in unique],
            [self._encrypt(customer.phone, "phone", customer.customer_id) for customer in unique],
            [customer.country for customer in unique],
            now,
        )
        return {row["customer_id"] for row in rows}

    async def insert_accounts(self, accounts: Sequence[tuple[UUID, NewAccount]], now: datetime) -> set[UUID]:
        rows = await self._connection.fetch(
            queries.insert_accounts,
            [account_id for account_id, _ in accounts],
            [account.number for _, account in accounts],
            [account.customer_id for _, account in accounts],
            [account.currency for _, account in accounts],
            now,
        )
        return {row["account_id"] for row in rows}

    async def set_customer_state(self, customer_id: str, state: CustomerState) -> int | None:
        version: int | None = await self._connection.fetchval(queries.set_customer_state, customer_id, state.value)
        return version

    async def set_account_state(self, number: str, state: AccountState) -> int | None:
        version: int | None = await self._connection.fetchval(queries.set_account_state, number, state.value)
        return version

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._outbox.append(self._connection, events)
        self.has_events = self.has_events or bool(events)

    def _encrypt(self, text: str | None, column: str, customer_id: str) -> bytes | None:
        return None if text is None else self._cipher.encrypt(text, place=f"customers.{column}:{customer_id}")


class PostgresStore:
    """The account service's tables (see ports.Store)."""

    def __init__(self, *, database: Database, cipher: ColumnCipher, outbox: Outbox, ids: Ids) -> None:
        self._database = database
        self._cipher = cipher
        self._outbox = outbox
        self._ids = ids
        self._internal: dict[str, UUID] = {}
        # Whose account a number is never changes, nor the owner's name, so it is read and decrypted once. What can
        # change (states, balances) is not in it.
        self._parties: dict[str, Party] = {}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresLedger]:
        async with self._database.transaction() as connection:
            ledger = PostgresLedger(connection, self._cipher, self._outbox)
            yield ledger
        if ledger.has_events:
            self._outbox.wake_consumers()

    async def balances(self, account_ids: Sequence[UUID]) -> dict[UUID, Balance]:
        rows = await self._database.fetch(queries.balances, account_ids)
        return {row["account_id"]: balance_of(row) for row in rows}

    async def book_whole(self, changes: Changes, *, balances: Sequence[Balance], payment_ids: Sequence[UUID]) -> bool:
        refusals = changes.refusals
        # Locked in one order: batches of several processes can meet here.
        ordered = sorted(balances, key=lambda balance: balance.account_id)
        rows = await self._database.write(
            queries.book_whole,
            *booking_columns(changes, ordered),
            [balance.version for balance in ordered],
            payment_ids,
            [refusal.payment_id for refusal in refusals],
            [refusal.step for refusal in refusals],
            [refusal.code for refusal in refusals],
            [refusal.detail for refusal in refusals],
            [refusal.fencing_token for refusal in refusals],
            payments_of(changes),
            *span_of(payment_ids),
        )
        return bool(rows[0]["is_whole"])

    async def internal_account(self, *, kind: str, currency: str, agent_bic: str | None = None) -> UUID:
        number = internal_number(kind=kind, currency=currency, agent_bic=agent_bic)
        if number not in self._internal:
            await self._database.execute(queries.insert_internal_account, self._ids.new(), number, kind, currency)
            found: UUID | None = await self._database.fetchval(queries.find_internal_account, number)
            if found is None:
                raise RuntimeError(f"{number} is not an internal account")
            self._internal[number] = found
        return self._internal[number]

    async def parties(self, numbers: Sequence[str]) -> dict[str, Party]:
        known = {number: party for number in numbers if (party := self._parties.get(number)) is not None}
        unknown = [number for number in numbers if number not in known]
        if unknown:
            rows = await self._database.fetch(queries.parties, unknown)
            read = {row["number"]: self._party(row) for row in rows}
            if len(self._parties) + len(read) > PARTIES_KNOWN_MAX:
                self._parties.clear()
            self._parties |= read
            known |= read
        return known

    def _party(self, row: asyncpg.Record) -> Party:
        return Party(
            account_id=row["account_id"],
            number=row["number"],
            customer_id=row["customer_id"],
            name=self._decrypt(row["name_encrypted"], "name", row["customer_id"]) or "",
            country=row["country"],
            currency=row["currency"],
        )

    async def customers(self, customer_ids: Sequence[str]) -> dict[str, CustomerView]:
        rows = await self._database.fetch(queries.customers, customer_ids)
        return {row["customer_id"]: self._customer(row) for row in rows}

    async def accounts(self, numbers: Sequence[str]) -> dict[str, AccountView]:
        rows = await self._database.fetch(queries.accounts, numbers)
        return {row["number"]: account_view_of(row) for row in rows}

    async def close_instants(self, instants: Mapping[str, datetime]) -> set[str]:
        left = dict(instants)
        for pause_s in CLOSING_PAUSES_S:
            await asyncio.sleep(pause_s)
            rows = await self._database.fetch(queries.open_instants, list(left), list(left.values()))
            left = {row["number"]: left[row["number"]] for row in rows}
            if not rows or rows[0]["is_replica"]:
                break
            for row in await self._database.write(queries.close_instants, list(left), list(left.values())):
                del left[row["number"]]
            if not left:
                break
        return instants.keys() - left.keys()

    async def accounts_at(self, wanted: Sequence[tuple[str, datetime]]) -> dict[tuple[str, datetime], AccountView]:
        rows = await self._database.fetch(
            queries.accounts_at, [number for number, _ in wanted], [at for _, at in wanted]
        )
        # By place: the first instant that Python knows comes back from PostgreSQL as another one.
        found = ((wanted[row["place"] - 1], row) for row in rows)
        return {key: account_view_of(row, as_of=key[1]) for key, row in found}

    async def accounts_of(self, customer_ids: Sequence[str]) -> dict[str, list[AccountView]]:
        accounts: dict[str, list[AccountView]] = {}
        for row in await self._database.fetch(queries.accounts_of, customer_ids):
            accounts.setdefault(row["customer_id"], []).append(account_view_of(row))
        return accounts

    async def entries(self, query: ListEntries) -> EntryPage:
        begin, end = query.booked_from or _FIRST, query.booked_until or _LAST
        if query.is_oldest_first:
            text, start = queries.entries_oldest_first, EntryCursor(_FIRST, 0)
        else:
            text, start = queries.entries, EntryCursor(_LAST, 0)
        after = query.cursor or start
        async with self._database.transaction(is_read_only=True) as connection:
            rows = await connection.fetch(
                text, query.number, begin, end, after.booked_at, after.sequence, query.limit + 1
            )
            balances = await connection.fetchrow(queries.range_balances, query.number, begin, end)
        lines = [EntryLine(**dict(row)) for row in rows[: query.limit]]
        is_last = len(rows) <= query.limit
        return EntryPage(
            entries=lines,
            next_cursor=None if is_last else EntryCursor(lines[-1].booked_at, lines[-1].sequence),
            opening_minor=balances["opening_minor"] if balances else 0,
            closing_minor=balances["closing_minor"] if balances else 0,
        )

    async def expired_holds(self, *, now: datetime, limit: int) -> list[UUID]:
        rows = await self._database.fetch(queries.expired_holds, now, limit)
        return [row["payment_id"] for row in rows]

    async def verify(self) -> LedgerVerified:
        async with self._database.transaction(is_read_only=True) as connection:
            return await verify_ledger(connection)

    async def verify_aside(self) -> LedgerVerified | None:
        async with self._database.transaction(is_read_only=True) as connection:
            if not await connection.fetchval(queries.claim_verification):
                return None
            return await verify_ledger(connection, rest=rest_as_long_as_it_took())

    async def last_verification(self) -> tuple[datetime, int] | None:
        row = await self._database.fetchrow(queries.last_verification)
        return None if row is None else (row["verified_at"], row["broken"])

    async def first_account_at(self) -> datetime | None:
        first_at: datetime | None = await self._database.fetchval(queries.first_account_at)
        return first_at

    async def save_verification(self, found: LedgerVerified, *, began_at: datetime, verified_at: datetime) -> None:
        await self._database.execute(
            queries.save_verification,
            began_at,
            verified_at,
            found.accounts,
            found.entries,
            found.postings,
            found.open_holds,
            found.broken,
        )

    async def make_partitions(self) -> int:
        try:
            await self._database.fetchval(queries.make_partitions)
        except asyncpg.LockNotAvailableError as error:
            raise Unavailable("The ledger is too busy for a new partition.") from error
        return int(await self._database.fetchval(queries.stray_rows))

    def _customer(self, row: asyncpg.Record) -> CustomerView:
        customer_id = row["customer_id"]
        return CustomerView(
            customer_id=customer_id,
            name=self._decrypt(row["name_encrypted"], "name", customer_id) or "",
            country=row["country"],
            email=self._decrypt(row["email_encrypted"], "email", customer_id),
            phone=self._decrypt(row["phone_encrypted"], "phone", customer_id),
            state=CustomerState(row["state"]),
            created_at=row["created_at"],
        )

    def _decrypt(self, data: bytes | None, column: str, customer_id: str) -> str | None:
        return None if data is None else self._cipher.decrypt(data, place=f"customers.{column}:{customer_id}")
