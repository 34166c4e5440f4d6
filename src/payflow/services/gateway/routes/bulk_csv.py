"""CSV as RFC 4180 says, with one restriction: a cell holds no line break, so that a record is one line of the file.

Quotes are looked at before anything else. Where a reader could see a cell go on that ours sees closed, text of that
cell would be a line of its own, and would be paid: so such a file is refused as a whole, and not its line alone.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from typing import Final

from payflow.platform.http.asgi import BODY_MAX_BYTES
from payflow.platform.http.errors import MissingRequiredFields, UnreadableBody
from payflow.services.gateway.routes.payment_confirm import REQUIRED_FIELDS

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
_CREDITOR: Final = "creditor_"
# Possessive, so that no line is gone over twice. Bytes: in UTF-8 a quote is a quote wherever it stands, and a line
# that is no UTF-8 must not hide one.
_CELL: Final = rb'(?:"(?:[^"]|"")*+"|[^",]*+)'
_WHOLE_CELLS: Final = re.compile(rb"%b(?:,%b)*+" % (_CELL, _CELL))
_OPEN_CELL: Final = re.compile(rb'(?:%b,)*+"(?:[^"]|"")*+' % _CELL)
_NO_LINE_BREAKS: Final = "Line breaks in cells are not taken: remove them"


class UnreadableFile(UnreadableBody):
    """Where the records of the file begin and end cannot be told for sure from `line` on; nothing of it is taken."""

    def __init__(self, problem: str, *, line: int) -> None:
        super().__init__(f"Line {line} {problem} and send the file again under the same key.", line=line)


def refuse_unsure(number: int, line: bytes) -> None:
    """Raises UnreadableFile for a line whose end another reader could see elsewhere."""
    if len(line) > LINE_MAX_BYTES:
        raise UnreadableFile(
            f"is longer than {LINE_MAX_BYTES // 1024} KB, so that its quotes cannot be told: shorten it", line=number
        )
    if b"\r" in line:
        raise UnreadableFile(f"has a carriage return that ends no line. {_NO_LINE_BREAKS}", line=number)
    if b'"' not in line or _WHOLE_CELLS.fullmatch(line):
        return
    if _OPEN_CELL.fullmatch(line):
        raise UnreadableFile(f"ends inside a quoted cell. {_NO_LINE_BREAKS}", line=number)
    raise UnreadableFile(
        "has a quote inside a cell, or text behind a closing quote: put quotes around the whole cell, and double each"
        " quote in it,",
        line=number,
    )


def refuse_json(number: int, line: bytes) -> None:
    """Raises UnreadableFile where a file begins as JSON does: its quotes are right, and its media type is wrong."""
    if line.lstrip().startswith(b"{"):
        raise UnreadableFile(
            "looks like JSON and not like the header line of a CSV file: send Content-Type: application/x-ndjson",
            line=number,
        )


def read_columns(line: bytes) -> list[str]:
    """The header line. Raises UnreadableBody, and MissingRequiredFields for columns that must be."""
    columns = [cell.strip() for cell in _cells(line)]
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown:
        raise UnreadableBody(f"The header line has the column {_shown(unknown[0])}; known are: {', '.join(COLUMNS)}.")
    if len(set(columns)) != len(columns):
        raise UnreadableBody("The header line names a column twice.")
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise MissingRequiredFields(f"The header line lacks columns: {', '.join(missing)}.", missing_fields=missing)
    return columns


def read_fields(columns: Sequence[str], line: bytes) -> dict[str, object]:
    """A line as the fields of a payment; an empty cell is a field that is left out. Raises UnreadableBody."""
    cells = _cells(line)
    if len(cells) != len(columns):
        raise UnreadableBody(f"The line has {len(cells)} cells, and the header line {len(columns)}.")
    given = {column: cell for column, cell in zip(columns, cells, strict=True) if cell != ""}
    creditor = {name.removeprefix(_CREDITOR): cell for name, cell in given.items() if name.startswith(_CREDITOR)}
    fields: dict[str, object] = {name: cell for name, cell in given.items() if not name.startswith(_CREDITOR)}
    if creditor:
        fields["creditor"] = creditor
    return fields


def _cells(line: bytes) -> list[str]:
    """The cells of a line whose quotes are sure (see refuse_unsure)."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableBody("The line is not valid UTF-8.") from None
    (cells,) = csv.reader([text], strict=True)
    return cells


def _shown(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name[:40]) or '""'
