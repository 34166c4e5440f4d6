"""Reading a file of payments: its lines are those that were written, however its bytes arrive, or none is."""

from __future__ import annotations

import csv
import io
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.contracts.bulk import BulkLine, FileFormat
from payflow.platform.http.errors import MissingRequiredFields, UnreadableBody
from payflow.services.gateway.routes.bulk_csv import UnreadableFile
from payflow.services.gateway.routes.bulk_lines import LINE_MAX_BYTES, FileReader, LineSplitter, json_reader
from tests.fakes_gateway import a_payment_body

CUSTOMER = "cust_001"
COLUMNS = ("transaction_id", "amount", "from_account", "to_account", "creditor_name", "remittance_information")
HEADER = ",".join(COLUMNS).encode()
GOOD = b"a-1,1.00,ACC001,ACC002,,"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# What some reader somewhere takes for the end of a line, a cell or a text.
SPECIAL = '"",\n\r\x00\x0b\x0c\x1c\x85\u2028\ufeff\\\'; \tab'


def read(pieces: list[bytes], *, format: FileFormat = FileFormat.CSV, **more: Any) -> list[BulkLine]:
    """All lines of a file that arrives in these pieces."""
    reader = FileReader(format=format, customer_id=CUSTOMER, **more)
    found = [line for piece in pieces for line in reader.feed(piece)]
    return [*found, *reader.finish()]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def told(lines: list[BulkLine]) -> list[tuple[Any, str | None]]:
    """What is done about lines: the payment, or why there is none. Where they stand in the file is left out."""
    return [(line.payment, line.error_code) for line in lines]


def as_json(row: dict[str, str]) -> BulkLine:
    fields: dict[str, Any] = {name: cell for name, cell in row.items() if cell}
    if "creditor_name" in fields:
        fields["creditor"] = {"name": fields.pop("creditor_name")}
    return json_reader(CUSTOMER)(1, json.dumps(fields).encode())


cells = st.text(st.sampled_from(SPECIAL), max_size=6)
rows = st.builds(
    lambda number, amount, name, remittance: (f"a-{number}", amount, "ACC001", "ACC002", name, remittance),
    st.integers(0, 99),
    st.one_of(st.just("1.00"), cells),
    cells,
    # A whole line of a file is what would hurt most as a line of its own.
    st.one_of(cells, st.builds("{}\na-evil,77.00,ACC001,ACC002,,{}".format, cells, cells)),
)


@given(
    table=st.lists(rows, max_size=4),
    dialect=st.sampled_from(["excel", "unix", "excel with CR"]),
    has_mark=st.booleans(),
    is_ended=st.booleans(),
    places=st.lists(st.integers(0, 2000), max_size=8),
)
def test_a_table_is_read_as_it_was_written_or_not_at_all(
    table: list[tuple[str, ...]], dialect: str, has_mark: bool, is_ended: bool, places: list[int]
) -> None:
    text = io.StringIO()
    ending = {"excel": "\r\n", "unix": "\n", "excel with CR": "\r"}[dialect]
    writer = csv.writer(text, dialect=dialect.split()[0], lineterminator=ending)
    writer.writerows([COLUMNS, *table])
    data = BYTE_ORDER_MARK * has_mark + (text.getvalue() if is_ended else text.getvalue().removesuffix(ending)).encode()

    try:
        found = read(cut(data, places))
    except (UnreadableFile, MissingRequiredFields):
        cells_of_all = "".join(itertools.chain.from_iterable(table))
        assert dialect == "excel with CR" or set(cells_of_all) & set("\r\n")
        return

    assert told(found) == told([as_json(dict(zip(COLUMNS, row, strict=True))) for row in table])


@given(
    texts=st.lists(st.one_of(cells, st.builds('{}\n{{"transaction_id":"a-evil"}}'.format, cells)), max_size=4),
    is_ascii=st.booleans(),
    ending=st.sampled_from(["\n", "\r\n"]),
    places=st.lists(st.integers(0, 2000), max_size=8),
)
def test_json_lines_are_read_as_they_were_written(
    texts: list[str], is_ascii: bool, ending: str, places: list[int]
) -> None:
    bodies = [
        a_payment_body(transaction_id=f"a-{number}", remittance_information=text) for number, text in enumerate(texts)
    ]
    lines = [json.dumps(body, ensure_ascii=is_ascii) for body in bodies]

    found = read(cut(ending.join(lines).encode(), places), format=FileFormat.JSON_LINES)

    assert told(found) == told([json_reader(CUSTOMER)(1, json.dumps(body).encode()) for body in bodies])


def test_a_line_break_in_a_text_of_json_makes_no_payment_of_what_follows() -> None:
    inner = json.dumps(json.dumps(a_payment_body(transaction_id="a-evil")))[1:-1]
    outer = json.dumps(a_payment_body(remittance_information="x")).replace('"x"', f'"x\n{inner}\n"')

    found = read([outer.encode()], format=FileFormat.JSON_LINES)

    assert {line.error_code for line in found} == {"MALFORMED_REQUEST"}
    assert len(found) == 3


OPEN = "ends inside a quoted cell. Line breaks in cells are not taken: remove them"
RETURN = "has a carriage return that ends no line. Line breaks in cells are not taken: remove them"
QUOTE = "has a quote inside a cell, or text behind a closing quote: put quotes around the whole cell, and double each"
LONG = "is longer than 64 KB, so that its quotes cannot be told: shorten it"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'a-2,1.00,ACC001,ACC002,,"hello\n' + GOOD, OPEN),
        (b'a-2,1.00,ACC001,ACC002,,"hello\r\n' + GOOD, OPEN),
        (b'a-2,1.00,ACC001,ACC002,,"hello\n\n' + GOOD, OPEN),
        (b'a-2,1.00,ACC001,ACC002,,"hello', OPEN),
        (b'a-2,1.00,ACC001,ACC002,,"', OPEN),
        (b'a-2,1.00,ACC001,ACC002,"""Ada"" Byron,', OPEN),
        (b'a-2,1.00,ACC001,ACC002,,"\xff\n' + GOOD, OPEN),
        (b'a-2,1.00,"ACC001,\n' + GOOD, OPEN),
        (b'a-2,1.00,ACC001,ACC002,,"hello\rworld"', RETURN),
        (b"a-2,1.00,ACC001,ACC002,,hello\r" + GOOD, RETURN),
        (b"a-2,1.00,ACC001,ACC002,,hello\r\r\n", RETURN),
        (b'a-2,1.00,ACC001,ACC002,,5" pipe\n' + GOOD, QUOTE),
        (b'a-2,1.00,ACC001,ACC002,, "hello\n' + GOOD, QUOTE),
        (b'a-2,1.00,ACC001,ACC002,,"hello" world', QUOTE),
        (b'a-2,1.00,ACC001,ACC002,,"she said "hello"\n' + GOOD, QUOTE),
        (b'a-2,1.00,ACC001,ACC002,,"say \\"hello\n' + GOOD, QUOTE),
        (b'a-2,1.00,ACC001,ACC002,,\xff"hello\n' + GOOD, QUOTE),
        (b'a-2,1.00,ACC001,ACC002,,"' + b"x" * LINE_MAX_BYTES + b"\n" + GOOD, LONG),
        (b"a-2,1.00,ACC001,ACC002,," + b"x" * LINE_MAX_BYTES + b'"\n' + GOOD, LONG),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_a_line_whose_end_readers_could_see_elsewhere_refuses_the_file(line: bytes, words: str, step: int) -> None:
    data = HEADER + b"\n" + GOOD + b"\n" + line + b"\n" + GOOD

    with pytest.raises(UnreadableFile) as refused:
        read([data[start : start + step] for start in range(0, len(data), step)])

    assert (refused.value.code, refused.value.extra) == ("MALFORMED_REQUEST", {"line": 3})
    assert refused.value.detail.startswith(f"Line 3 {words}")
    assert refused.value.detail.endswith("send the file again under the same key.")


@pytest.mark.parametrize(
    "header",
    [
        b'"' + HEADER,
        b'"transaction_id\n",amount,from_account,to_account',
        HEADER.replace(b"amount", b'am"ount'),
        HEADER.replace(b"amount", b"amount\r"),
        HEADER + b"," + b"x" * LINE_MAX_BYTES,
    ],
)
def test_a_header_line_is_read_as_strictly(header: bytes) -> None:
    with pytest.raises(UnreadableFile) as refused:
        read([b"\n" + header + b"\n" + GOOD])

    assert refused.value.extra == {"line": 2}


def test_a_header_line_may_have_quotes_and_a_byte_order_mark() -> None:
    header = ",".join(f'"{column}"' for column in COLUMNS).encode()

    found = read([BYTE_ORDER_MARK[:1], BYTE_ORDER_MARK[1:] + header + b"\r\n" + GOOD])

    assert [(line.line, line.error_code) for line in found] == [(2, None)]


def test_a_byte_order_mark_is_nothing_at_the_beginning_and_something_everywhere_else() -> None:
    line = json.dumps(a_payment_body()).encode()
    marked = BYTE_ORDER_MARK + line

    found = read([marked + b"\n" + marked], format=FileFormat.JSON_LINES)
    (resumed,) = read([marked], format=FileFormat.JSON_LINES, first_line=7)

    assert found[0] == json_reader(CUSTOMER)(1, line)
    assert [found[1].error_code, resumed.error_code] == ["MALFORMED_REQUEST"] * 2


@pytest.mark.parametrize("text", [b"a\x00b", b"a\x0bb", b"\xff", b"a\x1bb"])
def test_a_text_that_no_payment_takes_is_refused_alone(text: bytes) -> None:
    found = read([HEADER + b"\n" + GOOD + text + b"\n" + GOOD])

    assert [line.error_code for line in found] == ["MALFORMED_REQUEST", None]


def test_quotes_are_told_in_one_pass_over_the_line() -> None:
    """A pattern that goes back and forth would take hours for the first of these."""
    for cell in (b'"' + b'""' * 30_000, b'"' + b'"","' * 15_000 + b"x"):
        with pytest.raises(UnreadableFile):
            read([HEADER + b"\n" + cell])


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_lines_are_the_same_however_they_are_cut(step: int) -> None:
    text = b"a\r\n\n  \nbb\n" + b"x" * 10 + b"\nlast"
    splitter = LineSplitter()

    found = [line for start in range(0, len(text), step) for line in splitter.feed(text[start : start + step])]
    found += splitter.finish()

    assert found == [(1, b"a"), (4, b"bb"), (5, b"x" * 10), (6, b"last")]


def test_a_line_without_end_takes_no_more_memory_than_its_bound() -> None:
    splitter = LineSplitter(7)

    found = [line for _ in range(100) for line in splitter.feed(b"x" * 10_000)]
    found += splitter.feed(b"\nnext\n")

    assert [(number, len(line)) for number, line in found] == [(7, LINE_MAX_BYTES + 1), (8, 4)]


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("start", [b"", BYTE_ORDER_MARK])
@pytest.mark.parametrize("end", [b"\r", b"x"])
def test_a_line_that_was_cut_off_is_never_taken_for_a_whole_one(number: int, start: bytes, end: bytes) -> None:
    splitter = LineSplitter(number)

    ((_, line),) = splitter.feed((start + b"x" * LINE_MAX_BYTES)[:LINE_MAX_BYTES] + end + b"more\n")

    assert len(line) > LINE_MAX_BYTES


def test_json_and_csv_lines_of_one_payment_are_one_payment() -> None:
    body = {"transaction_id": "a-1", "amount": "1.00", "from_account": "ACC001", "to_account": "ACC002"}

    assert read([HEADER + b"\n" + GOOD], first_line=1) == [json_reader(CUSTOMER)(2, json.dumps(body).encode())]


def test_the_rest_of_a_file_is_read_by_the_columns_that_its_beginning_had() -> None:
    reader = FileReader(format=FileFormat.CSV, customer_id=CUSTOMER, first_line=9)
    reader.use_columns(list(COLUMNS))

    found = [*reader.feed(GOOD), *reader.finish()]

    assert [(line.line, line.error_code) for line in found] == [(9, None)]


def test_a_header_line_without_a_column_that_must_be_is_refused() -> None:
    with pytest.raises(MissingRequiredFields):
        read([b"amount\n1.00"])
    with pytest.raises(UnreadableBody):
        read([HEADER + b",surprise\n"])


def test_text_of_a_quoted_cell_is_no_payment_behind_more_blanks_than_a_line_may_have_either() -> None:
    blanks = b" " * (LINE_MAX_BYTES + 1)
    opens, text, closes = blanks + b',"\n', GOOD + b"\n", blanks + b'",a,b,c\n'

    with pytest.raises(UnreadableFile) as refused:
        read([HEADER + b"\n" + opens + text + closes], format=FileFormat.CSV)

    assert refused.value.extra["line"] == 2


def test_a_json_line_of_more_blanks_than_a_line_may_have_is_refused_and_not_left_out() -> None:
    (line,) = read([b" " * (LINE_MAX_BYTES + 1) + b"{}\n"], format=FileFormat.JSON_LINES)

    assert (line.line, line.payment) == (1, None)
    assert line.error_code is not None
