"""Which addresses webhooks may be sent to, so that nobody has this service call what only stands inside.

A URL is looked at when it is registered. That alone protects from nothing, since a name may lead anywhere later:
`AddressPolicy.refuses` is asked again about the very address of every connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address

URL_CHARACTERS_MAX: Final = 2048
_LOCAL_NAMES: Final = ("localhost", "local", "internal", "localdomain")
# Translates to IPv4 at the network's edge (RFC 6052): the address inside is the one that counts.
_NAT64: Final = IPv6Network("64:ff9b::/96")


def read_networks(text: str) -> tuple[Network, ...]:
    """Networks from "10.0.0.0/8, fd00::/8"; empty for an empty text. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What may be called. `allowed`: networks that may be called although they are not public.

    `is_production`: only https, and no private or loopback address. Link-local addresses (where clouds keep their
    credentials), multicast and reserved ones are refused everywhere.
    """

    is_production: bool
    allowed: tuple[Network, ...] = ()

    def refuses(self, address: str) -> bool:
        """Whether a connection to an IP address must not be made. True for what is no address."""
        try:
            whole = ip_address(address.partition("%")[0])
        except ValueError:
            return True
        whole = getattr(whole, "ipv4_mapped", None) or whole
        if any(whole.version == network.version and whole in network for network in self.allowed):
            return False
        return any(self._is_closed(one) for one in (whole, *_inside(whole)))

    def flaw_of_url(self, url: str) -> str | None:
        """Why this URL cannot be a webhook's; None when it can."""
        if not url or len(url) > URL_CHARACTERS_MAX or not url.isascii() or not url.isprintable() or " " in url:
            return f"url: 1 to {URL_CHARACTERS_MAX} printable ASCII characters without blanks."
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            return "url: this is not a URL."
        if "#" in url or "\\" in url:
            return "url: leave out what begins with #, and backslashes."
        if parts.scheme not in ("https", "http"):
            return "url: the address must begin with https://."
        if self.is_production and parts.scheme != "https":
            return "url: only https addresses are called in production."
        return self._flaw_of_host(parts, port)

    def _flaw_of_host(self, parts: SplitResult, port: int | None) -> str | None:
        if "@" in parts.netloc:
            return "url: a user name or password in the address is not sent; the signature proves who calls."
        host = parts.hostname or ""
        if not host or port == 0:
            return "url: the address has no host."
        if _is_address(host):
            return "url: this address may not be called from here." if self.refuses(host) else None
        ending = host.rstrip(".").rpartition(".")[2]
        if not ending or ending[0].isdigit():
            return "url: this host is neither a name nor an address."  # such as 127.1, 2130706433 or 0x7f000001
        is_local = ending in _LOCAL_NAMES
        if self.is_production and is_local and not self.allowed:
            return "url: this address may not be called from here."
        return None

    def _is_closed(self, address: Address) -> bool:
        if address.is_link_local or address.is_multicast or address.is_unspecified:
            return True
        if not self.is_production and (address.is_private or address.is_loopback):
            return False
        return not address.is_global


def _inside(address: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 address leads to, through one translation or another."""
    if isinstance(address, IPv4Address):
        return []
    inside = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        inside.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return [one for one in inside if one is not None]


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
