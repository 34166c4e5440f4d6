"""All stand-ins together on this machine, with the settings that make Payflow use them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from payflow_dev.vendors.certificates import make_certificate
from payflow_dev.vendors.fcm import FcmServer
from payflow_dev.vendors.http import HttpVendorServer
from payflow_dev.vendors.sendgrid import SendGridServer
from payflow_dev.vendors.smtp import USERNAME, SmtpServer
from payflow_dev.vendors.twilio import OWN_NUMBER, TwilioServer

SENDER: Final = "no-reply@payflow.example"
PORTS: Final = {"twilio": 1, "sendgrid": 2, "fcm": 3, "smtp": 4, "smtps": 5}


@dataclass(frozen=True)
class Vendors:
    """The stand-ins, which listen."""

    twilio: TwilioServer
    sendgrid: SendGridServer
    fcm: FcmServer
    smtp: SmtpServer
    smtps: SmtpServer

    @property
    def over_http(self) -> dict[str, HttpVendorServer]:
        """Those with addresses to direct the play: GET and PUT /control, GET /messages."""
        return {"twilio": self.twilio, "sendgrid": self.sendgrid, "fcm": self.fcm}

    def settings(self, folder: Path, *, public_url: str, email: str = "sendgrid") -> dict[str, str]:
        """The settings that make Payflow use them. Keys are written to files in the folder, of mode 0600."""
        account = self.twilio.account
        files = {
            "twilio_auth_token": account.auth_token,
            "twilio_api_key_secret": account.key_secret,
            "fcm_service_account_key": self.fcm.service_account,
        }
        plain = {
            "public_url": public_url,
            "twilio_url": self.twilio.url,
            "twilio_account_sid": account.sid,
            "twilio_api_key_sid": account.key_sid,
            "twilio_sender": OWN_NUMBER,
            "email_from": SENDER,
            "fcm_url": self.fcm.url,
        }
        if email == "sendgrid":
            files["sendgrid_api_key"] = self.sendgrid.api_key
            plain |= {"sendgrid_url": self.sendgrid.url, "sendgrid_event_public_key": self.sendgrid.public_key}
        else:
            server = self.smtps if email == "smtps" else self.smtp
            files |= {"smtp_password": server.password, "smtp_ca": server.certificate.certificate}
            tls = "implicit" if email == "smtps" else "starttls"
            plain |= {"smtp_host": "127.0.0.1", "smtp_port": str(server.port), "smtp_tls": tls}
            plain["smtp_username"] = USERNAME
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in files.items():
            _write(folder / name, content)
        named = {f"{name}_file": str(folder / name) for name in files}
        return {f"PAYFLOW_{name.upper()}": value for name, value in (plain | named).items()}


@asynccontextmanager
async def running_vendors(*, public_url: str, port_base: int = 0) -> AsyncIterator[Vendors]:
    """Start all of them, on `port_base` + 1 to + 5, or on free ports; stop them at the end."""
    certificate = make_certificate()
    vendors = Vendors(
        twilio=TwilioServer(),
        sendgrid=SendGridServer(sender=SENDER, event_url=f"{public_url}/callbacks/sendgrid"),
        fcm=FcmServer(),
        smtp=SmtpServer(certificate=certificate),
        smtps=SmtpServer(certificate=certificate, is_implicit=True),
    )
    async with contextlib.AsyncExitStack() as stack:
        for name, offset in PORTS.items():
            server = getattr(vendors, name)
            await server.start(port_base + offset if port_base else 0)
            stack.push_async_callback(server.stop)
        yield vendors


async def serve(*, folder: Path, public_url: str, port_base: int, email: str) -> None:
    """Run the stand-ins until SIGINT or SIGTERM, and say how Payflow is told of them."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running_vendors(public_url=public_url, port_base=port_base) as vendors:
        settings = vendors.settings(folder, public_url=public_url, email=email)
        _write(folder / "vendors.env", "".join(f"export {name}='{value}'\n" for name, value in settings.items()))
        for name, server in vendors.over_http.items():
            print(f"{name:9} {server.url}  (what it took: {server.url}/messages)")
        print(f"smtp      127.0.0.1:{vendors.smtp.port} with STARTTLS, 127.0.0.1:{vendors.smtps.port} with TLS")
        print(f"Start Payflow with them in another shell: . {folder}/vendors.env; ./payflow up", flush=True)
        printing = asyncio.create_task(_print_messages(vendors))
        await stop.wait()
        printing.cancel()


async def _print_messages(vendors: Vendors) -> None:
    """Each message as it is taken, so that a user can read a code off the screen."""
    desks = {name: server.desk for name, server in vendors.over_http.items()}
    desks |= {"smtp": vendors.smtp.desk, "smtps": vendors.smtps.desk}
    shown = dict.fromkeys(desks, 0)
    while True:
        for name, desk in desks.items():
            for taken in desk.taken[shown[name] :]:
                print(f"[{name}] to {taken.recipient}: {taken.text}", flush=True)
            shown[name] = len(desk.taken)
        await asyncio.sleep(0.2)


def _write(path: Path, content: str) -> None:
    """A file that only its owner may read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
