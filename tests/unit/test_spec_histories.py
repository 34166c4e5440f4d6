"""Recorded payments as shapes, and those that are wrong before any model is asked. Needs no Java."""

from __future__ import annotations

import msgspec
import pytest

from payflow_dev.spec import tlc
from payflow_dev.spec.histories import (
    TOKEN_MAX,
    History,
    Move,
    check_histories,
    gap_of,
    judge_histories,
    module_of,
    shape_of,
)
from tests.builders import NOON
from tests.builders_spec import a_history


def moves(*steps: tuple[int, str | None, str]) -> list[Move]:
    return [Move(version=version, source=source, target=target, at=NOON) for version, source, target in steps]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ((), "confirm does not know"),
        (((1, None, "RECEIVED"), (3, "RECEIVED", "APPROVED")), "Step 2 is missing"),
        (((1, None, "RECEIVED"), (1, None, "RECEIVED")), "Step 2 is missing or there twice"),
        (((1, None, "RECEIVED"), (2, "APPROVED", "COMPLETED")), "leaves APPROVED, but the payment was RECEIVED"),
        (((1, "RECEIVED", "APPROVED"),), "leaves RECEIVED, but the payment was None"),
    ],
)
def test_moves_that_are_no_chain_are_refused_without_asking_the_model(
    steps: tuple[tuple[int, str | None, str], ...], words: str
) -> None:
    broken = History(payment_id="p", is_on_us=True, moves=moves(*steps))

    (violation,) = judge_histories([broken])

    assert words in (gap_of(broken) or "")
    assert words in violation.what
    assert violation.payment_ids == ["p"]


def test_a_chain_has_no_gap_in_whatever_order_it_was_written() -> None:
    whole = a_history("RECEIVED APPROVED COMPLETED", effects=1)

    assert gap_of(whole) is None
    assert gap_of(msgspec.structs.replace(whole, moves=whole.moves[::-1])) is None


def test_payments_that_differ_in_ids_and_instants_only_have_one_shape() -> None:
    one, other = (a_history("RECEIVED APPROVED COMPLETED", effects=1) for _ in range(2))
    later = [msgspec.structs.replace(move, at=NOON) for move in other.moves]

    assert shape_of(one) == shape_of(msgspec.structs.replace(other, moves=later))
    assert shape_of(one) != shape_of(a_history("RECEIVED APPROVED COMPLETED"))


def test_more_take_overs_than_the_model_plays_count_as_many() -> None:
    assert shape_of(a_history("RECEIVED", token=TOKEN_MAX + 5)).token == TOKEN_MAX


def test_a_shape_is_written_as_the_model_reads_it() -> None:
    held = a_history("RECEIVED UNDER_REVIEW CANCELLED", is_for_later=True, hold="RELEASED", refused=["book", "hold"])

    text = module_of([shape_of(held)])

    assert (
        '[later |-> TRUE, states |-> <<"RECEIVED", "UNDER_REVIEW", "CANCELLED">>, effects |-> 0, hold |-> "released", '
        'noBook |-> TRUE, noHold |-> TRUE, inst |-> "none", tok |-> 1]'
    ) in text


def test_a_shape_tells_people_what_was_recorded() -> None:
    words = shape_of(a_history("RECEIVED APPROVED COMPLETED", is_on_us=False, effects=1, hold="CAPTURED")).words()

    assert words.startswith("inter-bank: RECEIVED > APPROVED > COMPLETED (entries: 1, hold: captured, refused: nothing")


def test_without_java_a_check_says_so_instead_of_passing(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file = tmp_path / "payments.jsonl"
    file.write_bytes(msgspec.json.encode(a_history("RECEIVED APPROVED COMPLETED", effects=1)) + b"\n")

    with pytest.raises(tlc.ToolMissing, match="java is not installed"):
        check_histories(file)


def test_a_line_that_is_no_history_is_refused(tmp_path) -> None:
    file = tmp_path / "payments.jsonl"
    file.write_text("{}\n")

    with pytest.raises(msgspec.DecodeError):
        check_histories(file)
