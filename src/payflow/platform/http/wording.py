"""What a client should send instead, in plain words: the validator speaks of its own types and its reader's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_KINDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "datetime": "an instant",
}
_EXPECTED: Final = re.compile(r"Expected `(?P<kinds>[^`]+)`(?P<bound> .*?)?(?:, got `(?P<got>[^`]+)`)?", re.DOTALL)
_LENGTH: Final = re.compile(r" of length (?P<sign>[<>]=?|==) (?P<count>\d+)")
_RANGE: Final = re.compile(r" (?P<sign>[<>]=?) (?P<value>-?[\d.]+)")
_PATTERN: Final = re.compile(r" matching regex '(?P<pattern>.*)'", re.DOTALL)
_MISSING: Final = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)
_ENDS: Final = re.compile(r"^\^|\$(?:\(\?!\\n\))?$")
_ID: Final = "letters, digits and {signs}, with a letter or digit first"
# What the patterns of fields ask for; whoever sends a text reads no regular expressions.
_FORMS: Final = {
    r"[A-Za-z0-9._:-]+": "letters, digits and . _ : -",
    r"[A-Za-z0-9][A-Za-z0-9._:-]*": _ID.format(signs=". _ : -"),
    r"[A-Za-z0-9][A-Za-z0-9._-]*": _ID.format(signs=". _ -"),
    r"[A-Za-z0-9][A-Za-z0-9._@+-]*": _ID.format(signs=". _ @ + -"),
    r"[!-~]+": "letters, digits and signs of ASCII, without spaces",
    # An account at another bank.
    r"([!-~]{1,34}|[A-Z]{2}[0-9]{2}(( [A-Z0-9]{4}){2,6} [A-Z0-9]{3}|( [A-Z0-9]{4}){2,7}( [A-Z0-9]{1,2})?))": (
        "at most 34 letters, digits and signs of ASCII without spaces, or an IBAN in groups of four such as"
        " DE08 9901 0010 0000 0010 01"
    ),
    r"[A-Z]{2}": "2 capital letters",
    r"[A-Z]{3}": "3 capital letters",
    r"[A-Z0-9]{8}([A-Z0-9]{3})?": "8 or 11 capital letters and digits",
    r"[^\x00-\x1f\x7f]*": "printable characters, without line breaks",
    r"[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*": "printable characters, without line breaks and not blank",
    r"[!-?A-~]+@[!-?A-~]+": "the form name@example.org",
    r"\+?[0-9][0-9 ()./-]{3,30}": "digits, spaces and ( ) . / - such as +31 20 555 0100",
}
_SIGNS: Final = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than", "==": "exactly"}
_FIXED: Final = {
    "Invalid UUID": "send a UUID",
    "Invalid RFC3339 encoded datetime": "send an instant such as 2026-03-02T12:00:00Z",
    "Invalid RFC3339 encoded date": "send a day such as 2026-03-02",
    "Number out of range": "send a smaller number",
}


def advice(problem: str, *, choices: Sequence[str] = ()) -> str:
    """A validator's message as what to send: "Expected `int` >= 1" is "send a whole number of at least 1".

    `choices` are the values that can be chosen, where they are known. The value that was sent is never repeated.
    """
    if problem.startswith("Invalid enum value"):
        return f"send one of {', '.join(choices)}" if choices else "send one of the values that are documented"
    if problem in _FIXED:
        return _FIXED[problem]
    if missing := _MISSING.fullmatch(problem):
        return f"the field {missing['name']} is missing"
    expected = _EXPECTED.fullmatch(problem)
    if expected is None:
        return problem[:1].lower() + problem[1:]
    kinds = [_KINDS.get(kind, kind) for kind in expected["kinds"].split(" | ")]
    got = f", not {_KINDS.get(expected['got'], expected['got'])}" if expected["got"] else ""
    return f"send {' or '.join(kinds)}{_bound(expected['bound'] or '', kinds[0])}{got}"


def _bound(text: str, kind: str) -> str:
    if length := _LENGTH.fullmatch(text):
        unit = "character" if kind == _KINDS["str"] else "item"
        plural = "" if length["count"] == "1" else "s"
        return f" of {_SIGNS[length['sign']]} {length['count']} {unit}{plural}"
    if limit := _RANGE.fullmatch(text):
        return f" of {_SIGNS[limit['sign']]} {limit['value']}"
    if form := _PATTERN.fullmatch(text):
        return f" of {_form(form['pattern'])}"
    if text == " with a timezone component":
        return " with its time zone, such as 2026-03-02T12:00:00Z"
    return text


def _form(pattern: str) -> str:
    """A pattern in words; `pattern` as the validator quotes it, with its backslashes doubled."""
    return _FORMS.get(_ENDS.sub("", pattern.replace("\\\\", "\\")), "the form that is documented")
