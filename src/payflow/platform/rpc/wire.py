"""MessagePack on the wire: a request is a list of items, an answer a list of [0, value] or [1, family, code, ...]."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

from payflow.contracts.operation import OperationSpec
from payflow.kernel.errors import PayflowError, error_from_parts

T = TypeVar("T")


class _Ok(msgspec.Struct, Generic[T], frozen=True, array_like=True, tag=0):
    value: T


class _Err(msgspec.Struct, frozen=True, array_like=True, tag=1):
    family: str
    code: str
    detail: str
    extra: dict[str, Any]


_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")


class WireError(Exception):
    """The other side sent something that is not of the operation's types."""


class Codec:
    """Encodes and decodes one operation's items and answers, checked against the contract's types."""

    def __init__(self, spec: OperationSpec) -> None:
        self.spec = spec
        # The types are values here, read from the contract; a checker cannot know them.
        self._items = msgspec.msgpack.Decoder(list[spec.item])  # type: ignore[name-defined]
        self._answers = msgspec.msgpack.Decoder(list[_Ok[spec.answer] | _Err])  # type: ignore[name-defined]

    def encode_items(self, items: list[Any]) -> bytes:
        """A list of items as the request's body."""
        return _encoder.encode(items)

    def decode_items(self, body: bytes) -> list[Any]:
        """The request's items. Raises WireError."""
        try:
            return list(self._items.decode(body))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise WireError(f"{self.spec.service}.{self.spec.name}: {error}") from error

    def encode_answers(self, answers: list[Any]) -> bytes:
        """A list of results and errors as the answer's body."""
        return _encoder.encode([_as_wire(answer) for answer in answers])

    def decode_answers(self, body: bytes, expected: int) -> list[Any]:
        """The results and errors of an answer. Raises WireError also when their number differs from the items'."""
        try:
            answers = self._answers.decode(body)
            decoded = [_from_wire(answer) for answer in answers]
        except (msgspec.DecodeError, msgspec.ValidationError, LookupError) as error:
            raise WireError(f"{self.spec.service}.{self.spec.name}: {error}") from error
        if len(decoded) != expected:
            raise WireError(f"{self.spec.service}.{self.spec.name}: {len(decoded)} answers to {expected} items")
        return decoded


def _as_wire(answer: Any) -> _Ok[Any] | _Err:
    if isinstance(answer, PayflowError):
        return _Err(answer.family, answer.code, answer.detail, answer.extra)
    return _Ok(answer)


def _from_wire(answer: _Ok[Any] | _Err) -> Any:
    if isinstance(answer, _Err):
        return error_from_parts(family=answer.family, code=answer.code, detail=answer.detail, extra=answer.extra)
    return answer.value
