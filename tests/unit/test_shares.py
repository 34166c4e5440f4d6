"""`payflow secrets --shares` gives each service what it needs, and nothing of anybody else's."""

from __future__ import annotations

import json
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from payflow.run.registry import SERVICES, service_names
from payflow.run.secrets import make_secrets
from payflow.run.shares import share_out

HOSTS = ["pay.example", "127.0.0.1"]
NEEDED = {
    "gateway": {"admin_password"},
    "otp": {"otp_key"},
    "audit": {"audit_key.jwk"},
    "partner_bank": {"column_keys.json", "inbound_secret"},
    "other_bank": {"inbound_secret"},
    "account": {"column_keys.json"},
    "kyc": set(),
}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What `payflow secrets` makes."""
    folder = tmp_path / "secrets"
    make_secrets(folder, service_names(SERVICES))
    (folder / "roles").mkdir()
    (folder / "inbound_secret").write_text("between banks")
    return folder


@pytest.fixture
def shares(tmp_path: Path, secrets: Path) -> Path:
    """The folders of some services, shared out."""
    folder = tmp_path / "shares"
    for name in (*NEEDED, "postgres", "monitor", "tls"):
        (folder / name).mkdir(parents=True)
    assert set(share_out(secrets=secrets, shares=folder, hosts=HOSTS)) == {*NEEDED, "postgres", "monitor", "tls"}
    return folder


@pytest.mark.parametrize("service", NEEDED)
def test_a_folder_holds_its_services_secrets_alone(shares: Path, secrets: Path, service: str) -> None:
    found = {str(path.relative_to(shares / service)) for path in (shares / service).rglob("*") if path.is_file()}

    own_key = set() if service == "other_bank" else {f"services/{service}.jwk"}
    assert found == {"postgres_password", "services/services.jwks.json", *own_key, *NEEDED[service]}
    role = (secrets / "roles" / f"postgres_{service}").read_text()
    assert (shares / service / "postgres_password").read_text().strip() == role.strip()


def test_what_is_shared_out_is_closed_to_others(shares: Path) -> None:
    files = [path for path in shares.rglob("*") if path.is_file()]

    open_to_others = {str(path.relative_to(shares)) for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077}

    # The first is read by the database server's own user, the second by its exporter's; certificates are public.
    assert open_to_others == {"postgres/password", "monitor/password", "tls/payflow.crt"}


def test_a_repeat_changes_nothing(shares: Path, secrets: Path) -> None:
    before = {path: path.read_bytes() for path in shares.rglob("*") if path.is_file()}

    share_out(secrets=secrets, shares=shares, hosts=HOSTS)

    assert {path: path.read_bytes() for path in shares.rglob("*") if path.is_file()} == before


def test_a_new_key_of_somebody_reaches_everybody(shares: Path, secrets: Path) -> None:
    (secrets / "services" / "services.jwks.json").write_text(json.dumps({"keys": []}))

    share_out(secrets=secrets, shares=shares, hosts=HOSTS)

    assert json.loads((shares / "kyc/services/services.jwks.json").read_text()) == {"keys": []}


def test_the_certificate_is_for_the_hosts_and_fits_its_key(shares: Path) -> None:
    certificate = x509.load_pem_x509_certificate((shares / "tls/payflow.crt").read_bytes())

    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["pay.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
        shares / "tls/payflow.crt", shares / "tls/payflow.key"
    )


def test_an_owners_password_that_was_given_is_taken(
    shares: Path, secrets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (shares / "postgres/password").read_text()
    monkeypatch.setenv("PAYFLOW_POSTGRES_PASSWORD", "their own")

    share_out(secrets=secrets, shares=shares, hosts=HOSTS)

    assert made.strip() != "their own"
    assert (shares / "postgres/password").read_text() == "their own"
    assert (secrets / "postgres_owner").read_text() == "their own"


def test_folders_that_nobody_asked_for_are_not_made(secrets: Path, tmp_path: Path) -> None:
    (tmp_path / "few" / "kyc").mkdir(parents=True)
    (tmp_path / "few" / "unknown").mkdir()

    filled = share_out(secrets=secrets, shares=tmp_path / "few", hosts=HOSTS)

    assert filled == ["kyc"]
    assert sorted(path.name for path in (tmp_path / "few").iterdir()) == ["kyc", "unknown"]
    assert list((tmp_path / "few" / "unknown").iterdir()) == []
