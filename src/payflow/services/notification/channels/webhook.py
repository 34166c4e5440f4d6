"""Calls the receivers of webhooks over HTTP, signed as Standard Webhooks says (https://www.standardwebhooks.com).

Every connection's own address is looked at when it is made: a name may have led elsewhere when it was registered, and
may lead elsewhere at the next look (DNS rebinding).
"""

from __future__ import annotations

import base64
import secrets
import socket
from datetime import datetime
from typing import Any, Final

import aiohttp
from prometheus_client import Counter
from standardwebhooks import Webhook as Signer

import payflow
from payflow.services.notification.domain.addresses import AddressPolicy
from payflow.services.notification.domain.webhooks import SECRET_BYTES, SECRET_PREFIX, Attempt, Reply

ATTEMPT_TIMEOUT_S: Final = 10.0
CONNECTIONS_MAX: Final = 512
# What is read of an answer, so that its connection can be used again; nobody looks at it.
ANSWER_BYTES_MAX: Final = 4096
_REFUSED: Final = "this address may not be called"

_attempts: Final = Counter("payflow_webhook_attempts_total", "Calls of webhooks by what they came to.", ["outcome"])


class SystemSecrets:
    """See ports.WebhookSecrets."""

    def new(self) -> str:
        return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode("ascii")


class AddressRefused(OSError):
    """The address that a name leads to may not be called."""


class HttpSender:
    """See ports.WebhookSender. Open it before use and close it at the end."""

    def __init__(self, *, policy: AddressPolicy, timeout_s: float = ATTEMPT_TIMEOUT_S) -> None:
        self._policy = policy
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, socket_factory=self._socket_for),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                # An answer that unpacks to something huge stays packed: nobody looks at it.
                auto_decompress=False,
                trust_env=False,
            )
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def send(self, attempt: Attempt, *, now: datetime) -> Reply:
        reply = await self._send(attempt, now)
        _attempts.labels("delivered" if reply.is_success else reply.error or "refused").inc()
        return reply

    async def _send(self, attempt: Attempt, now: datetime) -> Reply:
        try:
            async with self._opened().post(
                attempt.url, data=attempt.body, headers=_headers(attempt, now), allow_redirects=False
            ) as response:
                await _read_little(response)
                return Reply(response.status)
        except TimeoutError:
            return Reply(None, "TIMEOUT")
        except aiohttp.ClientConnectorDNSError:
            return Reply(None, "NAME_NOT_FOUND")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError):
            return Reply(None, "TLS_FAILED")
        except aiohttp.ClientConnectorError as error:
            return Reply(None, "ADDRESS_REFUSED" if _is_refused(error) else "CANNOT_CONNECT")
        except (aiohttp.ClientError, OSError, ValueError):
            return Reply(None, "NO_ANSWER")

    def _socket_for(self, address: Any) -> socket.socket:
        """The socket of a connection about to be made. Raises AddressRefused instead where there must be none."""
        family, kind, protocol, _, place = address
        if self._policy.refuses(str(place[0])):
            raise AddressRefused(_REFUSED)
        return socket.socket(family=family, type=kind, proto=protocol)


def _headers(attempt: Attempt, now: datetime) -> dict[str, str]:
    message_id, body = str(attempt.event_id), attempt.body.decode()
    signatures = [Signer(secret).sign(message_id, now, body) for secret in attempt.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": f"Payflow-Webhooks/{payflow.__version__}",
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def _read_little(response: aiohttp.ClientResponse) -> None:
    """Read an answer's end if it is near, so that its connection can be used again; else end the connection."""
    left = ANSWER_BYTES_MAX
    while left > 0:
        part = await response.content.read(left)
        if not part:
            return
        left -= len(part)
    response.close()


def _is_refused(error: aiohttp.ClientConnectorError) -> bool:
    """Whether it was us: what several addresses came to is one error with all their texts."""
    return _REFUSED in str(error.os_error)
