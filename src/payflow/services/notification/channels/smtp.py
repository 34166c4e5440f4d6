"""E-mail by any SMTP server, over TLS: STARTTLS (which must be offered) or TLS from the first byte.

SMTP has no idempotency key: a message keeps its Message-ID in every try, so that mailboxes show it once. What becomes
of a message behind the server comes back as e-mail to the sender's address, and is not read here.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final, Literal

import aiosmtplib

from payflow.kernel.clock import Clock
from payflow.services.notification.channels.sendgrid import EmailSender, message_id_header
from payflow.services.notification.channels.vendor import NoAnswer, NotReached, UnreadableAnswer
from payflow.services.notification.domain import (
    NO_ADDRESS,
    Outgoing,
    PermanentFailure,
    SendResult,
    Sent,
    TemporaryFailure,
)

# Of the library's own time-outs; the channel's is shorter, and the one that counts.
_TIMEOUT_S: Final = 30.0
_IDLE_CONNECTIONS_MAX: Final = 4
_IDLE_S: Final = 15.0
_MESSAGES_PER_CONNECTION: Final = 100
_CODE_MAX: Final = 599


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """Where mail goes. `tls` is "none" for a relay on the same machine only."""

    host: str
    port: int
    tls: Literal["starttls", "implicit", "none"]
    username: str = ""
    password: str = ""
    context: ssl.SSLContext | None = None


@dataclass(slots=True)
class _Idle:
    client: aiosmtplib.SMTP
    since: float
    sent: int


class SmtpMail:
    """See channels.vendor.Vendor. Connections are kept for the next message; close it at the end."""

    needs_contact = True

    def __init__(self, *, server: SmtpServer, sender: EmailSender, clock: Clock) -> None:
        self._server = server
        self._sender = sender
        self._clock = clock
        self._idle: list[_Idle] = []

    async def deliver(self, message: Outgoing) -> SendResult:
        address = message.contact.email if message.contact else None
        if not address:
            return PermanentFailure(NO_ADDRESS)
        try:
            mail = self._mail(message, address)
        except (ValueError, MessageError, IndexError):
            return PermanentFailure(NO_ADDRESS)
        try:
            connection = await self._connection()
        except aiosmtplib.SMTPResponseException as error:
            return _refusal(error, step="CONNECT")
        return await self._send(connection, mail, address)

    async def close(self) -> None:
        """Close every connection."""
        while self._idle:
            self._idle.pop().client.close()

    async def _send(self, connection: _Idle, mail: EmailMessage, address: str) -> SendResult:
        is_usable = False
        try:
            await connection.client.send_message(mail, sender=self._sender.address, recipients=[address])
            is_usable = True
            return Sent(mail["Message-ID"])
        except aiosmtplib.SMTPRecipientsRefused as error:
            is_usable = await self._reset(connection.client)
            return _refusal(error.recipients[0], step="RCPT")
        except aiosmtplib.SMTPSenderRefused as error:
            return _refusal(error, step="MAIL")
        except aiosmtplib.SMTPDataError as error:
            return _refusal(error, step="DATA")
        except aiosmtplib.SMTPResponseException as error:
            return _refusal(error, step="SMTP")
        except (aiosmtplib.SMTPException, OSError):
            raise NoAnswer from None
        finally:
            if is_usable:
                self._keep(connection)
            else:
                connection.client.close()

    async def _connection(self) -> _Idle:
        """A connection that is signed in. Raises NotReached, and what the server said where it refused us."""
        while self._idle:
            idle = self._idle.pop()
            if _now() - idle.since < _IDLE_S and await self._reset(idle.client):
                return idle
            idle.client.close()
        server = self._server
        client = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            timeout=_TIMEOUT_S,
            use_tls=server.tls == "implicit",
            # Never by chance: a server that does not offer what was asked for gets no message.
            start_tls=server.tls == "starttls",
            tls_context=server.context,
            username=server.username or None,
            password=server.password or None,
        )
        is_connected = False
        try:
            await client.connect()
            is_connected = True
        except aiosmtplib.SMTPResponseException:
            raise
        except aiosmtplib.SMTPException:
            # Also a server without STARTTLS, and one whose certificate is not trusted: nothing was sent.
            raise NotReached from None
        except OSError:
            raise NotReached from None
        finally:
            if not is_connected:
                client.close()
        return _Idle(client, _now(), 0)

    def _keep(self, connection: _Idle) -> None:
        connection.since, connection.sent = _now(), connection.sent + 1
        if len(self._idle) < _IDLE_CONNECTIONS_MAX and connection.sent < _MESSAGES_PER_CONNECTION:
            self._idle.append(connection)
        else:
            connection.client.close()

    @staticmethod
    async def _reset(client: aiosmtplib.SMTP) -> bool:
        """Whether a connection can take another message."""
        with suppress(aiosmtplib.SMTPException, OSError):
            await client.rset()
            return True
        return False

    def _mail(self, message: Outgoing, address: str) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = Address(display_name=self._sender.name, addr_spec=self._sender.address)
        mail["To"] = Address(addr_spec=address)
        mail["Subject"] = message.subject
        mail["Date"] = format_datetime(self._clock.now())
        mail["Message-ID"] = message_id_header(message, self._sender)
        # RFC 3834: no holiday answers to this.
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.body)
        return mail


def _refusal(error: aiosmtplib.SMTPResponseException, *, step: str) -> SendResult:
    """What a reply means (RFC 5321): 4yz is for now, 5yz for good. Its words are not looked at: they name the address.

    What is refused before the recipient was named is the same for every message.
    """
    is_about_the_message = step in ("RCPT", "DATA")
    reason = f"SMTP_{error.code}_{step}"
    if not 400 <= error.code <= _CODE_MAX:
        raise UnreadableAnswer
    if error.code >= 500 and is_about_the_message:
        return PermanentFailure(reason)
    # 421: the server is about to close; 452: it is full.
    return TemporaryFailure(reason, is_outage=not is_about_the_message or error.code in (421, 452))


def _now() -> float:
    return asyncio.get_running_loop().time()
