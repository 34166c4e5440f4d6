"""The kinds of message that we speak."""

from __future__ import annotations

from typing import Final

PACS_002: Final = "pacs.002.001.10"
PACS_004: Final = "pacs.004.001.09"
PACS_008: Final = "pacs.008.001.08"
PACS_028: Final = "pacs.028.001.03"
# What is read from other banks; a pacs.004 we only send.
SPOKEN: Final = (PACS_002, PACS_008, PACS_028)

_PREFIX: Final = "urn:iso:std:iso:20022:tech:xsd:"


def is_of_kind(name: str, kind: str) -> bool:
    """Whether a message's name, of whichever version, is of this kind: pacs.004.001.02 is of PACS_004's."""
    return name.split(".")[:2] == kind.split(".")[:2]


def namespace_of(name: str) -> str:
    """The XML namespace of a kind of message."""
    return _PREFIX + name


def name_of(namespace: str | None) -> str | None:
    """The kind of message of an XML namespace, or None where it is no ISO 20022 one."""
    return namespace.removeprefix(_PREFIX) if namespace is not None and namespace.startswith(_PREFIX) else None
