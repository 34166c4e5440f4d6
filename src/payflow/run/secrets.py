"""The secrets that an instance makes for itself at its first start, each in a file of mode 0600, and their settings."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from joserfc.jwk import OKPKey

from payflow.platform.crypto import ensure_column_keys
from payflow.platform.rpc.identity import ensure_keys
from payflow.run.datadir import ensure_secret
from payflow.run.instance import Instance

# The identity with which the command line calls services on behalf of whoever may read the data directory.
COMMAND_LINE = "cli"


def ensure_secrets(instance: Instance, services: tuple[str, ...]) -> dict[str, str]:
    """Make what is missing; returns the settings that name it. What the user set in the environment wins."""
    folder = instance.secrets_dir
    ensure_keys(instance.service_keys_dir, [*services, COMMAND_LINE])
    ensure_column_keys(folder / "column_keys.json")
    _ensure_file(folder / "otp_key", secrets.token_hex(32))
    _ensure_file(folder / "audit_key.jwk", json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True)))
    token_keys = folder / "token_keys"
    token_keys.mkdir(mode=0o700, exist_ok=True)
    ensure_secret(admin_password_file(instance))
    made = {
        "PAYFLOW_COLUMN_KEYS_FILE": str(folder / "column_keys.json"),
        "PAYFLOW_OTP_KEY_FILE": str(folder / "otp_key"),
        "PAYFLOW_AUDIT_KEY_FILE": str(folder / "audit_key.jwk"),
        "PAYFLOW_AUDIT_HEADS_DIR": str(instance.data_dir / "audit-heads"),
        "PAYFLOW_TOKEN_KEYS_DIR": str(token_keys),
        "PAYFLOW_BOOTSTRAP_ADMIN_PASSWORD_FILE": str(admin_password_file(instance)),
    }
    return {name: value for name, value in made.items() if not _is_set(name)}


def admin_password_file(instance: Instance) -> Path:
    """The generated password of the first administrator, user `admin`."""
    return instance.secrets_dir / "admin_password"


def _is_set(name: str) -> bool:
    return bool(os.environ.get(name) or os.environ.get(name.removesuffix("_FILE")))


def _ensure_file(path: Path, text: str) -> None:
    if path.exists():
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
