"""The lines of a file of payments, one after another: each is the body of a single payment, read as strictly."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

import msgspec

from payflow.contracts.bulk import BulkLine, BulkPayment
from payflow.contracts.gateway import Forbidden
from payflow.kernel.errors import Rejection
from payflow.platform.http.asgi import BODY_MAX_BYTES
from payflow.platform.http.errors import MissingRequiredFields, UnreadableBody
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.routes.payment_confirm import (
    REQUIRED_FIELDS,
    CustomerId,
    OneTimePassword,
    PaymentFields,
    command_of,
)

LINE_MAX_BYTES: Final = BODY_MAX_BYTES
# A file is its customer's: the line need not say whose it is.
REQUIRED: Final = tuple(name for name in REQUIRED_FIELDS if name != "customer_id")
COLUMNS: Final = (
    "transaction_id",
    "customer_id",
    "amount",
    "currency",
    "from_account",
    "to_account",
    "creditor_name",
    "creditor_country",
    "creditor_agent",
    "remittance_information",
    "execute_at",
)
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_CREDITOR: Final = "creditor_"
_encode: Final = msgspec.json.Encoder().encode

# A line's bytes and its customer: the line as it is stored.
ReadLine: TypeAlias = Callable[[int, bytes], BulkLine]


class BulkBody(PaymentFields):
    """A line's payment: that of `POST /payment/confirm`, but `customer_id` may be left out.

    `otp` is known only to be refused in words of its own.
    """

    customer_id: CustomerId | None = None
    otp: OneTimePassword | None = None


_READER: Final = StrictReader(BulkBody, required=REQUIRED)


class LineSplitter:
    """Cuts what arrives into lines with their numbers; empty ones are counted and left out.

    A line that is too long is cut off at its bound, and what follows up to its end is thrown away.
    """

    def __init__(self, first_line: int = 1) -> None:
        self._number = first_line
        self._rest = bytearray()
        self._is_cut = False

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The lines that are whole with this data."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            yield from self._line(data[start:end])
            start = end + 1
        self._keep(data[start:])

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """The last line, which need not end with a line break."""
        yield from self._line(b"")

    def _line(self, end: bytes) -> Iterator[tuple[int, bytes]]:
        self._keep(end)
        line, number = bytes(self._rest), self._number
        self._rest.clear()
        self._is_cut, self._number = False, number + 1
        if line.strip():
            yield number, line.removesuffix(b"\r")

    def _keep(self, data: bytes) -> None:
        if not self._is_cut:
            self._rest += data
            if len(self._rest) > LINE_MAX_BYTES + 1:
                del self._rest[LINE_MAX_BYTES + 1 :]
                self._is_cut = True


def json_reader(customer_id: str) -> ReadLine:
    """Reads lines of JSON."""
    return lambda number, line: _read(number, line, customer_id, _as_it_is)


def csv_reader(customer_id: str, columns: Sequence[str]) -> ReadLine:
    """Reads lines of CSV: a cell per column; an empty cell is a field that is left out."""

    def to_json(line: bytes) -> bytes:
        cells = _cells(line)
        if len(cells) != len(columns):
            raise UnreadableBody(f"The line has {len(cells)} cells, and the header line {len(columns)}.")
        return _encode(_fields(columns, cells))

    return lambda number, line: _read(number, line, customer_id, to_json)


def read_columns(line: bytes) -> list[str]:
    """The header line of a CSV file. Raises UnreadableBody, and MissingRequiredFields for columns that must be."""
    columns = [cell.strip() for cell in _cells(line.removeprefix(_BYTE_ORDER_MARK))]
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown:
        raise UnreadableBody(f"The header line has the column {_shown(unknown[0])}; known are: {', '.join(COLUMNS)}.")
    if len(set(columns)) != len(columns):
        raise UnreadableBody("The header line names a column twice.")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise MissingRequiredFields(f"The header line lacks columns: {', '.join(missing)}.", missing_fields=missing)
    return columns


def _read(number: int, line: bytes, customer_id: str, to_json: Callable[[bytes], bytes]) -> BulkLine:
    try:
        if len(line) > LINE_MAX_BYTES:
            raise UnreadableBody(f"The line is longer than {LINE_MAX_BYTES // 1024} KB.")
        return _payment_line(number, to_json(line), customer_id)
    except (UnreadableBody, MissingRequiredFields, Forbidden) as error:
        return _refused(number, line, error)


def _payment_line(number: int, line: bytes, customer_id: str) -> BulkLine:
    body = _READER.read(line)
    if body.otp is not None:
        raise UnreadableBody("otp: a file has no one-time passwords; leave it out.", field="otp")
    if body.customer_id not in (None, customer_id):
        raise Forbidden("customer_id is not the signed-in customer's.")
    command = command_of(body, customer_id=customer_id, key="")
    payment = BulkPayment(
        command.transaction_id,
        command.amount,
        command.currency,
        command.debtor_account,
        command.creditor_account,
        command.creditor,
        command.remittance_information,
        command.execute_at,
    )
    return BulkLine(number, command.fingerprint, payment)


def _refused(number: int, line: bytes, error: Rejection) -> BulkLine:
    detail = error.detail.replace("The body", "The line")
    return BulkLine(number, sha256(line).digest(), None, error.code, detail)


def _as_it_is(line: bytes) -> bytes:
    return line


def _cells(line: bytes) -> list[str]:
    try:
        rows = list(csv.reader([line.decode("utf-8")], strict=True))
    except UnicodeDecodeError:
        raise UnreadableBody("The line is not valid UTF-8.") from None
    except csv.Error:
        raise UnreadableBody(
            "The line is not valid CSV: commas between cells, quotes around a cell and doubled in it."
        ) from None
    return rows[0] if rows else []


def _fields(columns: Sequence[str], cells: Sequence[str]) -> dict[str, object]:
    given = {column: cell for column, cell in zip(columns, cells, strict=True) if cell != ""}
    creditor = {name.removeprefix(_CREDITOR): cell for name, cell in given.items() if name.startswith(_CREDITOR)}
    fields: dict[str, object] = {name: cell for name, cell in given.items() if not name.startswith(_CREDITOR)}
    if creditor:
        fields["creditor"] = creditor
    return fields


def _shown(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name[:40]) or '""'
