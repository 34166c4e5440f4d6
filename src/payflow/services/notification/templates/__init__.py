"""The texts of messages: a folder per language, a file per kind, with the blocks `subject`, `short` and `body`.

Jinja2 in its sandbox: a file may name the values of its kind and the filters `money`, `number`, `time` and `date`,
which write as the language does (CLDR, by Babel), and nothing else. What a customer chose is never read as a template.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_skeleton, get_timezone_name
from babel.numbers import NumberPattern, format_decimal, parse_pattern
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from payflow.kernel.money import Money, decimals_of
from payflow.services.notification.domain import DEFAULT_LANGUAGE, VALUES_OF, Kind, Texts, Value

_BLOCKS: Final = ("subject", "short", "body")
# Not in the alphabet of plain SMS (GSM 7 bit): one such character more than doubles what a message costs.
_PLAIN: Final = str.maketrans({"…": "...", "\u00a0": " ", "\u202f": " ", "–": "-", "—": "-", "“": '"', "”": '"'})
_EXAMPLES: Final[dict[str, Value]] = {
    "amount": Money(123_456, "EUR"),
    "expires": datetime(2026, 1, 31, 12, 5, tzinfo=UTC),
    "total": 5,
    "made": 1,
    "paid": (Money(123_456, "EUR"), Money(50, "USD")),
    "waiting": 1,
    "codes": 1,
    "unpaid": 2,
}


class FileTemplates:
    """See ports.Templates. `sources`: by language and kind. `time_zone`: an IANA name, which instants are told in.

    Raises ValueError for a language or zone that does not exist, and for a text that is missing or cannot be filled in.
    """

    def __init__(self, sources: Mapping[str, Mapping[Kind, str]], *, time_zone: str = "UTC") -> None:
        zone = read_zone(time_zone)
        self._texts: dict[str, dict[Kind, Template]] = {}
        for language, kinds in sources.items():
            missing = sorted(set(Kind) - kinds.keys())
            if missing:
                raise ValueError(f"language {language} has no text for {', '.join(missing)}")
            environment = _environment(language, zone)
            self._texts[language] = {
                kind: _compile(environment, kind, source, where=f"{language}/{kind}.txt")
                for kind, source in kinds.items()
            }

    @classmethod
    def load(cls, folder: str = "", *, time_zone: str = "UTC") -> FileTemplates:
        """Read the texts that come with the service, those in an own folder of the same shape in their place."""
        sources = _read_languages(resources.files(__name__))
        for language, kinds in _read_languages(Path(folder)).items() if folder else ():
            sources.setdefault(language, {}).update(kinds)
        return cls(sources, time_zone=time_zone)

    def languages(self) -> frozenset[str]:
        return frozenset(self._texts)

    def render(self, kind: Kind, language: str, values: Mapping[str, Value]) -> Texts:
        return _render(self._texts.get(language, self._texts[DEFAULT_LANGUAGE])[kind], values)


def check_folder(folder: str) -> None:
    """Raises ValueError where a folder of own texts cannot be used."""
    FileTemplates.load(folder)


def read_zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises ValueError."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {name!r}") from None


def _render(template: Template, values: Mapping[str, Value]) -> Texts:
    context = listed = template.new_context(dict(values))
    if "code" in values:
        # The subject is stored and listed: a code is no part of what it can name.
        listed = template.new_context({name: value for name, value in values.items() if name != "code"})
    subject, short = _block(template, "subject", listed), _block(template, "short", context).translate(_PLAIN)
    return Texts(" ".join(subject.split()), " ".join(short.split()), _block(template, "body", context).strip())


def _block(template: Template, name: str, context: Context) -> str:
    return "".join(template.blocks[name](context))


def _compile(environment: ImmutableSandboxedEnvironment, kind: Kind, source: str, *, where: str) -> Template:
    try:
        template = environment.from_string(source)
        lacking = [name for name in _BLOCKS if name not in template.blocks]
        if lacking:
            raise ValueError(f"{where}: there is no block {', '.join(lacking)}")
        # Filled in once with examples: what cannot be is found when the service starts, and not by a customer.
        _render(template, {name: _EXAMPLES.get(name, "x") for name in VALUES_OF[kind]})
    except (TemplateError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{where}: {error}") from None
    return template


def _environment(language: str, zone: ZoneInfo) -> ImmutableSandboxedEnvironment:
    try:
        locale = Locale.parse(language)
    except (UnknownLocaleError, ValueError):
        raise ValueError(f"language {language} is not known") from None

    # A message names its amount several times.
    @lru_cache(maxsize=256)
    def money(amount: Money | tuple[Money, ...] | str) -> str:
        if isinstance(amount, tuple):
            return ", ".join(_money(one, locale) for one in amount)
        return amount if isinstance(amount, str) else _money(amount, locale)

    def time(at: datetime) -> str:
        # Hours and minutes on 24 hours everywhere: short, and without the odd blanks of "12:05 PM".
        clock = format_skeleton("Hm", at.astimezone(zone), tzinfo=zone, locale=locale)
        return f"{clock} {get_timezone_name(at.astimezone(zone), width='short', locale=locale)}"

    # Plain text: nothing is escaped, and nothing that is written is read as markup.
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, loader=None)
    filters: dict[str, Any] = {
        "money": money,
        "number": lambda count: format_decimal(count, locale=locale),
        "time": time,
        "date": lambda at: format_date(at.astimezone(zone).date(), locale=locale),
    }
    environment.filters = filters
    environment.globals.clear()
    return environment


def _money(amount: Money, locale: Locale) -> str:
    """With exactly the currency's decimals by ISO 4217, grouped as the language does, and the code, for many currencies
    are called $."""
    decimals = decimals_of(amount.currency)
    value = Decimal(amount.minor_units).scaleb(-decimals)
    return f"{_pattern(decimals).apply(value, locale)} {amount.currency}"


@lru_cache
def _pattern(decimals: int) -> NumberPattern:
    # Parsed once: each payment's message has an amount.
    return parse_pattern("#,##0" + ("." + "0" * decimals if decimals else ""))


def _read_languages(place: Traversable) -> dict[str, dict[Kind, str]]:
    try:
        folders = [entry for entry in place.iterdir() if entry.is_dir() and entry.name.replace("_", "").isalpha()]
    except OSError as error:
        raise ValueError(f"{place}: {error.strerror}") from None
    return {folder.name: _read_folder(folder) for folder in folders if not folder.name.startswith("_")}


def _read_folder(folder: Traversable) -> dict[Kind, str]:
    files = {kind: folder.joinpath(f"{kind}.txt") for kind in Kind}
    return {kind: file.read_text(encoding="utf-8") for kind, file in files.items() if file.is_file()}
