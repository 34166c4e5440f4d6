"""The strict reader of public bodies, with json.loads as oracle."""

from __future__ import annotations

import enum
import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payflow.kernel.errors import PayflowError
from payflow.platform.http.errors import MissingRequiredFields, UnreadableBody
from payflow.platform.http.strict_json import NumberText, StrictReader


class Creditor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    agent: str | None = None


class Payment(msgspec.Struct, forbid_unknown_fields=True):
    transaction_id: str
    amount: NumberText
    to_account: str
    otp: str | None = None
    creditor: Creditor | None = None


class Page(msgspec.Struct, forbid_unknown_fields=True):
    limit: int
    tags: list[str] = []
    extra: dict[str, Any] = {}


class Limit(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    ceiling: NumberText = "0"


class Limits(msgspec.Struct, forbid_unknown_fields=True):
    limit: Limit
    note: str = ""


class Loose(msgspec.Struct):
    name: str


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


Many = enum.Enum("Many", [(f"M{number}", f"m{number}") for number in range(21)])


class Size(msgspec.Struct, forbid_unknown_fields=True):
    size: Literal["s", "l"]


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    colour: Colour | None = None
    many: Many | None = None
    colours: list[Colour] = []
    sizes: dict[str, list[Size]] = {}


class HasLoose(msgspec.Struct, forbid_unknown_fields=True):
    items: list[Loose]


class HasFloat(msgspec.Struct, forbid_unknown_fields=True):
    rate: Annotated[float, msgspec.Meta(gt=0)]


class HasRawList(msgspec.Struct, forbid_unknown_fields=True):
    amounts: list[msgspec.Raw]


REQUIRED = ("transaction_id", "amount", "to_account")
PAYMENTS = StrictReader(Payment, required=REQUIRED)
PAGES = StrictReader(Page)
GOOD = '{"transaction_id":"txn_1","amount":1000.00,"to_account":"ACC002"}'


def refusal(body: bytes | str, reader: StrictReader[Any] = PAYMENTS) -> PayflowError:
    with pytest.raises(PayflowError) as caught:
        reader.read(body.encode() if isinstance(body, str) else body)
    return caught.value


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ("1000.00", "1000.00"),
        ('"1000.00"', "1000.00"),
        ("0.1", "0.1"),
        ("1000", "1000"),
        ("1e3", "1e3"),
        ("-5", "-5"),
        ("0.10000000000000000000000000000001", "0.10000000000000000000000000000001"),
        ('"\\u0031.50"', "1.50"),
        ('"٣"', "٣"),
        ('" 1"', " 1"),
    ],
)
def test_a_number_is_returned_as_its_exact_source_text(sent: str, text: str) -> None:
    payment = PAYMENTS.read(GOOD.replace("1000.00", sent).encode())

    assert payment.amount == text
    assert type(payment.amount) is str


def test_nested_numbers_and_absent_ones_are_text_too() -> None:
    reader = StrictReader(Limits)

    read = reader.read(b'{"limit":{"id":"a","ceiling":10.50}}')
    defaulted = reader.read(b'{"limit":{"id":"a"}}')

    assert read.limit.ceiling == "10.50"
    assert defaulted.limit.ceiling == "0"


@pytest.mark.parametrize("value", ["true", "null", "[1]", "{}", '{"amount":1}', "1" * 41, '"' + "1" * 41 + '"'])
def test_an_amount_of_another_type_or_without_end_is_refused(value: str) -> None:
    error = refusal(GOOD.replace("1000.00", value))

    assert error.code in {"MALFORMED_REQUEST", "MISSING_REQUIRED_FIELDS"}
    assert "amount" in error.detail


@pytest.mark.parametrize(
    "body",
    [
        '{"transaction_id":"a","amount":1,"to_account":"b","amount":2}',
        '{"transaction_id":"a","amount":1,"to_account":"b","\\u0061mount":2}',
        '{"transaction_id":"a","amount":1,"to_account":"b","amoun\\u0074":1}',
        '{"transaction_id":"a","amount":1,"to_account":"b","creditor":{"name":"x","name":"y"}}',
        '{"transaction_id":"a","amount":1,"to_account":"b","creditor":{"name":"x"},"creditor":null}',
        '{"amount":1,"transaction_id":"a","to_account":"transaction_id","transaction_id":"c"}',
        '{"transaction_id":"a","amount":1,"to_account":"b","otp":":\\"","otp":"1"}',
    ],
)
def test_a_name_that_stands_twice_is_refused_and_named(body: str) -> None:
    error = refusal(body)

    assert isinstance(error, UnreadableBody)
    assert "twice" in error.detail
    assert error.extra["field"] in {"amount", "name", "creditor", "transaction_id", "otp"}


def test_equal_values_and_values_that_look_like_names_are_no_doubles() -> None:
    body = b'{"transaction_id":"amount","amount":"amount","to_account":"amount","creditor":{"name":"amount"}}'

    payment = PAYMENTS.read(body)

    assert payment.transaction_id == payment.amount == payment.to_account == "amount"


def test_all_missing_fields_are_told_at_once_and_null_and_empty_are_missing() -> None:
    nothing = refusal("{}")
    some = refusal('{"transaction_id":null,"amount":"","to_account":"ACC002"}')
    empty = refusal('{"transaction_id":"","amount":5,"to_account":"ACC002"}')

    assert isinstance(nothing, MissingRequiredFields)
    assert nothing.extra["missing_fields"] == list(REQUIRED)
    assert some.extra["missing_fields"] == ["transaction_id", "amount"]
    assert empty.extra["missing_fields"] == ["transaction_id"]


def test_an_unknown_field_is_refused_by_its_printable_name() -> None:
    top = refusal(GOOD.replace("}", ',"colour\\n":1}'))
    inside = refusal(GOOD.replace("}", ',"creditor":{"name":"x","iban":"y"}}'))

    assert top.detail == "The field colour? is not known here; leave it out."
    assert inside.detail == "The field iban in creditor is not known here; leave it out."
    assert inside.extra["field"] == "creditor.iban"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ('{"colour":"blue"}', "colour: send one of red, green."),
        ('{"colours":["red","blue"]}', "colours[1]: send one of red, green."),
        ('{"sizes":{"a":[{"size":"s"},{"size":"m"}]}}', "sizes[...][1].size: send one of l, s."),
        # Too many to be told in a sentence.
        ('{"many":"x"}', "many: send one of the values that are documented."),
    ],
)
def test_a_value_that_is_none_of_a_few_is_refused_with_those_few(body: str, detail: str) -> None:
    assert refusal(body, StrictReader(Choice)).detail == detail


def test_a_wrong_type_names_the_field_and_never_repeats_the_value() -> None:
    error = refusal(GOOD.replace("}", ',"creditor":{"name":4929123}}'))

    assert error.detail == "creditor.name: send a text, not a whole number."
    assert "4929" not in str(error.extra)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  \n",
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.encode("utf-16"),
        b"[" + GOOD.encode() + b"]",
        b'"text"',
        b"null",
        GOOD.encode() + b"x",
        GOOD.encode() + b"\0",
        GOOD.encode() + GOOD.encode(),
        GOOD.encode()[:-1],
        GOOD.replace("}", ",}").encode(),
        GOOD.replace("1000.00", "NaN").encode(),
        GOOD.replace("1000.00", "Infinity").encode(),
        GOOD.replace("1000.00", "01").encode(),
        GOOD.replace("1000.00", "1.").encode(),
        GOOD.replace("1000.00", "+1").encode(),
        GOOD.replace("1000.00", "1_000").encode(),
        GOOD.replace("txn_1", "a\nb").encode(),
        GOOD.replace("txn_1", "a\\u0000b").encode(),
        GOOD.replace("txn_1", "\\ud800").encode(),
        GOOD.replace("1000.00", '"\\u0000"').encode(),
        GOOD.encode().replace(b"txn_1", b"\xff"),
        GOOD.encode().replace(b"txn_1", b"\xc0\xaf"),
        GOOD.encode().replace(b"1000.00", b'"\xed\xa0\x80"'),
        GOOD.replace('"', "'").encode(),
        GOOD.replace("1000.00", "[" * 60_000).encode(),
        b'{"a":' * 10_000,
        GOOD.replace("{", "{/* note */").encode(),
    ],
)
def test_what_is_not_one_plain_json_object_is_refused(body: bytes) -> None:
    error = refusal(body)

    assert error.code == "MALFORMED_REQUEST"
    assert error.detail.isprintable()


@pytest.mark.parametrize(
    "body",
    [
        '{"limit":9223372036854775808}',
        '{"limit":' + "9" * 5000 + "}",
        '{"limit":1,"tags":["a\\u0000"]}',
        '{"limit":1,"extra":{"a\\u0000":1}}',
        '{"limit":1,"extra":{"a":' + "[" * 40 + "]" * 40 + "}}",
        '{"limit":1,"extra":{"a":1,"a":2}}',
        '{"limit":1,"extra":{"b":[{"a":1,"a":2}]}}',
        '{"limit":1.5}',
        '{"limit":true}',
        '{"limit":"1"}',
    ],
)
def test_open_containers_are_bounded_in_depth_numbers_names_and_characters(body: str) -> None:
    error = refusal(body, PAGES)

    assert error.code == "MALFORMED_REQUEST"


def test_open_containers_within_bounds_are_read() -> None:
    page = PAGES.read(b'{"limit":50,"tags":["a","a"],"extra":{"a":{"a":[1,true,null,"x"]}}}')

    assert page == Page(limit=50, tags=["a", "a"], extra={"a": {"a": [1, True, None, "x"]}})


def test_types_that_cannot_be_read_strictly_are_refused_when_the_reader_is_made() -> None:
    for struct_type in (Loose, HasLoose, HasFloat, HasRawList):
        with pytest.raises(TypeError):
            StrictReader(struct_type)


class _Doubled(Exception):
    pass


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise _Doubled
    return dict(pairs)


NAMES = st.sampled_from(["transaction_id", "amount", "to_account", "otp", "name", "agent", "creditor"])
TEXTS = st.one_of(NAMES, st.text(max_size=8), st.sampled_from(['"', ":", '":', "\\", ',"amount":', "é", "\U0001f4b6"]))
NUMBERS = st.sampled_from(["1000.00", "0", "1e3", "-1", "12"])
SPACES = st.sampled_from(["", " ", "\n", "\t"])


def _spelt(text: str, escaped: bool) -> str:
    return json.dumps(text, ensure_ascii=escaped)


def _member(draw: st.DrawFn, name: str, depth: int) -> str:
    spelt = _spelt(name, True)
    if draw(st.integers(0, 9)) == 0:
        spelt = f'"\\u{ord(name[0]):04x}{name[1:]}"'
    if name == "amount":
        value = draw(NUMBERS)
    elif name == "creditor" and depth:
        value = draw(objects(names=("name",), depth=0))
    else:
        value = _spelt(draw(TEXTS), draw(st.booleans()))
    return spelt + draw(SPACES) + ":" + draw(SPACES) + value


@st.composite
def objects(draw: st.DrawFn, names: tuple[str, ...] = REQUIRED, depth: int = 1) -> str:
    """Objects with the given names and perhaps others, in any order and spelling, now and then doubled."""
    more = (
        draw(st.lists(NAMES, max_size=2)) if depth else draw(st.lists(st.sampled_from(["name", "agent"]), max_size=1))
    )
    order = draw(st.permutations([*names, *more]))
    return "{" + ("," + draw(SPACES)).join(_member(draw, name, depth) for name in order) + "}"


@given(objects())
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=300, deadline=None)
def test_what_is_read_is_what_an_ordinary_parser_reads_and_doubled_names_never_pass(text: str) -> None:
    body = text.encode("utf-8", "surrogatepass")

    read, error = _read(body)

    if error is not None:
        refusal_is_true = {
            "twice": _is_doubled(body),
            "missing": any(not json.loads(body).get(name) for name in REQUIRED),
            "not known": bool({"name", "agent"} & json.loads(body).keys()),
            "NUL": "\\u0000" in text,
            "expected": True,
        }
        assert any(word in error.detail and is_true for word, is_true in refusal_is_true.items()), error.detail
        return
    assert read is not None
    expected = json.loads(body, object_pairs_hook=_distinct, parse_float=str, parse_int=str)
    creditor = expected.get("creditor")
    assert read.transaction_id == expected["transaction_id"]
    assert read.amount == expected["amount"]
    assert read.otp == expected.get("otp")
    assert (read.creditor is None) == (creditor is None)
    assert read.creditor is None or read.creditor.name == creditor["name"]


def _read(body: bytes) -> tuple[Payment | None, PayflowError | None]:
    try:
        return PAYMENTS.read(body), None
    except PayflowError as error:
        return None, error


def _is_doubled(body: bytes) -> bool:
    try:
        json.loads(body, object_pairs_hook=_distinct)
    except _Doubled:
        return True
    return False


@given(
    transaction_id=st.text(min_size=1).filter(lambda text: "\0" not in text),
    name=st.text().filter(lambda text: "\0" not in text),
    escaped=st.booleans(),
)
def test_every_text_without_nul_is_accepted_unchanged(transaction_id: str, name: str, escaped: bool) -> None:
    document = {"transaction_id": transaction_id, "amount": "1", "to_account": "a", "creditor": {"name": name}}
    body = json.dumps(document, ensure_ascii=escaped).encode()

    read = PAYMENTS.read(body)

    assert read.creditor is not None
    assert (read.transaction_id, read.creditor.name) == (transaction_id, name)


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_with_one_of_two_codes(body: bytes) -> None:
    _, error = _read(body)

    assert error is not None
    assert error.code in {"MALFORMED_REQUEST", "MISSING_REQUIRED_FIELDS"}
