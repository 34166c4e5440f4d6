"""Addresses of servers, of which one may name several: scheme://login@host:port,host:port/path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult

# RFC 3986, appendix B.
_PARTS: Final = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)


def split_address(url: str) -> SplitResult:
    """The parts of an address, unchecked, where `urlsplit` refuses some (since CPython's gh-105704, in some releases of
    every version): an IPv6 address that is not the first of several servers. With several, `port` raises ValueError."""
    match = _PARTS.fullmatch(url.strip())
    assert match is not None  # every text is an address of this grammar
    scheme, netloc, path, query, fragment = (part or "" for part in match.groups())
    return SplitResult(scheme.lower(), netloc, path, query, fragment)
