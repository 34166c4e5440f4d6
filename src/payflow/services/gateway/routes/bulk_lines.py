"""The lines of a file of payments, one after another: each is the body of a single payment, read as strictly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

import msgspec

from payflow.contracts.bulk import BulkLine, BulkPayment, FileFormat
from payflow.contracts.gateway import Forbidden
from payflow.kernel.errors import Rejection
from payflow.platform.http.errors import MissingRequiredFields, UnreadableBody
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.routes.bulk_csv import (
    LINE_MAX_BYTES,
    REQUIRED,
    read_columns,
    read_fields,
    refuse_json,
    refuse_unsure,
)
from payflow.services.gateway.routes.payment_confirm import (
    CustomerId,
    OneTimePassword,
    PaymentFields,
    TransactionId,
    command_of,
)

_TRANSACTION_ID: Final = b'"transaction_id"'
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_encode: Final = msgspec.json.Encoder().encode

# A line's bytes and its customer: the line as it is stored.
ReadLine: TypeAlias = Callable[[int, bytes], BulkLine]


class BulkBody(PaymentFields):
    """A line's payment: that of `POST /payment/confirm`, but `customer_id` may be left out.

    `otp` is known only to be refused in words of its own.
    """

    customer_id: CustomerId | None = None
    otp: OneTimePassword | None = None


class _Named(msgspec.Struct):
    transaction_id: TransactionId


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
        line, number, is_whole = bytes(self._rest), self._number, not self._is_cut
        self._rest.clear()
        self._is_cut, self._number = False, number + 1
        # One that was cut off stays longer than its bound, by which it is known.
        if is_whole:
            line = line.removesuffix(b"\r")
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
        # What was cut off is no empty line, whatever is left of it.
        if line.strip() or not is_whole:
            yield number, line

    def _keep(self, data: bytes) -> None:
        if not self._is_cut:
            self._rest += data
            if len(self._rest) > LINE_MAX_BYTES + 1:
                del self._rest[LINE_MAX_BYTES + 1 :]
                self._is_cut = True


class FileReader:
    """Reads a file, or the rest of one, that arrives in pieces: its lines as they are stored.

    Raises UnreadableFile where its lines cannot be told apart, and UnreadableBody or MissingRequiredFields for the
    header line of a CSV file; `columns` are those that it names.
    """

    def __init__(self, *, format: FileFormat, customer_id: str, first_line: int = 1) -> None:
        self._splitter = LineSplitter(first_line)
        self._customer_id = customer_id
        self._read: ReadLine | None = json_reader(customer_id) if format is FileFormat.JSON_LINES else None
        self.columns: list[str] | None = None

    def use_columns(self, columns: list[str]) -> None:
        """The header line stood in a part of the file that arrived earlier."""
        self.columns, self._read = columns, csv_reader(self._customer_id, columns)

    def feed(self, data: bytes) -> Iterator[BulkLine]:
        """The lines that are whole with this piece."""
        return self._lines(self._splitter.feed(data))

    def finish(self) -> Iterator[BulkLine]:
        """The last line, which need not end with a line break."""
        return self._lines(self._splitter.finish())

    def _lines(self, numbered: Iterable[tuple[int, bytes]]) -> Iterator[BulkLine]:
        for number, line in numbered:
            if self._read is not None:
                yield self._read(number, line)
            else:
                refuse_json(number, line)
                refuse_unsure(number, line)
                self.use_columns(read_columns(line))


def json_reader(customer_id: str) -> ReadLine:
    """Reads lines of JSON."""
    return lambda number, line: _read(number, line, customer_id, _as_it_is)


def csv_reader(customer_id: str, columns: Sequence[str]) -> ReadLine:
    """Reads lines of CSV: a cell per column. Raises UnreadableFile, for what is wrong with more than the line."""

    def read(number: int, line: bytes) -> BulkLine:
        refuse_unsure(number, line)
        return _read(number, line, customer_id, lambda line: _encode(read_fields(columns, line)))

    return read


def _read(number: int, line: bytes, customer_id: str, to_json: Callable[[bytes], bytes]) -> BulkLine:
    fields = b""
    try:
        if len(line) > LINE_MAX_BYTES:
            raise UnreadableBody(f"The line is longer than {LINE_MAX_BYTES // 1024} KB.")
        fields = to_json(line)
        return _payment_line(number, fields, customer_id)
    except (UnreadableBody, MissingRequiredFields, Forbidden) as error:
        return _refused(number, line, error, transaction_id=_transaction_id_in(fields))


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


def _refused(number: int, line: bytes, error: Rejection, *, transaction_id: str | None) -> BulkLine:
    detail = error.detail.replace("The body", "The line")
    return BulkLine(number, sha256(line).digest(), None, error.code, detail, transaction_id)


def _transaction_id_in(fields: bytes) -> str | None:
    """The transaction_id of a line that is no payment, to find it by; None where it is not sure."""
    if fields.count(_TRANSACTION_ID) != 1:
        return None
    try:
        return msgspec.json.decode(fields, type=_Named).transaction_id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _as_it_is(line: bytes) -> bytes:
    return line
