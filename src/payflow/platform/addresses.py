"""Addresses of servers, of which one may name several: scheme://login@host:port,host:port/path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult

# RFC 3986, appendix B.
_PARTS: Final = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)


def split_address(url: str) -> SplitResult:
    """The parts of an address. As `urlsplit`, which refuses an IPv6 address that is not the first of several servers
    (since CPython's gh-105704, in some releases of every version)."""
    match = _PARTS.fullmatch(url)
    scheme, netloc, path, query, fragment = (part or "" for part in match.groups()) if match else [""] * 5
    return SplitResult(scheme.lower(), netloc, path, query, fragment)
