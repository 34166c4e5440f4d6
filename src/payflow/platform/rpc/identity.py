"""Short-lived signed service identity: each service has an Ed25519 key, and all know the public ones.

A token names the caller (`iss`) and the callee (`aud`) and lives five minutes; it is signed once and used for many
calls, and verified once and remembered until it ends.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from payflow.kernel.errors import Rejection

TOKEN_LIFETIME_S: Final = 300
_CACHE_MAX: Final = 1000
JWKS_FILE: Final = "services.jwks.json"


class ServiceIdentityRequired(Rejection):
    """The call carries no valid service identity."""

    code = "SERVICE_IDENTITY_REQUIRED"


class CallerNotAllowed(Rejection):
    """The contract does not let this service call this operation."""

    code = "CALLER_NOT_ALLOWED"


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def ensure_keys(directory: str | Path, names: Iterable[str]) -> None:
    """Make the missing key pairs (private: `<name>.jwk`, mode 0600) and write all public keys to services.jwks.json."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    public = []
    for name in sorted(set(names)):
        path = folder / f"{name}.jwk"
        if not path.exists():
            key = OKPKey.generate_key("Ed25519", {"kid": name, "use": "sig"})
            _write_private(path, json.dumps(key.as_dict(private=True)))
        private = OKPKey.import_key(json.loads(path.read_text(encoding="utf-8")))
        public.append(private.as_dict(private=False))
    partial = folder / f"{JWKS_FILE}.{os.getpid()}"
    partial.write_text(json.dumps({"keys": public}), encoding="utf-8")
    partial.replace(folder / JWKS_FILE)


class Signer:
    """Signs this service's identity for a callee."""

    def __init__(self, *, service: str, key: OKPKey) -> None:
        self._service = service
        self._key = key
        self._tokens: dict[str, tuple[str, float]] = {}

    @classmethod
    def load(cls, *, service: str, directory: str | Path) -> Signer:
        """Read the service's private key. Raises OSError when there is none."""
        text = (Path(directory) / f"{service}.jwk").read_text(encoding="utf-8")
        return cls(service=service, key=OKPKey.import_key(json.loads(text)))

    def token_for(self, callee: str) -> str:
        """A token for calls to `callee`, renewed at half its life."""
        now = time.time()
        cached = self._tokens.get(callee)
        if cached is not None and now < cached[1]:
            return cached[0]
        claims = {"iss": self._service, "aud": callee, "iat": int(now), "exp": int(now) + TOKEN_LIFETIME_S}
        token = jwt.encode({"alg": "Ed25519", "kid": self._service}, claims, self._key, algorithms=["Ed25519"])
        self._tokens[callee] = (token, now + TOKEN_LIFETIME_S / 2)
        return token


class Verifier:
    """Tells which service sent a call to this one."""

    def __init__(self, *, service: str, public_keys: KeySet, source: Path | None = None) -> None:
        self._service = service
        self._keys = public_keys
        self._source = source
        self._source_mtime = source.stat().st_mtime_ns if source else 0
        self._known: dict[str, tuple[str, float]] = {}

    @classmethod
    def load(cls, *, service: str, directory: str | Path) -> Verifier:
        """Read everybody's public keys; they are read again when the file has changed and a key is not known."""
        path = Path(directory) / JWKS_FILE
        return cls(service=service, public_keys=_read_keys(path), source=path)

    def caller_of(self, authorization: str) -> str:
        """The calling service's name. Raises ServiceIdentityRequired."""
        known = self._known.get(authorization)
        now = time.time()
        if known is not None and now < known[1]:
            return known[0]
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ServiceIdentityRequired()
        claims = self._verified_claims(token)
        caller, ends_at = str(claims.get("iss", "")), float(claims.get("exp", 0))
        if claims.get("aud") != self._service or now >= ends_at or not caller:
            raise ServiceIdentityRequired("The service identity is for another callee or has expired.")
        if len(self._known) >= _CACHE_MAX:
            self._known.clear()
        self._known[authorization] = (caller, ends_at)
        return caller

    def _verified_claims(self, token: str) -> dict[str, Any]:
        try:
            decoded = jwt.decode(token, self._keys, algorithms=["Ed25519"])
        except (JoseError, ValueError):
            if not self._reload_if_changed():
                raise ServiceIdentityRequired("The service identity cannot be verified.") from None
            return self._verified_claims(token)
        # A key signs only for its own service: otherwise any service could speak as any other.
        if decoded.header.get("kid") != decoded.claims.get("iss"):
            raise ServiceIdentityRequired("The service identity is not signed by the service that it names.")
        return dict(decoded.claims)

    def _reload_if_changed(self) -> bool:
        if self._source is None:
            return False
        mtime = self._source.stat().st_mtime_ns
        if mtime == self._source_mtime:
            return False
        self._source_mtime = mtime
        self._keys = _read_keys(self._source)
        return True


def _read_keys(path: Path) -> KeySet:
    return KeySet.import_key_set(json.loads(path.read_text(encoding="utf-8")))
