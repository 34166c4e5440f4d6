"""The records that bulk loading knows, and reading them from a CSV or JSON Lines file, one at a time.

A record has a `type` (customer, verification, account, user) and that type's fields.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from payflow.contracts.gateway import Role
from payflow.contracts.kyc import VerificationLevel, VerificationState
from payflow.run.errors import StartError


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


class Placed(NamedTuple):
    """A record and where it stands: the number of its (last) line, None for one that comes from no file."""

    line: int | None
    record: Record


@contextmanager
def rereadable(path: Path) -> Iterator[Path]:
    """The file itself; a pipe, which can be read only once, as a temporary copy. Raises StartError."""
    if path.is_file() or path.is_dir() or not path.exists():
        yield path
        return
    with tempfile.NamedTemporaryFile(prefix="payflow-load-", suffix=path.suffix) as copy:
        try:
            with path.open("rb") as pipe:
                shutil.copyfileobj(pipe, copy)
        except OSError as error:
            raise StartError(f"{path} cannot be read: {error.strerror}.") from error
        copy.flush()
        yield Path(copy.name)


def read_records(path: Path, *, name: str | None = None) -> Iterator[Placed]:
    """Read a file, a record at a time: CSV with a header row when its name ends in .csv, else one JSON object per line.

    Raises StartError naming the first line that cannot be read; `name` is what messages call the file.
    """
    name = name or str(path)
    # Only \n ends a line: a JSON text may hold U+2028 as it is, and csv finds the ends of its rows itself.
    newline = "" if path.suffix.lower() == ".csv" else "\n"
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as lines:
            yield from _from_csv(lines, name) if newline == "" else _from_json_lines(lines, name)
    except OSError as error:
        raise StartError(f"{name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise StartError(f"{name} is not UTF-8 text.") from None


def _from_json_lines(lines: Iterator[str], name: str) -> Iterator[Placed]:
    decoder = msgspec.json.Decoder(Record)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield Placed(number, decoder.decode(line))
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise StartError(f"{name}, line {number}: {error}.") from None


def _from_csv(lines: Iterator[str], name: str) -> Iterator[Placed]:
    reader = csv.DictReader(lines)
    try:
        for row in reader:
            # A quoted field may hold line breaks, so that records are not lines.
            yield Placed(reader.line_num, _csv_record(row))
    except msgspec.ValidationError as error:
        raise StartError(f"{name}, line {reader.line_num}: {error}.") from None
    except csv.Error as error:
        raise StartError(f"{name}, line {reader.line_num + 1}: {error}.") from None


def _csv_record(row: dict[Any, Any]) -> Record:
    if None in row:
        raise msgspec.ValidationError("The row has more fields than the header")
    filled = {name: value for name, value in row.items() if value not in (None, "")}
    record: Record = msgspec.convert(filled, Record, strict=False)
    return record
