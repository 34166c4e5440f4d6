"""Where a request goes: hosts and targets of the usual form, and the others, refused unless all read them alike."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from payflow.platform.http.errors import MalformedHead

PLAIN_TARGET: Final = re.compile(rb'/[!"$&-~]*+')
HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ABSOLUTE_TARGET: Final = re.compile(rb"https?://([^/?#]+)(/[!-~]*)?", re.IGNORECASE)
_BROKEN_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_HIDDEN_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_unusual_target(url: bytes, hosts: list[bytes], bytes_max: int) -> None:
    """Raises MalformedHead unless the target is a path that all readers take for the same."""
    if len(url) > bytes_max:
        raise MalformedHead(f"The address is longer than {bytes_max} bytes.")
    if not url.startswith(b"/"):
        absolute = _ABSOLUTE_TARGET.fullmatch(url)
        if absolute is None or hosts != [absolute[1]]:
            raise MalformedHead("The request's target must be a path.")
        url = absolute[2] or b""
    if b"#" in url or not url.startswith(b"/"):
        raise MalformedHead("The request's target must be a path.")
    path = url.split(b"?", 1)[0]
    if _BROKEN_PERCENT.search(path):
        raise MalformedHead("The path has a broken percent-encoding.")
    try:
        text = unquote_to_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedHead("The path is not valid UTF-8.") from None
    if _HIDDEN_CHARACTER.search(text):
        raise MalformedHead("The path contains control characters.")
