"""Bulk loading of customers, accounts, users and verifications: from a CSV or JSON Lines file, or from a list.

A record has a `type` (customer, verification, account, user) and that type's fields. Loading is safe to repeat: what is
there with the same contents is left, what is there with other contents is reported.
"""

from __future__ import annotations

import asyncio
import csv
import io
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import msgspec

from payflow.contracts.account import Account, NewAccount, NewCustomer
from payflow.contracts.gateway import Gateway, NewUser, Role
from payflow.contracts.kyc import Kyc, RecordVerification, VerificationLevel, VerificationState
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import InvalidAmount, Money, UnknownCurrency
from payflow.run.errors import StartError
from payflow.run.local_rpc import LocalServices

CHUNK: Final = 500
# Makes the same command id for the same verification, so that loading a file twice records it once.
_NAMESPACE: Final = uuid5(NAMESPACE_URL, "payflow:load")
# Money is an amount to move and never nothing; an account may well begin with nothing.
_NOTHING: Final = re.compile(r"0(\.0+)?")


class CustomerRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="customer"):
    """A person or company who holds accounts."""

    customer_id: str
    name: str
    country: str | None = None
    email: str | None = None
    phone: str | None = None


class VerificationRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="verification"):
    """That a customer was identified (KYC)."""

    customer_id: str
    state: VerificationState = VerificationState.VERIFIED
    level: VerificationLevel = VerificationLevel.FULL
    reason: str = "imported"


class AccountRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="account"):
    """An account. `opening_balance` is a plain decimal in the account's currency."""

    number: str
    customer_id: str
    currency: str
    opening_balance: str = "0"


class UserRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="user"):
    """Who signs in. Either `password`, or `password_hash` (argon2id, as $argon2id$...).

    `customer_id`: required for role customer; other roles have it where that person is a customer too.
    """

    username: str
    role: Role = Role.CUSTOMER
    password: str | None = None
    password_hash: str | None = None
    customer_id: str | None = None


Record = CustomerRecord | VerificationRecord | AccountRecord | UserRecord
Progress = Callable[[str, int], None]


class LoadReport(msgspec.Struct):
    """How many records of each type were loaded, and each failure in words."""

    loaded: dict[str, int] = {}
    failures: list[str] = []


def read_records(path: Path) -> list[Record]:
    """Read a file: CSV with a header row when its name ends in .csv, else one JSON object per line.

    Raises StartError naming the first line that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise StartError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise StartError(f"{path} is not UTF-8 text.") from None
    return list(_from_csv(text, path) if path.suffix.lower() == ".csv" else _from_json_lines(text, path))


def _from_json_lines(text: str, path: Path) -> Iterable[Record]:
    decoder = msgspec.json.Decoder(Record)
    # Not splitlines: it also breaks at U+2028 and others that a JSON text may hold as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise StartError(f"{path}, line {number}: {error}.") from None


def _from_csv(text: str, path: Path) -> Iterable[Record]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            # A quoted field may hold line breaks, so that records are not lines.
            yield _csv_record(row)
    except msgspec.ValidationError as error:
        raise StartError(f"{path}, line {reader.line_num}: {error}.") from None
    except csv.Error as error:
        raise StartError(f"{path}, line {reader.line_num + 1}: {error}.") from None


def _csv_record(row: dict[Any, Any]) -> Record:
    if None in row:
        raise msgspec.ValidationError("The row has more fields than the header")
    filled = {name: value for name, value in row.items() if value not in (None, "")}
    record: Record = msgspec.convert(filled, Record, strict=False)
    return record


async def load_records(
    *, records: Sequence[Record], services: LocalServices, loaded_by: str = "load", progress: Progress | None = None
) -> LoadReport:
    """Load customers first, then what belongs to them. `progress(type, count)` is called after each chunk."""
    report = LoadReport(loaded={}, failures=[])
    account, kyc, gateway = services.client(Account), services.client(Kyc), services.client(Gateway)
    accounts = _readable_accounts(records, report)
    verifications = [_verification(record, loaded_by) for record in records if isinstance(record, VerificationRecord)]
    users = [_user(record) for record in records if isinstance(record, UserRecord)]
    customers = [_customer(record) for record in records if isinstance(record, CustomerRecord)]
    await _load("customer", customers, account.create_customers, report, progress)
    await asyncio.gather(
        _load("verification", verifications, kyc.record, report, progress),
        _load("account", accounts, account.create_accounts, report, progress),
        _load("user", users, gateway.create_users, report, progress, chunk=50),
    )
    return report


async def _load(
    kind: str,
    commands: Sequence[Any],
    call: Callable[[list[Any]], Awaitable[Sequence[Any]]],
    report: LoadReport,
    progress: Progress | None,
    chunk: int = CHUNK,
) -> None:
    for start in range(0, len(commands), chunk):
        part = list(commands[start : start + chunk])
        for command, answer in zip(part, await call(part), strict=True):
            if isinstance(answer, PayflowError):
                report.failures.append(f"{kind} {_name_of(command)}: {answer.code} {answer.detail}".rstrip())
            else:
                report.loaded[kind] = report.loaded.get(kind, 0) + 1
        if progress is not None:
            progress(kind, len(part))


def _name_of(command: Any) -> str:
    for field in ("number", "username", "customer_id"):
        if hasattr(command, field):
            return str(getattr(command, field))
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


def _readable_accounts(records: Sequence[Record], report: LoadReport) -> list[NewAccount]:
    accounts = []
    for record in records:
        if isinstance(record, AccountRecord):
            try:
                accounts.append(_account(record))
            except (InvalidAmount, UnknownCurrency) as error:
                report.failures.append(f"account {record.number}: {error.code} {error.detail}")
    return accounts


def _account(record: AccountRecord) -> NewAccount:
    is_empty = _NOTHING.fullmatch(record.opening_balance) is not None
    minor = 0 if is_empty else Money.from_decimal(record.opening_balance, record.currency).minor_units
    return NewAccount(
        number=record.number,
        customer_id=record.customer_id,
        currency=record.currency,
        opening_balance_minor=minor,
    )
