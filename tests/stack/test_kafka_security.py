"""TLS and a login at Kafka, as production has them: what the settings say is asked of the brokers, and of us."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.kafka.config import kafka_of
from payflow.platform.eventlog.kafka.publisher import Publisher
from payflow.platform.eventlog.kafka.topics import ensure_topics
from payflow.platform.eventlog.kafka.wire import to_record
from payflow.platform.settings import CommonSettings, SettingsError, read_settings
from payflow_dev.kafka.cluster import Cluster, make_nodes
from tests.builders_kafka import kafka_for
from tests.fakes_audit import an_event
from tests.support.system import free_port_base

PASSWORD = "as long as it is known to both"


class Authority:
    """Signs certificates, in files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test CA {folder.name}")])
        self.file = folder / "ca.pem"
        folder.mkdir()
        certificate = self._sign(self._name, self._key, is_authority=True)
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1 and its key, each in a file."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate_file, key_file = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate = self._sign(subject, key, is_authority=False)
        certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate_file, key_file

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture(scope="module")
def secured(broker_dir: Path) -> Iterator[dict[str, str]]:
    """A broker that wants TLS with a client's certificate, and SCRAM; the settings by which it is used."""
    authority, base = Authority(broker_dir / "authority"), free_port_base()
    certificate, key = authority.issue("broker")
    keystore = broker_dir / "broker-both.pem"
    keystore.write_bytes(key.read_bytes() + certificate.read_bytes())
    client, secure = f"CLIENT://127.0.0.1:{base + 15}", f"SECURE://127.0.0.1:{base + 16}"
    more = {
        "listeners": f"{client},{secure},CONTROLLER://127.0.0.1:{base + 17}",
        "advertised.listeners": f"{client},{secure}",
        "listener.security.protocol.map": "CLIENT:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT,SECURE:SASL_SSL",
        "listener.name.secure.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.secure.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.secure.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(authority.file),
    }
    nodes = make_nodes(folder=broker_dir / "secured", ports=[(base + 15, base + 17)], more=more)
    with Cluster(nodes) as cluster:
        _add_user(cluster)
        own_certificate, own_key = authority.issue("payflow")
        yield {
            "PAYFLOW_KAFKA_BROKERS": f"127.0.0.1:{base + 16}",
            "PAYFLOW_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "PAYFLOW_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "PAYFLOW_KAFKA_SASL_USERNAME": "payflow-bank",
            "PAYFLOW_KAFKA_SASL_PASSWORD": PASSWORD,
            "PAYFLOW_KAFKA_CA_FILE": str(authority.file),
            "PAYFLOW_KAFKA_CERTIFICATE_FILE": str(own_certificate),
            "PAYFLOW_KAFKA_KEY_FILE": str(own_key),
        }


def _add_user(cluster: Cluster) -> None:
    admin = AdminClient(kafka_for(cluster.nodes).client("test-admin"))
    credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion("payflow-bank", credentials, PASSWORD.encode())
    for future in admin.alter_user_scram_credentials([change]).values():
        future.result(timeout=20)


def _use(settings: Mapping[str, str]) -> None:
    kafka = kafka_of(read_settings(CommonSettings, settings))
    assert kafka is not None
    ensure_topics(kafka, ["payments"])


async def test_with_the_right_settings_events_are_published(secured: dict[str, str]) -> None:
    kafka = kafka_of(read_settings(CommonSettings, secured))
    assert kafka is not None
    publisher = Publisher(kafka, client_id="test-secured")

    async with asyncio.timeout(60):
        refused = await publisher.publish([to_record(an_event(), position=1)])
    await publisher.close()

    assert refused == {}


@pytest.mark.parametrize(
    "change",
    [
        {"PAYFLOW_KAFKA_SASL_PASSWORD": "wrong"},
        {"PAYFLOW_KAFKA_SASL_USERNAME": "nobody"},
        {"PAYFLOW_KAFKA_CERTIFICATE_FILE": None, "PAYFLOW_KAFKA_KEY_FILE": None},
        {"PAYFLOW_KAFKA_CA_FILE": None},
        {"PAYFLOW_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
    ],
    ids=["a wrong password", "an unknown user", "no certificate of ours", "the system's authorities", "no TLS"],
)
async def test_with_one_wrong_setting_kafka_cannot_be_used(
    secured: dict[str, str], change: dict[str, str | None]
) -> None:
    settings = {name: text for name, text in (secured | change).items() if text is not None}

    with pytest.raises(Unavailable):
        await asyncio.to_thread(_use, settings)


async def test_a_broker_whose_certificate_another_authority_signed_is_not_believed(
    secured: dict[str, str], tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")

    with pytest.raises(Unavailable):
        await asyncio.to_thread(_use, secured | {"PAYFLOW_KAFKA_CA_FILE": str(other.file)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"PAYFLOW_KAFKA_SASL_PASSWORD": ""}, "PAYFLOW_KAFKA_SASL_USERNAME and PAYFLOW_KAFKA_SASL_PASSWORD"),
        ({"PAYFLOW_KAFKA_KEY": ""}, "belong together"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(
    secured: dict[str, str], change: dict[str, str], told: str
) -> None:
    with pytest.raises(SettingsError, match=told):
        kafka_of(read_settings(CommonSettings, secured | change))
