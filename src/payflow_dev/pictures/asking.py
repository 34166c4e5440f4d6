"""Asks the servers that are drawn."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Final

_TIMEOUT_S: Final = 20


def data_of(url: str, **parameters: Any) -> Any:
    """The `data` of a server's answer. Raises SystemExit, with what to do, where there is none."""
    if not url.startswith(("http://", "https://")):
        raise SystemExit(f"{url} is no address: it begins with http:// or https://.")
    whole = f"{url}?{urllib.parse.urlencode(parameters)}" if parameters else url
    try:
        with urllib.request.urlopen(whole, timeout=_TIMEOUT_S) as response:  # noqa: S310 - its scheme is checked above
            return json.loads(response.read())["data"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url} answers {error.code}: does this server know what is asked for?") from error
    except OSError as error:
        raise SystemExit(f"{url} cannot be reached ({error}): is the server running?") from error
