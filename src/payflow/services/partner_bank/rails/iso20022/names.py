"""The kinds of message that we speak."""

from __future__ import annotations

from typing import Final

PACS_002: Final = "pacs.002.001.10"
PACS_008: Final = "pacs.008.001.08"
PACS_028: Final = "pacs.028.001.03"
SPOKEN: Final = (PACS_002, PACS_008, PACS_028)

_PREFIX: Final = "urn:iso:std:iso:20022:tech:xsd:"


def namespace_of(name: str) -> str:
    """The XML namespace of a kind of message."""
    return _PREFIX + name


def name_of(namespace: str | None) -> str | None:
    """The kind of message of an XML namespace, or None where it is no ISO 20022 one."""
    return namespace.removeprefix(_PREFIX) if namespace is not None and namespace.startswith(_PREFIX) else None
