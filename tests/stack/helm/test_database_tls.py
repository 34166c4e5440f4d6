"""The database's address that the chart writes makes the driver check the server's certificate and name.

The server here speaks PostgreSQL's way into TLS, reads who signs in, and refuses the password.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.stack.helm.chart import environment, manifests, of_kind

REFUSAL = b"SFATAL\0VFATAL\0C28P01\0Mno such password\0\0"


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for a host that it signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder.mkdir()
    (folder / "ca.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form, without = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, without))
    return folder / "ca.crt", folder / "key"


@asynccontextmanager
async def database(certificate: tuple[Path, Path]) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Its port, and what was said at each sign-in once it was encrypted."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readexactly(8)
            writer.write(b"S")
            await writer.start_tls(tls)
            (length,) = struct.unpack("!i", await reader.readexactly(4))
            heard.append(await reader.readexactly(length - 4))
            writer.write(b"E" + struct.pack("!i", len(REFUSAL) + 4) + REFUSAL)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heard
    finally:
        server.close()


def address(port: int, authority: Path) -> str:
    objects = manifests()
    pod = of_kind(objects, "Deployment")["account"]["spec"]["template"]["spec"]
    url = environment(objects, pod)["PAYFLOW_POSTGRES_URL"]
    assert "@payflow-db-rw:5432/" in url
    assert "sslrootcert=/etc/payflow/postgres/ca.crt" in url
    moved = url.replace("payflow-db-rw:5432", f"localhost:{port}")
    return moved.replace("/etc/payflow/postgres/ca.crt", str(authority))


async def test_a_service_signs_in_as_its_role_to_the_server_whose_certificate_it_knows(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "own", "localhost")

    async with database(certificate) as (port, heard):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(address(port, certificate[0]), password="x", timeout=10)

    assert b"user\0payflow_account\0" in heard[0]
    assert b"database\0payflow\0" in heard[0]


@pytest.mark.parametrize("what", ["another authority", "another name"])
async def test_nothing_is_said_to_a_server_that_cannot_show_who_it_is(tmp_path: Path, what: str) -> None:
    name = "elsewhere.example" if what == "another name" else "localhost"
    certificate = make_certificate(tmp_path / "own", name)
    known = make_certificate(tmp_path / "other", name)[0] if what == "another authority" else certificate[0]

    async with database(certificate) as (port, heard):
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncpg.connect(address(port, known), password="x", timeout=10)

    assert heard == []
