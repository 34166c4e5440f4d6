"""Giving each process of a cluster the secrets that it needs and no others: one folder a service.

Whoever mounts the folder `<shares>/account` into account's container, and nothing else, has given it its own key, its
own password and the keys of its encrypted columns, and nobody else's.
"""

from __future__ import annotations

import datetime as dt
import importlib
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from payflow.platform.migrate import MONITOR
from payflow.platform.rpc.identity import JWKS_FILE
from payflow.run.datadir import ensure_secret, write_atomically
from payflow.run.registry import Deployable, deployables
from payflow.run.supervisor.environment import setting
from payflow.run.supervisor.settings import settings_class

# Folders beside the services' own: the database server's, its watcher's, and the edge's.
POSTGRES: Final = "postgres"
TLS: Final = "tls"
PASSWORD: Final = "postgres_password"  # noqa: S105 - a file's name
KEYS: Final = "services"
# The file of each secret setting that a service may have, in the folder that `payflow secrets` makes.
FILES: Final = {
    "column_keys": "column_keys.json",
    "otp_key": "otp_key",
    "audit_key": "audit_key.jwk",
    "inbound_secret": "inbound_secret",
    "bootstrap_admin_password": "admin_password",
}
_CERTIFICATE_DAYS: Final = 825


def secret_settings(row: Deployable) -> dict[str, str]:
    """The settings of a service that name a secret, and that secret's file: {"otp_key": "otp_key"}."""
    fields = {field.name for field in msgspec.structs.fields(settings_class(importlib.import_module(row.module)))}
    return {name: file for name, file in FILES.items() if name in fields}


def share_out(*, secrets: Path, shares: Path, hosts: Sequence[str]) -> list[str]:
    """Fill the folders that are there under `shares`: one named after each service, `postgres`, `monitor` and `tls`.

    `secrets` is the folder of `payflow secrets`. `tls` gets a certificate that it signs itself for `hosts`, unless
    there is one. Safe to repeat: what is there is brought up to date. Returns the names of the filled folders.
    """
    filled = []
    for row in {row.service: row for row in deployables(is_production=False)}.values():
        folder = shares / row.service
        if folder.is_dir():
            _fill(row, secrets=secrets, folder=folder)
            filled.append(row.service)
    owner = _owner_password(secrets / "postgres_owner")
    if (shares / POSTGRES).is_dir():
        # Read by the database server's user, whoever that is; only its own container mounts the folder.
        write_atomically(shares / POSTGRES / "password", owner, mode=0o644)
        filled.append(POSTGRES)
    if (shares / MONITOR).is_dir():
        # Read by the exporter's user, likewise.
        password = ensure_secret(secrets / "roles" / f"postgres_{MONITOR}")
        write_atomically(shares / MONITOR / "password", password, mode=0o644)
        filled.append(MONITOR)
    if (shares / TLS).is_dir():
        ensure_certificate(shares / TLS, hosts=hosts)
        filled.append(TLS)
    return filled


def _owner_password(path: Path) -> str:
    """The password of the database's owner: the one that PAYFLOW_POSTGRES_PASSWORD says, else one that is made once."""
    given = setting("POSTGRES_PASSWORD")
    if given:
        _copy_text(given, path)
    return ensure_secret(path)


def _fill(row: Deployable, *, secrets: Path, folder: Path) -> None:
    (folder / KEYS).mkdir(mode=0o700, exist_ok=True)
    own_key = f"{row.service}.jwk"
    for name in (JWKS_FILE, own_key):
        if (secrets / "services" / name).is_file():  # the simulated other bank calls nobody and has no key
            _copy(secrets / "services" / name, folder / KEYS / name)
    _copy_text(ensure_secret(secrets / "roles" / f"postgres_{row.service}"), folder / PASSWORD)
    for file in secret_settings(row).values():
        _copy(secrets / file, folder / file)


def ensure_certificate(folder: Path, *, hosts: Sequence[str]) -> None:
    """A key and a certificate that it signs itself, `payflow.key` and `payflow.crt`, unless there is one."""
    if (folder / "payflow.crt").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=_CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_atomically(folder / "payflow.key", private.decode())
    write_atomically(folder / "payflow.crt", certificate.public_bytes(serialization.Encoding.PEM).decode(), mode=0o644)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _copy(source: Path, target: Path) -> None:
    _copy_text(source.read_text(encoding="utf-8"), target)


def _copy_text(text: str, target: Path) -> None:
    if not target.exists() or target.read_text(encoding="utf-8") != text:
        write_atomically(target, text)
