"""Which address a request came from, as far as it can be believed."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from payflow.platform.http.asgi import Scope

Network: TypeAlias = IPv4Network | IPv6Network
Address: TypeAlias = IPv4Address | IPv6Address

_FORWARDED = b"x-forwarded-for"


def read_networks(text: str) -> tuple[Network, ...]:
    """Networks from "10.0.0.0/8, 192.168.1.7"; empty for an empty text. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


class ClientAddresses:
    """Tells the key that a request's address is counted under.

    Only a peer in `trusted` may say for whom it asks: the rightmost address in X-Forwarded-For that is not a trusted
    proxy's own. Anything that a client wrote itself stands left of that. An IPv6 client is counted with its /64
    network, which one subscriber has to itself.
    """

    def __init__(self, trusted: tuple[Network, ...] = ()) -> None:
        self._trusted = trusted
        self._key_of = lru_cache(10_000)(self._make_key)

    def key_of(self, scope: Scope) -> str:
        """The counting key of a request's client."""
        client = scope.get("client")
        peer = client[0] if client else ""
        if not self._trusted:
            return self._key_of(peer, b"")
        chain = b",".join(value for name, value in scope["headers"] if name == _FORWARDED)
        return self._key_of(peer, chain)

    def _make_key(self, peer: str, chain: bytes) -> str:
        address = _read(peer)
        if address is None:
            return "local"  # a UNIX socket has no address
        for hop in reversed(chain.split(b",")) if chain else ():
            if not self._is_trusted(address):
                break
            before = _read(hop.decode("latin-1").strip())
            if before is None:
                break  # not an address: the last proxy is all that is known
            address = before
        if isinstance(address, IPv6Address):
            return str(IPv6Network((address, 64), strict=False).network_address) + "/64"
        return str(address)

    def _is_trusted(self, address: Address) -> bool:
        return any(address.version == network.version and address in network for network in self._trusted)


def _read(text: str) -> Address | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
