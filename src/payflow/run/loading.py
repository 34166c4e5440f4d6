"""Bulk loading of customers, accounts, users and verifications, a chunk at a time.

Loading is safe to repeat: what is there with the same contents is left, what is there with other contents is reported.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import NAMESPACE_URL, uuid5

import msgspec

from payflow.contracts.account import Account, AccountView, EntryPage, ListEntries, NewAccount, NewCustomer
from payflow.contracts.gateway import Gateway, NewUser
from payflow.contracts.kyc import Kyc, RecordVerification
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import InvalidAmount, Money, UnknownCurrency, format_minor
from payflow.run.errors import StartError
from payflow.run.local_rpc import LocalServices
from payflow.run.records import AccountRecord, CustomerRecord, Placed, Record, UserRecord, VerificationRecord

CHUNK: Final = 500
# Hashing a password takes a tenth of a second, and an answer must come before its deadline.
USERS_CHUNK: Final = 50
TOLD_MAX: Final = 100
# Makes the same command id for the same verification, so that loading a file twice records it once.
_NAMESPACE: Final = uuid5(NAMESPACE_URL, "payflow:load")
# Money is an amount to move and never nothing; an account may well begin with nothing.
_NOTHING: Final = re.compile(r"0(\.0+)?")

Progress = Callable[[str, int], None]
# Gives the records from the beginning each time it is called, so that no more than a chunk is ever held.
Source = Callable[[], Iterable[Placed]]


class LoadReport(msgspec.Struct):
    """How many records of each type were loaded and how many refused; the first hundred refusals, and warnings."""

    loaded: dict[str, int] = {}
    refused: int = 0
    failures: list[str] = []
    warned: int = 0
    warnings: list[str] = []

    def refuse(self, text: str) -> None:
        """Count a record that was not loaded."""
        self.refused += 1
        if len(self.failures) < TOLD_MAX:
            self.failures.append(text)

    def warn(self, text: str) -> None:
        """Count a record that was there already and differs in what is not compared."""
        self.warned += 1
        if len(self.warnings) < TOLD_MAX:
            self.warnings.append(text)


class _Item(NamedTuple):
    label: str
    command: Any


async def load_records(
    *, records: Sequence[Record], services: LocalServices, loaded_by: str = "load", progress: Progress | None = None
) -> LoadReport:
    """Load records that are in memory: as `load_source`."""
    placed = [Placed(None, record) for record in records]
    return await load_source(source=lambda: placed, services=services, loaded_by=loaded_by, progress=progress)


async def load_source(
    *,
    source: Source,
    services: LocalServices,
    loaded_by: str = "load",
    progress: Progress | None = None,
    began_at: datetime | None = None,
) -> LoadReport:
    """Load customers first, then what belongs to them. `progress(type, count)` is called after each chunk.

    The source is read once for each type, and no more than a chunk of each is held. An account that was there
    and began with another balance is warned of: where its balance is another now, or it was opened before `began_at`.
    """
    report = LoadReport(loaded={}, failures=[], warnings=[])
    account, kyc, gateway = services.client(Account), services.client(Kyc), services.client(Gateway)

    async def create_accounts(items: list[_Item]) -> Sequence[Any]:
        answers = await account.create_accounts([item.command for item in items])
        await _compare_openings(account, items, answers, report, began_at)
        return answers

    run = _Run(source, report, progress)
    await run.load("customer", _customer, _commands_to(account.create_customers))
    await asyncio.gather(
        run.load("verification", lambda record: _verification(record, loaded_by), _commands_to(kyc.record)),
        run.load("account", _account, create_accounts),
        run.load("user", _user, _commands_to(gateway.create_users), chunk=USERS_CHUNK),
    )
    return report


class _Run:
    """One loading: the source, and where its outcome is noted."""

    def __init__(self, source: Source, report: LoadReport, progress: Progress | None) -> None:
        self._source, self._report, self._progress = source, report, progress

    async def load(
        self,
        kind: str,
        to_command: Callable[[Any], Any],
        call: Callable[[list[_Item]], Awaitable[Sequence[Any]]],
        chunk: int = CHUNK,
    ) -> None:
        for placed in _chunks(self._source(), kind, chunk):
            items = list(self._items(placed, kind, to_command))
            if items:
                for item, answer in zip(items, await call(items), strict=True):
                    if isinstance(answer, PayflowError):
                        self._report.refuse(f"{item.label}: {answer.code} {answer.detail}".rstrip())
                    else:
                        self._report.loaded[kind] = self._report.loaded.get(kind, 0) + 1
            if self._progress is not None:
                self._progress(kind, len(placed))

    def _items(self, placed: list[Placed], kind: str, to_command: Callable[[Any], Any]) -> Iterator[_Item]:
        for line, record in placed:
            label = f"{kind} {_name_of(record)}" if line is None else f"line {line}, {kind} {_name_of(record)}"
            try:
                yield _Item(label, to_command(record))
            except (InvalidAmount, UnknownCurrency) as error:
                self._report.refuse(f"{label}: {error.code} {error.detail}")


def _chunks(source: Iterable[Placed], kind: str, size: int) -> Iterator[list[Placed]]:
    chunk: list[Placed] = []
    for placed in source:
        if placed.record.__struct_config__.tag == kind:
            chunk.append(placed)
            if len(chunk) == size:
                yield chunk
                chunk = []
    if chunk:
        yield chunk


def _commands_to(call: Callable[[list[Any]], Awaitable[Sequence[Any]]]) -> Callable[[list[_Item]], Awaitable[Any]]:
    return lambda items: call([item.command for item in items])


async def _compare_openings(
    account: Account,
    items: list[_Item],
    answers: Sequence[AccountView | PayflowError],
    report: LoadReport,
    began_at: datetime | None,
) -> None:
    """Warn of accounts that were there already and began with another balance: the file's was not booked."""
    doubtful = [
        (item, answer)
        for item, answer in zip(items, answers, strict=True)
        if isinstance(answer, AccountView) and _may_differ(item.command, answer, began_at)
    ]
    if not doubtful:
        return
    # An opening balance is an account's first posting.
    first = [ListEntries(number=view.number, limit=1, is_oldest_first=True) for _, view in doubtful]
    for (item, view), page in zip(doubtful, await account.list_entries(first), strict=True):
        if not isinstance(page, EntryPage):
            raise StartError(f"{item.label}: its opening balance cannot be compared ({page.code}).")
        opened_minor = sum(line.amount_minor for line in page.entries if line.kind == "opening")
        if opened_minor != item.command.opening_balance_minor:
            report.warn(
                f"{item.label}: it exists and began with {format_minor(opened_minor, view.currency)} {view.currency}, "
                f"not {format_minor(item.command.opening_balance_minor, view.currency)}; nothing was booked."
            )


def _may_differ(command: NewAccount, view: AccountView, began_at: datetime | None) -> bool:
    is_old = began_at is not None and view.opened_at < began_at
    # The second of two records for one new account: opened a moment ago, with the first one's balance.
    return is_old or view.posted_minor != command.opening_balance_minor


def _name_of(record: Record) -> str:
    for field in ("number", "username", "customer_id"):
        if hasattr(record, field):
            return str(getattr(record, field))
    return "?"


def _customer(record: CustomerRecord) -> NewCustomer:
    return NewCustomer(
        customer_id=record.customer_id,
        name=record.name,
        country=record.country,
        email=record.email,
        phone=record.phone,
    )


def _user(record: UserRecord) -> NewUser:
    return NewUser(
        username=record.username,
        role=record.role,
        password=record.password,
        password_hash=record.password_hash,
        customer_id=record.customer_id,
    )


def _verification(record: VerificationRecord, loaded_by: str) -> RecordVerification:
    return RecordVerification(
        command_id=uuid5(_NAMESPACE, f"{record.customer_id}/{record.state}/{record.level}"),
        customer_id=record.customer_id,
        state=record.state,
        level=record.level,
        reason=record.reason,
        recorded_by=loaded_by,
    )


def _account(record: AccountRecord) -> NewAccount:
    is_empty = _NOTHING.fullmatch(record.opening_balance) is not None
    minor = 0 if is_empty else Money.from_decimal(record.opening_balance, record.currency).minor_units
    return NewAccount(
        number=record.number,
        customer_id=record.customer_id,
        currency=record.currency,
        opening_balance_minor=minor,
    )
