"""How a contract's operation is declared: every operation takes a list and answers a list of the same length.

An item of the answer is a result or a PayflowError; one bad item never fails its neighbours.
"""

from __future__ import annotations

import typing
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from payflow.kernel.errors import PayflowError

T = TypeVar("T")
Answers: TypeAlias = list[T | PayflowError]

Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])

_ATTRIBUTE: Final = "__payflow_operation__"


class OperationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the transport must know of an operation.

    `callers`: the services that may call it. `repeatable`: whether sending it again is safe (every command carries its
    own operation id, so most are). `timeout_s`: the longest a call may take. `calls_in_flight`: batches under way per
    client; a low number makes larger batches. `batch_max`: the most items in one call. `tells`: the fields of an answer
    that a trace may show: decisions and ids, never anything of a person. `keeps`: values of such fields for which the
    trace is recorded whatever was sampled.
    """

    callers: frozenset[str]
    repeatable: bool
    timeout_s: float
    calls_in_flight: int
    batch_max: int
    tells: tuple[str, ...] = ()
    keeps: Mapping[str, frozenset[Any]] | None = None


class OperationSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An operation as read from a contract's Protocol: its name, the types of an item and of an answer, its options."""

    service: str
    name: str
    item: Any
    answer: Any
    options: OperationOptions


def operation(
    *,
    callers: set[str],
    repeatable: bool = True,
    timeout_s: float = 5.0,
    calls_in_flight: int = 2,
    batch_max: int = 500,
    tells: tuple[str, ...] = (),
    keeps: Mapping[str, frozenset[Any]] | None = None,
) -> Callable[[Method], Method]:
    """Mark a method of a contract's Protocol as an operation of that service."""
    options = OperationOptions(
        callers=frozenset(callers),
        repeatable=repeatable,
        timeout_s=timeout_s,
        calls_in_flight=calls_in_flight,
        batch_max=batch_max,
        tells=tells,
        keeps=keeps,
    )

    def mark(method: Method) -> Method:
        setattr(method, _ATTRIBUTE, options)
        return method

    return mark


def operations_of(contract: type[Any]) -> dict[str, OperationSpec]:
    """The operations of a contract, by name.

    Raises TypeError when a method does not have the shape `(self, items: list[Item]) -> Answers[Answer]`.
    """
    specs: dict[str, OperationSpec] = {}
    for name, method in vars(contract).items():
        options = getattr(method, _ATTRIBUTE, None)
        if options is None:
            continue
        hints = typing.get_type_hints(method)
        answers = hints.pop("return")
        if len(hints) != 1 or typing.get_origin(answers) is not list:
            raise TypeError(f"{contract.__name__}.{name} must take one list and return Answers[...]")
        (item_list,) = hints.values()
        (item,) = typing.get_args(item_list)
        (union,) = typing.get_args(answers)
        (answer,) = [part for part in typing.get_args(union) if part is not PayflowError]
        specs[name] = OperationSpec(service=contract.service, name=name, item=item, answer=answer, options=options)
    return specs
