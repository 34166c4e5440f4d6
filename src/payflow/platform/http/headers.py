"""The header fields that tell a browser, a proxy and a curious client what they may do with an answer: little."""

from __future__ import annotations

from typing import Final

from payflow.platform.http.asgi import Headers

# On a service's own port nobody but a service asks: what matters is that nothing guesses or keeps the answer.
INTERNAL: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]

_PUBLIC_BUT_CSP: Final[Headers] = [
    *INTERNAL,
    (b"strict-transport-security", b"max-age=63072000; includeSubDomains"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]

# An API's answer is never a page: nothing may load, run or frame it.
PUBLIC: Final[Headers] = [
    *_PUBLIC_BUT_CSP,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
]

# The documentation is a page whose assets all come from this server.
PUBLIC_DOCS: Final[Headers] = [
    *_PUBLIC_BUT_CSP,
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        b"font-src 'self'; connect-src 'self'; worker-src 'self' blob:; "
        b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    ),
]
