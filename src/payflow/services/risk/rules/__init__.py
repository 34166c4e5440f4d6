"""The rules as data (TOML), and the pure function that turns facts into points."""

from __future__ import annotations

import tomllib
from importlib import resources

import msgspec

from payflow.services.risk.domain import RuleSet


def read_rules(text: str) -> RuleSet:
    """Read a rule set from TOML. Raises ValueError naming what is missing, unknown or contradictory."""
    try:
        return msgspec.convert(tomllib.loads(text), RuleSet)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ValueError(str(error)) from None


def default_rules() -> RuleSet:
    """The rule set that comes with this release."""
    return read_rules(resources.files(__name__).joinpath("default.toml").read_text(encoding="utf-8"))
