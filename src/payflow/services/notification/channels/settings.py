"""The settings of the channels, and the channels that they make."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import msgspec

from payflow.contracts.callbacks import Vendor
from payflow.kernel.clock import Clock
from payflow.platform.settings import CommonSettings, SettingsError, describe
from payflow.services.notification.channels.fcm import FcmPush, ServiceAccount
from payflow.services.notification.channels.http import HttpCaller
from payflow.services.notification.channels.sendgrid import EmailSender, SendGridMail
from payflow.services.notification.channels.sendgrid_callbacks import SendGridCallbacks, read_public_key
from payflow.services.notification.channels.smtp import SmtpMail, SmtpServer
from payflow.services.notification.channels.twilio import TwilioSettings, TwilioSms
from payflow.services.notification.channels.twilio_callbacks import TwilioCallbacks
from payflow.services.notification.channels.vendor import Vendor as VendorAdapter
from payflow.services.notification.channels.vendor import VendorChannel
from payflow.services.notification.ports import CallbackReader, DeviceBook

SMS: Final = "sms"
PUSH: Final = "push"
EMAIL: Final = "email"
REAL: Final = (SMS, PUSH, EMAIL)

_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def read_names(text: str) -> tuple[str, ...]:
    """Names of channels from "sms,email". Raises ValueError for another name, and for one that comes twice."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not set(names) <= set(REAL) or len(set(names)) != len(names):
        raise ValueError(f"expected some of {', '.join(REAL)}, each at most once, split by commas")
    return names


def check_optional_url(text: str) -> None:
    """Raises ValueError unless this is empty or an http(s) address."""
    if text and not _is_url(text):
        raise ValueError("expected an address such as https://pay.example.org")


def _check_optional_account(text: str) -> None:
    if text:
        ServiceAccount.read(text)


def _check_optional_key(text: str) -> None:
    if text:
        read_public_key(text)


def _check_optional_ca(text: str) -> None:
    if text:
        tls_context(text)


class ChannelSettings(CommonSettings, frozen=True, kw_only=True):
    """Settings of SMS, e-mail and push. A channel is in use when its vendor's credentials are set."""

    channels: Annotated[
        str, describe("channels in the order in which they are tried for who prefers none", check=read_names)
    ] = "sms,push,email"
    code_channels: Annotated[
        str, describe("channels that may carry one-time codes, in that order", check=read_names)
    ] = "sms,push,email"
    channel_timeout_s: Annotated[
        float, describe("seconds that a vendor's answer is waited for"), msgspec.Meta(gt=0, le=10)
    ] = 5.0
    code_timeout_s: Annotated[
        float,
        describe("the same for a one-time code, whose customer is waiting; then the next channel is tried"),
        msgspec.Meta(gt=0, le=3),
    ] = 1.5
    channel_calls_max: Annotated[int, describe("calls under way to one vendor"), msgspec.Meta(ge=1, le=500)] = 16
    public_url: Annotated[
        str,
        describe(
            "where vendors reach the gateways, for status callbacks; empty: none are asked for",
            check=check_optional_url,
        ),
    ] = ""
    twilio_account_sid: Annotated[str, describe("Twilio account (AC...) for SMS")] = ""
    twilio_auth_token: Annotated[
        str, describe("its auth token: verifies status callbacks, and signs in without an API key; best given as _FILE")
    ] = ""
    twilio_api_key_sid: Annotated[str, describe("Twilio API key (SK...) to sign in with")] = ""
    twilio_api_key_secret: Annotated[str, describe("its secret; best given as _FILE")] = ""
    twilio_sender: Annotated[str, describe("number (+...), name or messaging service (MG...) that SMS come from")] = ""
    twilio_url: Annotated[str, describe("where Twilio is", check=check_optional_url)] = "https://api.twilio.com"
    email_from: Annotated[str, describe("address that e-mail comes from")] = ""
    email_from_name: Annotated[str, describe("name beside that address")] = ""
    sendgrid_api_key: Annotated[str, describe("SendGrid API key for e-mail; best given as _FILE")] = ""
    sendgrid_event_public_key: Annotated[
        str,
        describe(
            "verification key of SendGrid's event webhook; empty: its events are refused", check=_check_optional_key
        ),
    ] = ""
    sendgrid_url: Annotated[str, describe("where SendGrid is", check=check_optional_url)] = "https://api.sendgrid.com"
    smtp_host: Annotated[str, describe("mail server for e-mail, in place of SendGrid")] = ""
    smtp_port: Annotated[int, describe("its port"), msgspec.Meta(ge=1, le=65535)] = 587
    smtp_tls: Annotated[
        Literal["starttls", "implicit", "none"],
        describe("STARTTLS (usually port 587), TLS from the first byte (465), or none, for a relay on this machine"),
    ] = "starttls"
    smtp_username: Annotated[str, describe("user name at the mail server")] = ""
    smtp_password: Annotated[str, describe("its password; best given as _FILE")] = ""
    smtp_ca: Annotated[
        str,
        describe("certificates (PEM) to trust in place of the system's; best given as _FILE", check=_check_optional_ca),
    ] = ""
    fcm_service_account_key: Annotated[
        str,
        describe(
            "key file (JSON) of a Firebase service account for push; best given as _FILE", check=_check_optional_account
        ),
    ] = ""
    fcm_url: Annotated[str, describe("where FCM is", check=check_optional_url)] = "https://fcm.googleapis.com"

    @property
    def channels_set(self) -> tuple[str, ...]:
        """The channels whose vendors' credentials are set, in the order of `channels`."""
        are_set = {
            SMS: bool(self.twilio_account_sid),
            PUSH: bool(self.fcm_service_account_key),
            EMAIL: bool(self.sendgrid_api_key or self.smtp_host),
        }
        return tuple(name for name in read_names(self.channels) if are_set[name])

    @property
    def code_channels_set(self) -> tuple[str, ...]:
        """Those of them that may carry codes, in the order of `code_channels`."""
        return tuple(name for name in read_names(self.code_channels) if name in self.channels_set)


def check_channels(settings: ChannelSettings) -> None:
    """Raises SettingsError for settings that do not go together."""
    if settings.twilio_account_sid:
        _check_twilio(settings)
    if settings.sendgrid_api_key and settings.smtp_host:
        raise SettingsError("PAYFLOW_SENDGRID_API_KEY and PAYFLOW_SMTP_HOST are both set: choose one for e-mail.")
    if (settings.sendgrid_api_key or settings.smtp_host) and "@" not in settings.email_from:
        raise SettingsError("PAYFLOW_EMAIL_FROM is not set: the address that e-mail comes from.")
    if settings.smtp_tls == "none" and settings.smtp_host and settings.smtp_host not in _LOOPBACK:
        raise SettingsError("PAYFLOW_SMTP_TLS=none: only to a mail server on this machine.")
    if settings.env == "production":
        _check_production(settings)


def _check_twilio(settings: ChannelSettings) -> None:
    if bool(settings.twilio_api_key_sid) != bool(settings.twilio_api_key_secret):
        raise SettingsError("PAYFLOW_TWILIO_API_KEY_SID and PAYFLOW_TWILIO_API_KEY_SECRET are set together.")
    if not settings.twilio_auth_token and not settings.twilio_api_key_sid:
        raise SettingsError("PAYFLOW_TWILIO_AUTH_TOKEN is not set; or set an API key.")
    if not settings.twilio_sender:
        raise SettingsError("PAYFLOW_TWILIO_SENDER is not set: what SMS come from.")
    if settings.public_url and not settings.twilio_auth_token:
        raise SettingsError("PAYFLOW_TWILIO_AUTH_TOKEN is not set: it verifies the callbacks to PAYFLOW_PUBLIC_URL.")


def _check_production(settings: ChannelSettings) -> None:
    if not settings.code_channels_set:
        raise SettingsError(
            "PAYFLOW_ENV=production: no channel for one-time codes is set. Set PAYFLOW_TWILIO_ACCOUNT_SID (SMS), "
            "PAYFLOW_FCM_SERVICE_ACCOUNT_KEY_FILE (push), PAYFLOW_SENDGRID_API_KEY_FILE or PAYFLOW_SMTP_HOST "
            "(e-mail), and let PAYFLOW_CODE_CHANNELS name it; docs/howto/send-messages.md tells the rest."
        )
    urls = {"twilio_url": settings.twilio_url, "sendgrid_url": settings.sendgrid_url, "fcm_url": settings.fcm_url}
    if settings.public_url:
        urls["public_url"] = settings.public_url
    if settings.fcm_service_account_key:
        urls["fcm_service_account_key"] = ServiceAccount.read(settings.fcm_service_account_key).token_uri
    for name, url in urls.items():
        if not url.startswith("https://") and urlsplit(url).hostname not in _LOOPBACK:
            raise SettingsError(f"PAYFLOW_{name.upper()}: in production it is an https address.")


@dataclass
class MadeChannels:
    """What the settings made. `readers`: of vendors whose callbacks are taken."""

    channels: list[VendorChannel] = field(default_factory=list)
    readers: dict[Vendor, CallbackReader] = field(default_factory=dict)
    closers: list[Any] = field(default_factory=list)


def make_channels(settings: ChannelSettings, *, devices: DeviceBook, clock: Clock) -> MadeChannels:
    """The channels that are set, in their order."""
    http = HttpCaller()
    made = MadeChannels(closers=[http.close])
    vendors: dict[str, VendorAdapter] = {}
    for name in settings.channels_set:
        if name == SMS:
            vendors[name] = _twilio(settings, http, clock)
        elif name == PUSH:
            account = ServiceAccount.read(settings.fcm_service_account_key)
            vendors[name] = FcmPush(url=settings.fcm_url, account=account, devices=devices, http=http, clock=clock)
        else:
            vendors[name] = _email(settings, http, clock, made)
    made.channels = _channels(vendors, settings)
    made.readers = _readers(settings)
    return made


def _channels(vendors: Mapping[str, VendorAdapter], settings: ChannelSettings) -> list[VendorChannel]:
    return [
        VendorChannel(
            name=name,
            vendor=vendor,
            carries_codes=name in settings.code_channels_set,
            timeout_s=settings.channel_timeout_s,
            calls_max=settings.channel_calls_max,
        )
        for name, vendor in vendors.items()
    ]


def _readers(settings: ChannelSettings) -> dict[Vendor, CallbackReader]:
    readers: dict[Vendor, CallbackReader] = {}
    if settings.twilio_account_sid and settings.public_url:
        readers[Vendor.TWILIO] = TwilioCallbacks(
            public_url=settings.public_url,
            account_sid=settings.twilio_account_sid,
            auth_token=settings.twilio_auth_token,
            channel=SMS,
        )
    if settings.sendgrid_api_key and settings.sendgrid_event_public_key:
        key = read_public_key(settings.sendgrid_event_public_key)
        readers[Vendor.SENDGRID] = SendGridCallbacks(public_key=key, channel=EMAIL)
    return readers


def _twilio(settings: ChannelSettings, http: HttpCaller, clock: Clock) -> TwilioSms:
    has_key = bool(settings.twilio_api_key_sid)
    account = TwilioSettings(
        url=settings.twilio_url,
        account_sid=settings.twilio_account_sid,
        key_sid=settings.twilio_api_key_sid if has_key else settings.twilio_account_sid,
        key_secret=settings.twilio_api_key_secret if has_key else settings.twilio_auth_token,
        sender=settings.twilio_sender,
        public_url=settings.public_url,
    )
    return TwilioSms(settings=account, http=http, clock=clock)


def _email(settings: ChannelSettings, http: HttpCaller, clock: Clock, made: MadeChannels) -> VendorAdapter:
    sender = EmailSender(address=settings.email_from, name=settings.email_from_name)
    if settings.sendgrid_api_key:
        key, url = settings.sendgrid_api_key, settings.sendgrid_url
        return SendGridMail(url=url, api_key=key, sender=sender, http=http, clock=clock)
    server = SmtpServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        tls=settings.smtp_tls,
        username=settings.smtp_username,
        password=settings.smtp_password,
        context=None if settings.smtp_tls == "none" else tls_context(settings.smtp_ca),
    )
    mail = SmtpMail(server=server, sender=sender, clock=clock)
    made.closers.append(mail.close)
    return mail


def tls_context(ca: str) -> ssl.SSLContext:
    """TLS that trusts these certificates, or the system's. Raises ValueError."""
    try:
        context = ssl.create_default_context(cadata=ca or None)
    except ssl.SSLError:
        raise ValueError("expected certificates as PEM") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def in_order(channels: Sequence[Any], names: Sequence[str]) -> list[Any]:
    """The channels with these names, in the names' order."""
    by_name = {channel.name: channel for channel in channels}
    return [by_name[name] for name in names if name in by_name]


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
