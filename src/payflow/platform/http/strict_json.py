"""Reading a public request body: one JSON object, taken exactly or refused.

msgspec decodes and checks the types. It silently keeps the last of doubled names, and other readers keep the first:
a body that two systems read differently is refused here, and so is everything else that readers disagree on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeAlias, TypeVar

import msgspec
from msgspec import inspect

from payflow.platform.http.choices import choices_at
from payflow.platform.http.errors import MissingRequiredFields, UnreadableBody
from payflow.platform.http.wording import advice

if TYPE_CHECKING:
    NumberText: TypeAlias = str
else:
    # The type of a field that is a JSON number or a JSON string and is returned as its exact source text, so that
    # 1000.00 stays "1000.00". Decoded as Raw; `StrictReader.read` puts the text in its place.
    NumberText = msgspec.Raw

DEPTH_MAX: Final = 16
NUMBER_LENGTH_MAX: Final = 40
_INT64_MAX: Final = 2**63 - 1
_DETAIL_NAME_MAX: Final = 40
_BACKSLASH: Final = b"\\"
_WHERE: Final = re.compile(r"(?P<what>.*?)(?: - at `(?P<where>[^`]*)`)?", re.DOTALL)
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)

S = TypeVar("S", bound=msgspec.Struct)


class StrictReader(Generic[S]):
    """Reads bodies into one Struct type.

    The Struct and those inside it must forbid unknown fields. `required` are the names, as on the wire, whose absence
    is told all at once; they must be fields of the Struct that have no default. Raises TypeError for a type that
    cannot be read strictly: a float or Decimal anywhere, Raw other than NumberText, unknown fields not forbidden.
    """

    def __init__(self, struct_type: type[S], *, required: Iterable[str] = (), depth_max: int = DEPTH_MAX) -> None:
        self._type = struct_type
        self._decoder: msgspec.json.Decoder[S] = msgspec.json.Decoder(struct_type)
        self._depth_max = depth_max
        shape = _Shape(struct_type)
        self._number_fields = tuple(shape.number_fields)
        # Only names and strings, at a depth that the type itself bounds: nothing to look at beyond the text.
        self._is_plain = shape.is_plain
        self._required = tuple(required)
        attributes = [shape.attribute_of[name] for name in self._required]
        self._required_values: Callable[[S], Any] | None = None
        if attributes:
            # Two names at least make attrgetter answer a tuple.
            self._required_values = attrgetter(*attributes, attributes[0])

    def read(self, body: bytes) -> S:
        """The body as the Struct, NumberText fields as the text that was sent.

        Raises UnreadableBody for anything but one UTF-8 JSON object with known, undoubled names and fitting types, and
        MissingRequiredFields when that is all that is wrong with it: absent, null and "" are missing.
        """
        try:
            value = self._decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
            self._refuse(body, error)
        for path, name in self._number_fields:
            _replace_raw(value, path, name)
        if not self._is_told_apart_at_a_glance(body):
            _check_names(body)
            _check_values(msgspec.to_builtins(value, enc_hook=str), self._depth_max)
        if self._required_values is not None and "" in self._required_values(value):
            self._refuse_missing(_check_names(body))
        return value

    def _is_told_apart_at_a_glance(self, body: bytes) -> bool:
        """Whether the text alone shows that nothing is doubled and no character hidden; False means: look closer.

        Without a backslash every second part between quotes is a name or a string, and where all of them differ no
        name is doubled. This costs a quarter of parsing again, and most bodies are like this.
        """
        if not self._is_plain or _BACKSLASH in body:
            return False
        texts = body.split(b'"')[1::2]
        return len(texts) == len(set(texts))

    def _refuse(self, body: bytes, error: Exception) -> NoReturn:
        """Say what is wrong with a body that did not decode, the most basic thing first."""
        if not body.strip(b" \t\r\n"):
            raise UnreadableBody("The body is empty; send a JSON object.") from None
        if not isinstance(error, msgspec.ValidationError):
            raise UnreadableBody(_syntax_detail(body, error)) from None
        document = _check_names(body)
        if not isinstance(document, dict):
            raise UnreadableBody("The body must be one JSON object.") from None
        self._refuse_missing(document)
        raise UnreadableBody(_validation_detail(str(error), self._type), **_field_of(str(error))) from None

    def _refuse_missing(self, document: dict[str, Any]) -> None:
        missing = [name for name in self._required if document.get(name) in (None, "")]
        if missing:
            raise MissingRequiredFields(missing_fields=missing) from None


class _Shape:
    """What a Struct type asks of its reader."""

    def __init__(self, struct_type: type[msgspec.Struct]) -> None:
        self.number_fields: list[tuple[tuple[str, ...], str]] = []
        self.is_plain = True
        self.attribute_of: dict[str, str] = {}
        root = inspect.type_info(struct_type)
        assert isinstance(root, inspect.StructType)
        self.attribute_of = {field.encode_name: field.name for field in root.fields}
        self._visit_struct(root, ())

    def _visit_struct(self, struct: inspect.StructType, path: tuple[str, ...]) -> None:
        if not struct.forbid_unknown_fields:
            raise TypeError(f"{struct.cls.__name__} must forbid unknown fields")
        for field in struct.fields:
            for kind in field.type.types if isinstance(field.type, inspect.UnionType) else (field.type,):
                self._visit_field(kind, struct, path, field.name)

    def _visit_field(self, kind: inspect.Type, owner: inspect.StructType, path: tuple[str, ...], name: str) -> None:
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        if isinstance(kind, inspect.RawType):
            self.number_fields.append((path, name))
        elif isinstance(kind, inspect.StructType):
            self._visit_struct(kind, (*path, name))
        elif not isinstance(kind, _PLAIN_TYPES):
            self.is_plain = False
            _refuse_loose_types(kind, f"{owner.cls.__name__}.{name}")


_PLAIN_TYPES: Final = (inspect.StrType, inspect.NoneType, inspect.BoolType, inspect.EnumType, inspect.LiteralType)


def _refuse_loose_types(kind: Any, where: str) -> None:
    """Raises TypeError for a float, Decimal or Raw anywhere inside a type, or a Struct that takes unknown fields."""
    if isinstance(kind, inspect.FloatType | inspect.DecimalType | inspect.RawType):
        raise TypeError(f"{where}: {type(kind).__name__} cannot be read exactly here; use NumberText in a Struct")
    if isinstance(kind, inspect.StructType):
        if not kind.forbid_unknown_fields:
            raise TypeError(f"{where}: {kind.cls.__name__} must forbid unknown fields")
        for field in kind.fields:
            _refuse_loose_types(field.type, f"{kind.cls.__name__}.{field.name}")
        return
    for attribute in ("item_type", "key_type", "value_type", "type"):
        inner = getattr(kind, attribute, None)
        if isinstance(inner, inspect.Type):
            _refuse_loose_types(inner, where)
    for inner in (*getattr(kind, "types", ()), *(getattr(kind, "item_types", None) or ())):
        _refuse_loose_types(inner, where)


def _replace_raw(value: Any, path: tuple[str, ...], name: str) -> None:
    """Put the text of a NumberText field in the place of its Raw."""
    for step in path:
        value = getattr(value, step)
        if not isinstance(value, msgspec.Struct):
            return
    raw = getattr(value, name)
    if not isinstance(raw, msgspec.Raw):
        return  # absent: the field's default
    msgspec.structs.force_setattr(value, name, _number_text(bytes(raw), ".".join((*path, name))))


def _number_text(raw: bytes, where: str) -> str:
    """The text of a JSON number or string, as it was sent. Whether it is an amount is for Money to say."""
    first = raw[:1]
    if first == b'"':
        try:
            text = msgspec.json.decode(raw, type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise UnreadableBody(f"{where}: the text is not valid UTF-8.", field=where) from None
    elif first in b"-0123456789":
        text = raw.decode("ascii")
    else:
        raise UnreadableBody(f"{where}: send a number such as 1000.00, or the same as a string.", field=where)
    if len(text) > NUMBER_LENGTH_MAX:
        raise UnreadableBody(f"{where}: more than {NUMBER_LENGTH_MAX} characters.", field=where)
    return text


def _check_names(body: bytes) -> dict[str, Any]:
    """The document, numbers as text; raises UnreadableBody where a name stands twice in one object, at any level."""
    try:
        document: dict[str, Any] = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object_of_distinct_names,
            parse_int=str,
            parse_float=str,
            parse_constant=_refuse_constant,
        )
    except UnicodeDecodeError:
        raise UnreadableBody("The body is not valid UTF-8.") from None
    except RecursionError:
        raise UnreadableBody("The body is nested too deeply.") from None
    except ValueError:
        raise UnreadableBody("The body is not valid JSON.") from None
    return document


def _object_of_distinct_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        doubled = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UnreadableBody(f"The field {_shown(doubled)} is there twice; send it once.", field=_shown(doubled))
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableBody(f"{name} is not JSON.")


def _check_values(value: Any, depth_left: int) -> None:
    """Raises UnreadableBody for a NUL character, an integer beyond 64 bits, or nesting beyond the bound."""
    if isinstance(value, str):
        if "\0" in value:
            raise UnreadableBody("A text contains a NUL character; leave it out.")
    elif isinstance(value, int):
        if not -_INT64_MAX <= value <= _INT64_MAX:
            raise UnreadableBody("A number is too large.")
    elif isinstance(value, dict | list):
        if not depth_left:
            raise UnreadableBody("The body is nested too deeply.")
        for item in value.items() if isinstance(value, dict) else ((None, item) for item in value):
            _check_values(item[0], depth_left)
            _check_values(item[1], depth_left - 1)


def _syntax_detail(body: bytes, error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "The body is not valid UTF-8."
    if isinstance(error, RecursionError):
        return "The body is nested too deeply."
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "The body begins with a byte order mark; send plain UTF-8."
    return f"The body is not valid JSON ({str(error).removeprefix('JSON is malformed: ')})."


def _validation_detail(message: str, body_type: type) -> str:
    """msgspec's message as a sentence that begins with the field: "creditor.name: send a text, not a whole number."."""
    match = _WHERE.fullmatch(message)
    assert match is not None
    what, where = match["what"], (match["where"] or "").removeprefix("$").removeprefix(".")
    unknown = _UNKNOWN_FIELD.fullmatch(what)
    if unknown is not None:
        inside = f" in {where}" if where else ""
        return f"The field {_shown(unknown[1])}{inside} is not known here; leave it out."
    wish = advice(what, choices=choices_at(body_type, match["where"] or ""))
    return f"{where}: {wish}." if where else f"{wish[0].upper()}{wish[1:]}."


def _field_of(message: str) -> dict[str, str]:
    match = _WHERE.fullmatch(message)
    assert match is not None
    where = (match["where"] or "").removeprefix("$").removeprefix(".")
    unknown = _UNKNOWN_FIELD.fullmatch(match["what"])
    if unknown is not None:
        where = f"{where}.{_shown(unknown[1])}" if where else _shown(unknown[1])
    return {"field": where} if where else {}


def _shown(name: str) -> str:
    """A name from the client, short and printable."""
    return "".join(character if character.isprintable() else "?" for character in name[:_DETAIL_NAME_MAX])
