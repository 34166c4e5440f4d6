"""What a client is told to send: every message of the validator has its plain words."""

from __future__ import annotations

import datetime
import enum
import uuid
from typing import Annotated, Any

import msgspec
import pytest

from payflow.platform.http.wording import advice


class Colour(enum.Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int


AtLeastTwo = Annotated[str, msgspec.Meta(min_length=2)]
AtMostOne = Annotated[list[int], msgspec.Meta(max_length=1)]
Code = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
TransactionId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._:-]+$(?!\n)")]
Reason = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$(?!\n)")]
Odd = Annotated[str, msgspec.Meta(pattern="^a+$")]
Instant = Annotated[datetime.datetime, msgspec.Meta(tz=True)]
CASES = [
    (int, '"x"', "send a whole number, not a text"),
    (int, "1.5", "send a whole number, not a number"),
    (int | None, '"x"', "send a whole number or null, not a text"),
    (str, "null", "send a text, not null"),
    (bool, "1", "send true or false, not a whole number"),
    (list[int], "{}", "send a list, not an object"),
    (Annotated[int, msgspec.Meta(ge=1)], "0", "send a whole number of at least 1"),
    (Annotated[int, msgspec.Meta(le=200)], "201", "send a whole number of at most 200"),
    (Annotated[float, msgspec.Meta(gt=0)], "-1", "send a number of more than 0.0"),
    (AtLeastTwo, '"a"', "send a text of at least 2 characters"),
    (AtMostOne, "[1, 2]", "send a list of at most 1 item"),
    (Code, '"usd"', "send a text of 3 capital letters"),
    (TransactionId, '"a b"', "send a text of letters, digits and . _ : -"),
    (Reason, '" "', "send a text of printable characters, without line breaks and not blank"),
    (Odd, '"b"', "send a text of the form that is documented"),
    (Instant, '"2026-03-02T12:00:00"', "send an instant with its time zone, such as 2026-03-02T12:00:00Z"),
    (Instant, '"noon"', "send an instant such as 2026-03-02T12:00:00Z"),
    (datetime.date, '"today"', "send a day such as 2026-03-02"),
    (uuid.UUID, '"x"', "send a UUID"),
    (Point, "{}", "the field x is missing"),
    (Colour, '"4929123"', "send one of the values that are documented"),
]


@pytest.mark.parametrize(("wanted", "sent", "words"), CASES)
def test_what_the_validator_says_becomes_what_to_send(wanted: Any, sent: str, words: str) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(sent, type=wanted)

    assert advice(str(refused.value)) == words


def test_the_values_that_can_be_chosen_are_named_where_they_are_known() -> None:
    assert advice("Invalid enum value 'blue'", choices=["red", "green"]) == "send one of red, green"


def test_a_message_that_is_not_known_is_passed_on() -> None:
    assert advice("Something new") == "something new"
