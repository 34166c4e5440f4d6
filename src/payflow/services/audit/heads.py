"""The heads file: signed heads as JSON lines, each on disk before anybody is told of it."""

from __future__ import annotations

import asyncio
import base64
import binascii
import fcntl
import json
import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from payflow.kernel.errors import Unavailable
from payflow.services.audit.domain import Head, HeadRead

HEADS_FILE: Final = "heads.jsonl"
PUBLIC_KEYS_FILE: Final = "public-keys.jwks.json"
_LINES_PER_PAGE: Final = 500
# Longer than any line: the last line is looked for in so much of the file's end.
_TAIL_BYTES: Final = 8192
_decoder: Final = msgspec.json.Decoder(Head)


class HeadKeys:
    """Ed25519 keys: the first one signs, all of them verify."""

    def __init__(self, keys: list[OKPKey]) -> None:
        signing = keys[0].private_key
        if not isinstance(signing, Ed25519PrivateKey):
            raise ValueError("the first key must be a private Ed25519 key")
        self._signing = signing
        self._public = {key.thumbprint(): cast(Ed25519PublicKey, key.public_key) for key in keys}
        self.kid = keys[0].thumbprint()
        self.jwks = [{**key.as_dict(private=False), "kid": key.thumbprint()} for key in keys]

    @classmethod
    def from_json(cls, text: str) -> HeadKeys:
        """Read a private JWK, or `{"keys": [...]}` with the one that signs first and older ones, private or public.

        Raises ValueError.
        """
        try:
            document = json.loads(text)
            keys = [OKPKey.import_key(key) for key in document.get("keys", [document])]
            if not keys or any(key.as_dict(private=False).get("crv") != "Ed25519" for key in keys):
                raise ValueError("expected Ed25519 keys")
            return cls(keys)
        except (JoseError, AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not a JSON Web Key: {type(error).__name__}") from None

    def sign(self, head: Head) -> Head:
        """The head with this key's id and signature."""
        named = msgspec.structs.replace(head, kid=self.kid)
        signature = self._signing.sign(named.signed_bytes())
        return msgspec.structs.replace(named, signature=base64.urlsafe_b64encode(signature).decode())

    def is_valid(self, head: Head) -> bool:
        """Whether one of these keys signed exactly this."""
        key = self._public.get(head.kid)
        if key is None:
            return False
        try:
            key.verify(base64.urlsafe_b64decode(head.signature), head.signed_bytes())
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True


class HeadsFile:
    """Signed heads in `<directory>/heads.jsonl` (see ports.Heads), and the public keys beside it."""

    def __init__(self, *, directory: str | Path, keys: HeadKeys) -> None:
        self._directory = Path(directory)
        self._path = self._directory / HEADS_FILE
        self._keys = keys

    def prepare(self) -> None:
        """Make the directory and write the public keys there, for whoever verifies without this service.

        Keys of earlier times stay in the file. Raises OSError.
        """
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._directory / PUBLIC_KEYS_FILE
        own = {key["kid"] for key in self._keys.jwks}
        earlier = [key for key in _keys_in(path) if key.get("kid") not in own]
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        partial.write_text(json.dumps({"keys": [*earlier, *self._keys.jwks]}, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    async def append(self, make: Callable[[Head | None], Head | None]) -> Head | None:
        try:
            return await asyncio.to_thread(self._append, make)
        except OSError as error:
            raise Unavailable(f"The heads file cannot be written: {error.strerror}.") from error

    def _append(self, make: Callable[[Head | None], Head | None]) -> Head | None:
        is_new = not self._path.exists()
        with open(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            last = _last_head(file)
            head = make(last)
            if head is None:
                return last
            head = self._keys.sign(head)
            file.write(msgspec.json.encode(head) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_directory(self._directory)
        return head

    async def pages(self) -> AsyncGenerator[list[HeadRead], None]:
        try:
            file = await asyncio.to_thread(self._path.open, "rb")
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"The heads file cannot be read: {error.strerror}.") from error
        with file:
            size = os.fstat(file.fileno()).st_size
            line = 1
            while page := await asyncio.to_thread(self._read_page, file, line, size):
                yield page
                line += len(page)

    def _read_page(self, file: BinaryIO, line: int, size: int) -> list[HeadRead]:
        reads: list[HeadRead] = []
        while len(reads) < _LINES_PER_PAGE and file.tell() < size:
            text = file.readline()
            if not text.endswith(b"\n"):
                break  # A write that a crash cut short; nobody was told of that head.
            head = _head_in(text)
            is_valid = head is not None and self._keys.is_valid(head)
            reads.append(HeadRead(line + len(reads), head, is_valid))
        return reads


def _last_head(file: BinaryIO) -> Head | None:
    """The head in the last line; what a crash left of an unfinished line is removed."""
    size = file.seek(0, os.SEEK_END)
    start = max(0, size - _TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    whole, newline, torn = tail.rpartition(b"\n")
    if torn:
        file.truncate(size - len(torn))
        file.seek(0, os.SEEK_END)
    return _head_in(whole.rpartition(b"\n")[2]) if newline else None


def _head_in(line: bytes) -> Head | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _keys_in(path: Path) -> list[dict[str, Any]]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return [key for key in document["keys"] if isinstance(key, dict)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
