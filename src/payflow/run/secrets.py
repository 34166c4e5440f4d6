"""An instance's secrets, each in a file of mode 0600, and the settings that name them.

In development an instance makes its own at its first start. Production makes none by itself: a secret that nobody
chose and nobody keeps is lost with the machine, and with it every encrypted column.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from joserfc.jwk import OKPKey

from payflow.platform.crypto import ensure_column_keys
from payflow.platform.rpc.identity import JWKS_FILE, ensure_keys
from payflow.run.datadir import ensure_secret, write_atomically
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.supervisor.environment import setting

# The identity with which the command line calls services on behalf of whoever may read the data directory.
COMMAND_LINE: Final = "cli"
_NEEDED: Final = (
    ("PAYFLOW_COLUMN_KEYS_FILE", "keys of encrypted columns"),
    ("PAYFLOW_OTP_KEY_FILE", "key of one-time passwords"),
    ("PAYFLOW_AUDIT_KEY_FILE", "key that signs the audit trail"),
    ("PAYFLOW_TOKEN_KEYS_DIR", "keys that sign access tokens"),
    ("PAYFLOW_SERVICE_KEYS_DIR", "keys by which services know each other"),
)


def ensure_secrets(instance: Instance, services: Sequence[str]) -> dict[str, str]:
    """Make what is missing; returns the settings that name it. What the user set wins."""
    made = make_secrets(instance.secrets_dir, services) | _heads_of(instance)
    _check_service_keys(services)
    return {name: value for name, value in made.items() if not _is_set(name)}


def require_secrets(instance: Instance, services: Sequence[str]) -> dict[str, str]:
    """In production: the settings that go beside the user's secrets. Raises StartError naming each secret not set."""
    missing = [f"{name} ({what})" for name, what in _NEEDED if not _is_set(name)]
    if missing:
        raise StartError(
            f"PAYFLOW_ENV=production makes no secrets by itself: set {', '.join(missing)}; "
            "`payflow secrets DIR` makes them, for you to keep."
        )
    _check_service_keys(services)
    return {name: value for name, value in _heads_of(instance).items() if not _is_set(name)}


def make_secrets(folder: Path, services: Sequence[str]) -> dict[str, str]:
    """Make the secrets that are missing in a folder; returns the settings that name all of them."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ensure_keys(folder / "services", [*services, COMMAND_LINE])
    ensure_column_keys(folder / "column_keys.json")
    _ensure_file(folder / "otp_key", secrets.token_hex(32))
    _ensure_file(folder / "audit_key.jwk", json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)))
    (folder / "token_keys").mkdir(mode=0o700, exist_ok=True)
    ensure_secret(folder / "admin_password")
    return {
        "PAYFLOW_COLUMN_KEYS_FILE": str(folder / "column_keys.json"),
        "PAYFLOW_OTP_KEY_FILE": str(folder / "otp_key"),
        "PAYFLOW_AUDIT_KEY_FILE": str(folder / "audit_key.jwk"),
        "PAYFLOW_TOKEN_KEYS_DIR": str(folder / "token_keys"),
        "PAYFLOW_SERVICE_KEYS_DIR": str(folder / "services"),
        "PAYFLOW_BOOTSTRAP_ADMIN_PASSWORD_FILE": str(folder / "admin_password"),
    }


def service_keys_dir(instance: Instance) -> Path:
    """Where the services' key pairs are, and the command line's: where the user says, else the instance's own."""
    return Path(setting("SERVICE_KEYS_DIR") or instance.service_keys_dir)


def admin_password_file(instance: Instance) -> Path:
    """The generated password of the first administrator, user `admin`."""
    return instance.secrets_dir / "admin_password"


def _heads_of(instance: Instance) -> dict[str, str]:
    return {"PAYFLOW_AUDIT_HEADS_DIR": str(instance.data_dir / "audit-heads")}


def _check_service_keys(services: Sequence[str]) -> None:
    """Raises StartError when the user's own folder lacks a service's key."""
    named = setting("SERVICE_KEYS_DIR")
    for name in (JWKS_FILE, *(f"{service}.jwk" for service in services)) if named else ():
        if not os.access(Path(str(named)) / name, os.R_OK):
            raise StartError(f"PAYFLOW_SERVICE_KEYS_DIR={named}: there is no {name} that we can read.")


def _is_set(name: str) -> bool:
    return setting(name.removeprefix("PAYFLOW_").removesuffix("_FILE")) is not None


def _ensure_file(path: Path, text: str) -> None:
    if not path.exists():
        write_atomically(path, text)
