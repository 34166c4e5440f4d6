"""JSON Schemas of bodies and answers, from the types that read and write them."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from payflow.services.gateway.routes.documented import OneOf
from payflow.services.gateway.routes.openapi.operations import plain_text

_REF: Final = "#/components/schemas/{name}"
# In Python `$` also fits before a line break at the end, in JSON Schema's regular expressions it does not.
_PYTHON_END: Final = r"$(?!\n)"
_AMOUNT_PATTERN: Final = r"^(0|[1-9][0-9]*)(\.[0-9]+)?$"
# Fields that are read and written as the exact text of a JSON number: msgspec has no schema for them.
_EXACT_NUMBERS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("ConfirmBody", "amount"): {
        "description": "At most the currency's decimals, no sign, exponent or blank; greater than zero. Read exactly.",
        "oneOf": [
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "string", "maxLength": 40, "pattern": _AMOUNT_PATTERN},
        ],
        "examples": [1000.00, "1000.00"],
    },
    ("PaymentSucceeded", "amount"): {
        "description": "A number with exactly the currency's decimals.",
        "type": "number",
        "exclusiveMinimum": 0,
    },
}
# Fields that are left out where they would say nothing.
_LEFT_OUT_AT_TIMES: Final = frozenset({("PaymentPending", "execute_at")})


class Schemas:
    """Gathers the schemas of types; `components` are those with a name."""

    def __init__(self) -> None:
        self.components: dict[str, Any] = {}

    def of(self, kind: Any) -> dict[str, Any]:
        """The schema of a type or OneOf, referring to `components`. Raises ValueError when two types have one name."""
        if isinstance(kind, OneOf):
            schema = {"oneOf": [self.of(one) for one in kind.kinds]}
            return {"type": "array", "items": schema} if kind.is_many else schema
        (schema,), components = msgspec.json.schema_components([kind], ref_template=_REF)
        for name, component in components.items():
            tidy = _tidied(name, component)
            if self.components.setdefault(name, tidy) != tidy:
                raise ValueError(f"two types of the public API have the name {name}")
        return self.tidy(schema)

    def tidy(self, schema: dict[str, Any]) -> dict[str, Any]:
        """A schema as it is shown: descriptions as flowing text, patterns as JSON Schema writes them."""
        tidy: dict[str, Any] = _tidy(schema)
        return tidy


def _tidied(name: str, component: dict[str, Any]) -> dict[str, Any]:
    tidy: dict[str, Any] = _tidy(component)
    if "properties" in tidy and tidy.get("additionalProperties") is not False:
        # An answer has all its fields, those with a default too.
        tidy["required"] = [field for field in tidy["properties"] if (name, field) not in _LEFT_OUT_AT_TIMES]
    for field in tidy.get("properties", {}):
        exact = _EXACT_NUMBERS.get((name, field))
        if exact is not None:
            tidy["properties"][field] = exact
    return tidy


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tidy_member(key, member) for key, member in value.items()}
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    return value


def _tidy_member(key: str, member: Any) -> Any:
    if key == "description" and isinstance(member, str):
        return plain_text(member)
    if key == "pattern" and isinstance(member, str):
        return member.replace(_PYTHON_END, "$")
    return _tidy(member)
