"""Encryption of single columns (names, phones, e-mail, documents): AES-256-GCM with the key's id in front.

Layout: one byte with the length of the key id, the key id, a 12-byte nonce, the ciphertext with its tag. The place of
the value (table, column, record) is authenticated too, so that a ciphertext cannot be moved to another record.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

log = structlog.get_logger(__name__)

T = TypeVar("T")

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_KEY_ID_MAX: Final = 255


class DecryptionError(Exception):
    """The value was altered, moved, or encrypted under a key that is not here."""


class ColumnCipher:
    """Encrypts with the active key, decrypts with any known one."""

    def __init__(self, *, keys: Mapping[str, bytes], active: str) -> None:
        if active not in keys:
            raise ValueError(f"the active key {active!r} is not among the keys")
        for key_id, key in keys.items():
            if not key_id.isascii() or not 1 <= len(key_id) <= _KEY_ID_MAX:
                raise ValueError(f"a key's id has 1 to {_KEY_ID_MAX} ASCII characters, not {key_id!r}")
            if len(key) != _KEY_BYTES:
                raise ValueError(f"the key {key_id!r} has {len(key)} bytes; AES-256 needs {_KEY_BYTES}")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._active = active
        self._header = bytes([len(active)]) + active.encode("ascii")

    @classmethod
    def from_json(cls, text: str) -> ColumnCipher:
        """Read `{"active": "k1", "keys": {"k1": "<base64 of 32 bytes>"}}`. Raises ValueError."""
        try:
            document = json.loads(text)
            keys = {key_id: base64.b64decode(key, validate=True) for key_id, key in document["keys"].items()}
            return cls(keys=keys, active=document["active"])
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"column keys are not readable: {error!r}") from None

    def encrypt(self, text: str, *, place: str) -> bytes:
        """Encrypt a text for its place, e.g. "customers.name:cust_001"."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._header + nonce + self._ciphers[self._active].encrypt(nonce, text.encode(), place.encode())

    def decrypt(self, data: bytes, *, place: str) -> str:
        """Decrypt what `encrypt` made for the same place. Raises DecryptionError."""
        end = 1 + data[0] if data else 0
        if len(data) < end + _NONCE_BYTES + _TAG_BYTES:
            raise DecryptionError(f"the value of {place} is cut")
        key_id = data[1:end].decode("ascii", errors="replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise DecryptionError(f"no key {key_id!r}")
        try:
            nonce, sealed = data[end : end + _NONCE_BYTES], data[end + _NONCE_BYTES :]
            return cipher.decrypt(nonce, sealed, place.encode()).decode()
        except InvalidTag:
            raise DecryptionError(f"the value of {place} was altered or moved") from None


def read_or_none(read: Callable[[], T]) -> T | None:
    """What `read` reads from a row; None, and a line in the log, where a value of it was altered or its key is unknown.

    For lists: one such row hides no other one.
    """
    try:
        return read()
    except DecryptionError as error:
        log.error("row.unreadable", error=str(error))
        return None


def ensure_column_keys(path: Path) -> None:
    """Make a key file with one random key (mode 0600) unless there is one."""
    if path.exists():
        return
    document = {"active": "k1", "keys": {"k1": base64.b64encode(os.urandom(32)).decode()}}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file)
