"""Bulk loading: what a file may say, and what is refused with its line."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from payflow.run.errors import StartError
from payflow.run.records import CustomerRecord, Record, read_records, rereadable
from tests.builders_loading import CSV, EVERY_KIND, JSON_LINES, written


def records_in(path: Path) -> list[Record]:
    return [placed.record for placed in read_records(path)]


@pytest.mark.parametrize(("name", "text"), [("x.csv", CSV), ("x.CSV", CSV), ("x.jsonl", JSON_LINES), ("x", JSON_LINES)])
def test_a_file_is_csv_by_its_name_and_else_json_lines(tmp_path: Path, name: str, text: str) -> None:
    assert records_in(written(tmp_path, name, text)) == EVERY_KIND


@pytest.mark.parametrize(("name", "text"), [("x.csv", CSV), ("x.jsonl", JSON_LINES)])
def test_files_from_windows_are_read(tmp_path: Path, name: str, text: str) -> None:
    windows = "\N{BYTE ORDER MARK}" + text.replace("\n", "\r\n")

    assert records_in(written(tmp_path, name, windows)) == EVERY_KIND


def test_a_quoted_field_may_hold_a_comma_and_a_line_break(tmp_path: Path) -> None:
    path = written(tmp_path, "x.csv", 'type,customer_id,name\ncustomer,c1,"Lovelace, Ada\nCountess"\n')

    assert records_in(path) == [CustomerRecord(customer_id="c1", name="Lovelace, Ada\nCountess")]


def test_a_name_may_hold_any_letter_that_unicode_calls_a_line_break(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", '{"type":"customer","customer_id":"c1","name":"Ada\u2028Lovelace"}\n')

    assert records_in(path) == [CustomerRecord(customer_id="c1", name="Ada\u2028Lovelace")]


HEAD = "type,customer_id,name\n"

BAD_LINES = [
    ("x.jsonl", '{"type":"customer","customer_id":"c1","name":"A"}\n{"type":"cust\n', 2, ""),
    ("x.jsonl", "\n\n[]\n", 3, ""),
    ("x.jsonl", '{"customer_id":"c1","name":"A"}\n', 1, "type"),
    ("x.jsonl", '{"type":"client","customer_id":"c1"}\n', 1, "client"),
    ("x.jsonl", '{"type":"customer","customer_id":"c1"}\n', 1, "name"),
    ("x.jsonl", '{"type":"customer","customer_id":"c1","name":"A","nmae":"B"}\n', 1, "nmae"),
    ("x.jsonl", '{"type":"account","number":"A","customer_id":"c","currency":"USD","opening_balance":1.5}\n', 1, ""),
    ("x.jsonl", '{"type":"user","username":"a","role":"king"}\n', 1, "king"),
    ("x.csv", HEAD + "customer,c1,Ada\nclient,c2,Bob\n", 3, "client"),
    ("x.csv", HEAD + "customer,c1\n", 2, "name"),
    ("x.csv", HEAD + "customer,c1,Ada,too much\n", 2, "more fields"),
    ("x.csv", HEAD + 'customer,c1,"Ada\nLovelace"\ncustomer,c2\n', 4, "name"),
    ("x.csv", "type,customer_id,nmae\ncustomer,c1,Ada\n", 2, ""),
    ("x.csv", HEAD + "customer,c1," + "x" * 200_000 + "\n", 2, ""),
]


@pytest.mark.parametrize(("name", "text", "line", "word"), BAD_LINES)
def test_the_first_line_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, text: str, line: int, word: str
) -> None:
    path = written(tmp_path, name, text)

    with pytest.raises(StartError) as told:
        records_in(path)

    assert told.value.message.startswith(f"{path}, line {line}: ")
    assert word in told.value.message
    assert "\n" not in told.value.message


def test_a_line_that_cannot_be_read_does_not_show_a_password(tmp_path: Path) -> None:
    path = written(tmp_path, "x.jsonl", '{"type":"user","username":"a","password":"hunter2hunter2","rol":"admin"}\n')

    with pytest.raises(StartError) as told:
        records_in(path)

    assert "hunter2" not in told.value.message


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"\xff\xfe", "is not UTF-8 text")])
def test_a_file_that_cannot_be_read_is_told_in_a_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(StartError, match=words):
        records_in(path)


def test_a_pipe_can_be_read_as_often_as_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "x.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(CSV,))
    writer.start()

    with rereadable(pipe) as path:
        both = [records_in(path), records_in(path)]
    writer.join()

    assert both == [EVERY_KIND, EVERY_KIND]
    assert not path.exists()
