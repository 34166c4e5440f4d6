"""A stand-in for a mail server: ESMTP (RFC 5321) with STARTTLS or TLS from the first byte, and AUTH (RFC 4954)."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
import ssl
from collections.abc import Callable
from email import message_from_bytes, policy
from typing import Final

from payflow_dev.vendors.certificates import Certificate, make_certificate
from payflow_dev.vendors.desk import Desk, Mood

# An address that nobody has.
NOBODY: Final = "nobody@example.org"
USERNAME: Final = "payflow"
SILENCE_S: Final = 60.0
_LINE_MAX: Final = 64 * 1024
_MESSAGE_MAX: Final = 10 * 1024 * 1024


class SmtpServer:
    """A mail server on a port of this machine. `is_implicit`: TLS from the first byte, else STARTTLS is demanded."""

    def __init__(self, *, is_implicit: bool = False, certificate: Certificate | None = None) -> None:
        self.desk = Desk()
        self.port = 0
        self.connections = 0
        self.password = secrets.token_urlsafe(16)
        self.certificate = certificate or make_certificate()
        self._is_implicit = is_implicit
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self, port: int = 0) -> None:
        """Listen; the system chooses the port where none is given."""
        context = self.certificate.server_context() if self._is_implicit else None
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", port or self.port, ssl=context, limit=_LINE_MAX
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and hang up on everybody."""
        if self._server is None:
            return
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            await _Session(self, reader, writer).run()
        except (OSError, EOFError, ssl.SSLError, asyncio.LimitOverrunError):
            pass  # the client is gone
        finally:
            self._writers.discard(writer)
            writer.close()


class _Session:
    """One connection."""

    def __init__(self, server: SmtpServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._server = server
        self._desk = server.desk
        self._reader = reader
        self._writer = writer
        self._is_private = writer.get_extra_info("ssl_object") is not None
        self._is_signed_in = False
        self._mood = Mood.FINE
        self._sender: str | None = None
        self._recipients: list[str] = []

    async def run(self) -> None:
        """Greet, and do what is asked for until QUIT."""
        # A mood for a number of calls is one for as many messages: it is asked for where a message begins (MAIL).
        mood = self._desk.present
        if mood is Mood.GARBAGE:
            await self._say("HTTP/1.1 200 OK")
            return
        if mood is Mood.OUT:
            self._desk.mood()
            await self._say("421 4.3.2 mail.example.org is not accepting messages")
            return
        await self._say("220 mail.example.org ESMTP")
        while await self._answer(await self._line()):
            pass

    async def _answer(self, line: str) -> bool:
        """Answer a command; False ends the connection."""
        verb, _, argument = line.partition(" ")
        handlers: dict[str, Callable[[str], asyncio.Future[bool] | object]] = {
            "EHLO": self._ehlo,
            "HELO": self._ehlo,
            "STARTTLS": self._starttls,
            "AUTH": self._auth,
            "MAIL": self._mail,
            "RCPT": self._rcpt,
            "DATA": self._data,
            "RSET": self._rset,
            "NOOP": self._rset,
        }
        if verb.upper() == "QUIT":
            await self._say("221 2.0.0 Bye")
            return False
        handler = handlers.get(verb.upper())
        if handler is None:
            await self._say("502 5.5.1 Command not implemented")
            return True
        return bool(await handler(argument))  # type: ignore[misc]

    async def _ehlo(self, argument: str) -> bool:
        features = ["mail.example.org", f"SIZE {_MESSAGE_MAX}", "8BITMIME", "ENHANCEDSTATUSCODES"]
        features += ["AUTH PLAIN LOGIN"] if self._is_private else ["STARTTLS"]
        for feature in features[:-1]:
            await self._say(f"250-{feature}")
        await self._say(f"250 {features[-1]}")
        return True

    async def _starttls(self, argument: str) -> bool:
        if self._is_private:
            await self._say("503 5.5.1 TLS is on already")
            return True
        await self._say("220 2.0.0 Ready to start TLS")
        await self._writer.start_tls(self._server.certificate.server_context())
        self._is_private = True
        return True

    async def _auth(self, argument: str) -> bool:
        method, _, given = argument.partition(" ")
        try:
            if method.upper() == "PLAIN":
                given = given or await self._challenge("")
                _, username, password = base64.b64decode(given).decode().split("\0")
            else:
                username = _plain(given or await self._challenge("Username:"))
                password = _plain(await self._challenge("Password:"))
        except (ValueError, binascii.Error):
            await self._say("501 5.5.2 Cannot decode")
            return True
        is_known = username == USERNAME and secrets.compare_digest(password, self._server.password)
        if not is_known or self._desk.present is Mood.LOCKED:
            await self._say("535 5.7.8 Authentication credentials invalid")
            return True
        self._is_signed_in = True
        await self._say("235 2.7.0 Authentication successful")
        return True

    async def _challenge(self, words: str) -> str:
        await self._say(f"334 {base64.b64encode(words.encode()).decode()}")
        return await self._line()

    async def _mail(self, argument: str) -> bool:
        self._mood = self._desk.mood()
        if self._mood is Mood.SILENT:
            await asyncio.sleep(SILENCE_S)
        if self._mood is Mood.GARBAGE:
            await self._say("*** we will call you ***")
            return False
        if self._mood is Mood.OUT:
            await self._say("421 4.3.2 The service is shutting down")
            return False
        if not self._is_private:
            await self._say("530 5.7.0 Must issue a STARTTLS command first")
        elif not self._is_signed_in or self._mood is Mood.LOCKED:
            await self._say("530 5.7.0 Authentication required")
        else:
            self._sender, self._recipients = _address(argument), []
            await self._say("250 2.1.0 OK")
        return True

    async def _rcpt(self, argument: str) -> bool:
        address = _address(argument)
        if self._sender is None:
            await self._say("503 5.5.1 MAIL first")
        elif self._mood is Mood.BUSY:
            await self._say("452 4.3.1 Too many messages, try again later")
        elif address == NOBODY or "@" not in address:
            await self._say(f"550 5.1.1 <{address}>: no such user here")
        else:
            self._recipients.append(address)
            await self._say("250 2.1.5 OK")
        return True

    async def _data(self, argument: str) -> bool:
        if not self._recipients:
            await self._say("503 5.5.1 RCPT first")
            return True
        await self._say("354 End data with <CR><LF>.<CR><LF>")
        content = await self._content()
        queue_id = secrets.token_hex(6)
        mail = message_from_bytes(content, policy=policy.default)
        body = mail.get_body(("plain",))
        for recipient in self._recipients:
            self._desk.take(
                recipient=recipient,
                subject=str(mail["Subject"]),
                text=body.get_content().replace("\r\n", "\n").strip() if body is not None else "",
                reference=queue_id,
                sender=self._sender,
                headers={name: str(value) for name, value in mail.items()},
            )
        await asyncio.sleep(self._desk.control.delay_s)
        if self._mood is Mood.CUT:
            return False
        await self._say(f"250 2.0.0 OK: queued as {queue_id}")
        self._sender, self._recipients = None, []
        return True

    async def _rset(self, argument: str) -> bool:
        self._sender, self._recipients = None, []
        await self._say("250 2.0.0 OK")
        return True

    async def _content(self) -> bytes:
        lines: list[bytes] = []
        while (line := await self._reader.readuntil(b"\r\n")) != b".\r\n":
            # RFC 5321, 4.5.2: a dot that begins a line was doubled on its way.
            lines.append(line[1:] if line.startswith(b"..") else line)
        return b"".join(lines)

    async def _line(self) -> str:
        return (await self._reader.readuntil(b"\r\n")).decode("utf-8", "replace").rstrip("\r\n")

    async def _say(self, line: str) -> None:
        self._writer.write(f"{line}\r\n".encode())
        await self._writer.drain()


def _address(argument: str) -> str:
    """The address of "FROM:<a@example.org> SIZE=100"."""
    return argument.partition("<")[2].partition(">")[0]


def _plain(text: str) -> str:
    return base64.b64decode(text).decode()
