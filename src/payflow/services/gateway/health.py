"""Asking the other services whether they are ready, for the gateway's own health."""

from __future__ import annotations

from typing import Final

import aiohttp

from payflow.platform.http.health import Check

ASK_TIMEOUT_S: Final = 0.8


class ServiceProbes:
    """Checks of other services by their `/ready`. Make it with the event loop running."""

    def __init__(self) -> None:
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())

    def check_of(self, base_url: str) -> Check:
        """A check that the service at this address is ready."""
        url = f"{base_url.rstrip('/')}/ready"

        async def check() -> bool:
            async with self._session.get(url) as response:
                return response.status == 200

        return check

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()
