"""The keys that sign access tokens: one file each in a folder that all gateways share, mode 0600.

Files are numbered; the highest number signs, from the instant on that stands in it: where a folder reaches the gateways
one after the other, all of them verify with a key before the first one signs with it. A file appears whole or not at
all, and only once per number, so gateways that start or rotate at the same moment agree. An older key verifies until
the tokens that it signed have ended.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from payflow.kernel.errors import Unavailable
from payflow.services.gateway.domain.sessions import CLOCK_LEEWAY

log = structlog.get_logger(__name__)

_FILE: Final = re.compile(r"([0-9]{4,9})\.jwk")
# A folder's time stamp is coarse: a change right after a read may leave it as it was.
_COARSE_S: Final = 2.0
# A key made this moment by another clock signs at once.
_CLOCKS_DIFFER_S: Final = 5.0


class _Document(msgspec.Struct):
    """A key file: when the key began to sign (seconds since 1970), and the private JWK."""

    created_at: float
    key: dict[str, str | list[str]]


class SigningKey(msgspec.Struct, frozen=True):
    """One key pair (P-256, for ES256)."""

    number: int
    kid: str
    created_at: float
    key: ECKey


class FileKeyRing:
    """The shared folder of keys (see ports.KeyRing)."""

    def __init__(self, directory: Path, *, token_lifetime: timedelta) -> None:
        self._directory = directory
        self._verifies_for_s = (token_lifetime + CLOCK_LEEWAY).total_seconds()
        self._keys: dict[str, SigningKey] = {}
        self._active: SigningKey | None = None
        self._read_mtime_ns = -1
        self._on_change: list[Callable[[], None]] = []
        self.jwks = b'{"keys":[]}'

    @classmethod
    def open(cls, directory: str | Path, *, token_lifetime: timedelta, now: datetime) -> FileKeyRing:
        """Read the folder; make it and the first key where there is none. Raises Unavailable or OSError."""
        folder = Path(directory)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        ring = cls(folder, token_lifetime=token_lifetime)
        ring._read()
        if ring._active is None:
            ring._add(1, now.timestamp())
            ring._read()
        if ring._active is None:
            raise Unavailable(f"There is no usable signing key in {folder}.")
        return ring

    @property
    def active(self) -> SigningKey:
        """The key that signs."""
        assert self._active is not None
        return self._active

    def find(self, kid: str) -> SigningKey | None:
        """A key that verifies. For an unknown kid the folder is looked at again: another gateway may have rotated."""
        known = self._keys.get(kid)
        if known is None and self.reload_if_changed():
            known = self._keys.get(kid)
        return known

    def on_change(self, listener: Callable[[], None]) -> None:
        """Be told when a key came or went."""
        self._on_change.append(listener)

    def reload_if_changed(self) -> bool:
        """Read the folder again if it changed; returns whether it was read."""
        try:
            mtime_ns = self._directory.stat().st_mtime_ns
        except OSError:
            return False
        if mtime_ns == self._read_mtime_ns and time.time() - mtime_ns / 1e9 > _COARSE_S:
            return False
        self._read()
        return True

    def retire_old(self, now: datetime) -> None:
        """Stop verifying with keys whose tokens have all ended, and sign with a key whose time has come."""
        keys, seconds = list(self._keys.values()), now.timestamp()
        if len(self._still_verifying(keys, seconds)) != len(keys) or _signing(keys, seconds) is not self._active:
            self._read()

    def add(self, *, signs_from: datetime) -> int:
        """Make the next key, which signs from an instant on that may lie ahead; returns its number. Raises OSError."""
        self._read()
        number = max((key.number for key in self._keys.values()), default=0) + 1
        while not self._add(number, signs_from.timestamp()):
            number += 1
        self._read()
        return number

    def rotate(self, now: datetime) -> tuple[str, list[str]]:
        self._read()
        try:
            number = self.active.number + 1
            while not self._add(number, now.timestamp()):
                number += 1
            self._read()
            self._remove_retired(now.timestamp())
        except OSError as error:
            raise Unavailable(f"The folder of signing keys cannot be written: {error.strerror}.") from error
        return self.active.kid, sorted(self._keys)

    def _add(self, number: int, created_at: float) -> bool:
        """Make a key file; False when another process has made the one of this number."""
        key = ECKey.generate_key("P-256")
        private: dict[str, str | list[str]] = {name: str(value) for name, value in key.as_dict(private=True).items()}
        private |= {"kid": key.thumbprint(), "use": "sig", "alg": "ES256"}
        partial = self._directory / f".{number:04d}.{secrets.token_hex(8)}"
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_Document(created_at, private)))
                file.flush()
                os.fsync(file.fileno())
            os.link(partial, self._directory / f"{number:04d}.jwk")
        except FileExistsError:
            return False
        finally:
            partial.unlink()
        return True

    def _read(self) -> None:
        """Take the folder as it is now. A file that cannot be read is passed over and named in the log."""
        before = set(self._keys)
        self._read_mtime_ns = self._directory.stat().st_mtime_ns
        found = [key for path in sorted(self._directory.iterdir()) if (key := _read_key(path)) is not None]
        if not found:
            return
        found.sort(key=lambda key: key.number)
        now = time.time()
        verifying = self._still_verifying(found, now)
        self._keys = {key.kid: key for key in verifying}
        self._active = _signing(verifying, now)
        self.jwks = msgspec.json.encode({"keys": [_public(key) for key in reversed(verifying)]})
        if set(self._keys) != before:
            for listener in self._on_change:
                listener()

    def _still_verifying(self, keys: list[SigningKey], now: float) -> list[SigningKey]:
        """The keys whose tokens may still be alive; a key signed until its successor was made."""
        ordered = sorted(keys, key=lambda key: key.number)
        return [
            key
            for key, successor in zip(ordered, [*ordered[1:], None], strict=True)
            if successor is None or now < successor.created_at + self._verifies_for_s
        ]

    def _remove_retired(self, now: float) -> None:
        found = [(path, key) for path in self._directory.iterdir() if (key := _read_key(path)) is not None]
        verifying = {key.number for key in self._still_verifying([key for _, key in found], now)}
        for path, key in found:
            if key.number not in verifying:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def _signing(keys: list[SigningKey], now: float) -> SigningKey | None:
    """The newest key whose time has come; the oldest where none has."""
    ordered = sorted(keys, key=lambda key: key.number)
    ready = [key for key in ordered if key.created_at <= now + _CLOCKS_DIFFER_S]
    return ready[-1] if ready else next(iter(ordered), None)


def _read_key(path: Path) -> SigningKey | None:
    match = _FILE.fullmatch(path.name)
    if match is None:
        return None
    try:
        document = msgspec.json.decode(path.read_bytes(), type=_Document)
        key = ECKey.import_key(document.key)
    except FileNotFoundError:
        return None  # retired by another gateway between the listing and now
    except (OSError, msgspec.MsgspecError, JoseError, ValueError, TypeError) as error:
        log.error("signing_key.unreadable", file=path.name, error=type(error).__name__)
        return None
    return SigningKey(int(match[1]), key.thumbprint(), document.created_at, key)


def _public(key: SigningKey) -> dict[str, str]:
    public = {name: str(value) for name, value in key.key.as_dict(private=False).items()}
    return public | {"kid": key.kid, "use": "sig", "alg": "ES256"}
