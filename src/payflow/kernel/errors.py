"""The four families of errors. The family tells the caller what to do; the code tells the customer what happened.

Errors are values on Payflow's hops: an operation answers a list whose items are results or errors, and the
transport carries `family`, `code`, `detail` and `extra`. Anything outside the four families is a bug.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final


class PayflowError(Exception):
    """Base of the four families. `detail` is safe to show to the caller; `extra` becomes further JSON members."""

    family: ClassVar[str] = "bug"
    code: str = "INTERNAL_ERROR"

    def __init__(self, detail: str = "", **extra: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extra: dict[str, Any] = extra

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "code" in cls.__dict__:
            known = _BY_CODE.setdefault(cls.code, cls)
            if known is not cls and known.__qualname__ != cls.__qualname__:
                raise TypeError(f"error code {cls.code} belongs to {known.__name__}; {cls.__name__} needs another")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PayflowError):
            return NotImplemented
        return (self.family, self.code, self.detail, self.extra) == (
            other.family,
            other.code,
            other.detail,
            other.extra,
        )

    def __hash__(self) -> int:
        return hash((self.family, self.code, self.detail))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code}, {self.detail!r})"


_BY_CODE: dict[str, type[PayflowError]] = {}


class Rejection(PayflowError):
    """Understood and refused, final: tell the customer."""

    family = "rejection"


class Conflict(PayflowError):
    """Contradicts what already happened: read, then decide."""

    family = "conflict"


class Unavailable(PayflowError):
    """Nothing happened: retry with the same idempotency key. `retry_after_s` says when, where it is known."""

    family = "unavailable"
    code = "SERVICE_UNAVAILABLE"

    def __init__(self, detail: str = "", *, retry_after_s: int = 1, **extra: Any) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **extra)


class UnknownOutcome(PayflowError):
    """Sent, and no answer came: enquire; never send again under a new id."""

    family = "unknown_outcome"
    code = "UNKNOWN_OUTCOME"


class Overloaded(Unavailable):
    """A bounded queue is full; refused before any work was done."""

    code = "OVERLOADED"


class DeadlineExceeded(Unavailable):
    """The deadline passed before the work was begun; nothing happened."""

    code = "DEADLINE_EXCEEDED"


_FAMILIES: Final[dict[str, type[PayflowError]]] = {
    family.family: family for family in (Rejection, Conflict, Unavailable, UnknownOutcome)
}


def known_error_codes() -> dict[str, type[PayflowError]]:
    """Every code that a loaded class carries; `contracts/problems.py` must have a row for each."""
    return dict(_BY_CODE)


def error_from_parts(*, family: str, code: str, detail: str, extra: dict[str, Any]) -> PayflowError:
    """Rebuild an error that came over the wire: its own class where it is known, else its family with that code.

    Raises LookupError for a family that does not exist: the peer is broken, and guessing what to do would be wrong.
    """
    kind = _BY_CODE.get(code) or _FAMILIES[family]
    error = kind.__new__(kind)
    Exception.__init__(error, detail)
    error.detail, error.extra = detail, dict(extra)
    if error.code != code:
        error.code = code
    return error
