"""What the wire carries: every message of every contract comes out as it went in, and nothing else is accepted."""

from __future__ import annotations

import importlib
import pkgutil
import types
import typing
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payflow import contracts
from payflow.contracts.account import AccountList, InsufficientFunds, ListAccounts
from payflow.contracts.operation import Answers, OperationSpec, operation, operations_of
from payflow.kernel.errors import (
    Conflict,
    DeadlineExceeded,
    Overloaded,
    PayflowError,
    Rejection,
    Unavailable,
    UnknownOutcome,
)
from payflow.platform.rpc.wire import Codec, WireError


def all_operations() -> dict[str, OperationSpec]:
    """Every operation of every contract."""
    found = {}
    for module in pkgutil.iter_modules(contracts.__path__):
        for member in vars(importlib.import_module(f"{contracts.__name__}.{module.name}")).values():
            if isinstance(member, type) and isinstance(getattr(member, "service", None), str):
                for spec in operations_of(member).values():
                    found[f"{spec.service}.{spec.name}"] = spec
    return found


OPERATIONS = all_operations()

_texts = st.text(max_size=12)
_integers = st.integers(-(2**63), 2**63 - 1)
_instants = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_json = st.recursive(
    st.none() | st.booleans() | _integers | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)
_scalars: dict[Any, st.SearchStrategy[Any]] = {
    str: _texts,
    int: _integers,
    bool: st.booleans(),
    float: st.floats(allow_nan=False),
    bytes: st.binary(max_size=20),
    UUID: st.uuids(),
    datetime: _instants,
    date: st.dates(),
    Decimal: st.decimals(allow_nan=False, allow_infinity=False),
    type(None): st.none(),
    Any: _json,
}


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    """Valid values of a type that occurs in contracts."""
    if kind in _scalars:
        return _scalars[kind]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return values_of(arguments[0]).filter(lambda value: _is_valid(value, kind))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(values_of(argument) for argument in arguments))
    if origin is list:
        return st.lists(values_of(arguments[0]), max_size=3)
    if origin in (set, frozenset):
        return st.frozensets(values_of(arguments[0]), max_size=3).map(origin)
    if origin is tuple:
        return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
    if origin is dict:
        return st.dictionaries(values_of(arguments[0]), values_of(arguments[1]), max_size=3)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = typing.get_type_hints(kind, include_extras=True)
        return st.builds(kind, **{name: values_of(hints[name]) for name in kind.__struct_fields__})
    raise TypeError(f"no values for {kind}")


def _is_valid(value: Any, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


_extras = st.dictionaries(_texts, _json, max_size=2)
_errors = st.one_of(
    st.builds(lambda detail, extra: _with_extra(Rejection(detail), extra), _texts, _extras),
    st.builds(lambda detail, extra: _with_extra(Conflict(detail), extra), _texts, _extras),
    st.builds(UnknownOutcome, _texts),
    st.builds(lambda detail, after: Unavailable(detail, retry_after_s=after), _texts, st.integers(1, 60)),
    st.builds(InsufficientFunds, _texts),
)


def _with_extra(error: PayflowError, extra: dict[str, Any]) -> PayflowError:
    error.extra = extra
    return error


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_items_and_answers_come_out_as_they_went_in(name: str) -> None:
    spec = OPERATIONS[name]
    codec = Codec(spec)

    @given(
        items=st.lists(values_of(spec.item), max_size=3),
        answers=st.lists(values_of(spec.answer) | _errors, max_size=3),
    )
    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    def check(items: list[Any], answers: list[Any]) -> None:
        assert codec.decode_items(codec.encode_items(items)) == items
        assert codec.decode_answers(codec.encode_answers(answers), len(answers)) == answers

    check()


def test_every_service_has_operations_and_each_names_its_callers() -> None:
    services = {spec.service for spec in OPERATIONS.values()}

    assert services == {
        "gateway",
        "confirm",
        "risk",
        "notification",
        "otp",
        "account",
        "audit",
        "ofac",
        "kyc",
        "partner_bank",
    }
    assert all(spec.options.callers for spec in OPERATIONS.values())


LIST_ACCOUNTS = Codec(OPERATIONS["account.list_accounts"])


@pytest.mark.parametrize(
    "error",
    [
        InsufficientFunds("12.00 EUR are available.", available_minor=1200),
        Overloaded("full", retry_after_s=3),
        DeadlineExceeded("late"),
        UnknownOutcome("silent"),
    ],
)
def test_an_error_keeps_its_class_code_detail_and_members(error: PayflowError) -> None:
    (decoded,) = LIST_ACCOUNTS.decode_answers(LIST_ACCOUNTS.encode_answers([error]), 1)

    assert decoded == error
    assert type(decoded) is type(error)


def test_an_error_whose_class_is_not_known_here_keeps_its_family_and_code() -> None:
    body = msgspec.msgpack.encode([[1, "conflict", "SOMETHING_NEW", "said elsewhere", {"since": 3}]])

    (decoded,) = LIST_ACCOUNTS.decode_answers(body, 1)

    assert isinstance(decoded, Conflict)
    assert (decoded.code, decoded.detail, decoded.extra) == ("SOMETHING_NEW", "said elsewhere", {"since": 3})
    assert Conflict.code != "SOMETHING_NEW"


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_answer_for_each_item_or_none_is_believed(count: int) -> None:
    body = LIST_ACCOUNTS.encode_answers([AccountList(accounts=[])] * 2)

    with pytest.raises(WireError, match=f"2 answers to {count} items"):
        LIST_ACCOUNTS.decode_answers(body, count)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"<html>",
        msgspec.msgpack.encode({"accounts": []}),
        msgspec.msgpack.encode([[0, {"accounts": "none"}]]),
        msgspec.msgpack.encode([[2, {}]]),
        msgspec.msgpack.encode([[1, "no_such_family", "CODE", "", {}]]),
        msgspec.msgpack.encode([[1, "rejection"]]),
        msgspec.msgpack.encode([[0, {"accounts": []}]]) + b"\x00",
    ],
)
def test_answers_that_are_not_of_the_contract_are_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        LIST_ACCOUNTS.decode_answers(body, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xff",
        msgspec.msgpack.encode("text"),
        msgspec.msgpack.encode([{}]),
        msgspec.msgpack.encode([{"customer_id": 7}]),
        LIST_ACCOUNTS.encode_items([ListAccounts(customer_id="a")])[:-1],
    ],
)
def test_items_that_are_not_of_the_contract_are_refused(body: bytes) -> None:
    with pytest.raises(WireError, match=r"account\.list_accounts"):
        LIST_ACCOUNTS.decode_items(body)


def test_a_field_that_a_newer_caller_sends_is_passed_over() -> None:
    body = msgspec.msgpack.encode([{"customer_id": "a", "colour": "blue"}])

    assert LIST_ACCOUNTS.decode_items(body) == [ListAccounts(customer_id="a")]


def test_an_operation_of_another_shape_cannot_be_declared() -> None:
    class OneByOne:
        service = "crooked"

        @operation(callers={"gateway"})
        async def search(self, query: ListAccounts) -> AccountList: ...

    class TwoLists:
        service = "crooked"

        @operation(callers={"gateway"})
        async def search(self, queries: list[ListAccounts], more: list[ListAccounts]) -> Answers[AccountList]: ...

    for contract in (OneByOne, TwoLists):
        with pytest.raises(TypeError, match="must take one list"):
            operations_of(contract)
