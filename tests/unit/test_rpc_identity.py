"""Who may call whom: signed identities of services, and everything that is none."""

from __future__ import annotations

import base64
import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from payflow.contracts.account import Account
from payflow.platform.rpc.identity import (
    JWKS_FILE,
    TOKEN_LIFETIME_S,
    CallerNotAllowed,
    ServiceIdentityRequired,
    Signer,
    Verifier,
    ensure_keys,
)
from payflow.platform.rpc.server import RpcServer
from payflow.services.account.api import AccountApi
from tests.builders import FixedClock
from tests.fakes import FakeAccountStore


@pytest.fixture
def keys_dir(tmp_path: Path) -> Path:
    ensure_keys(tmp_path, ["account", "confirm", "risk"])
    return tmp_path


@pytest.fixture
def verifier(keys_dir: Path) -> Verifier:
    return Verifier.load(service="account", directory=keys_dir)


def key_of(service: str, keys_dir: Path) -> OKPKey:
    return OKPKey.import_key(json.loads((keys_dir / f"{service}.jwk").read_text()))


def a_token(key: Any, *, kid: str = "confirm", alg: str = "Ed25519", **changes: Any) -> str:
    """A token of confirm for account, with the given claims changed; None takes one out."""
    now = int(time.time())
    claims = {"iss": "confirm", "aud": "account", "iat": now, "exp": now + 60, **changes}
    claims = {name: value for name, value in claims.items() if value is not None}
    return "Bearer " + jwt.encode({"alg": alg, "kid": kid}, claims, key, algorithms=[alg])


def test_a_services_token_names_its_caller(keys_dir: Path, verifier: Verifier) -> None:
    signer = Signer.load(service="confirm", directory=keys_dir)

    authorization = f"Bearer {signer.token_for('account')}"

    assert verifier.caller_of(authorization) == "confirm"
    assert verifier.caller_of(authorization) == "confirm"


def test_a_token_is_signed_once_for_many_calls(keys_dir: Path) -> None:
    signer = Signer.load(service="confirm", directory=keys_dir)

    assert signer.token_for("account") == signer.token_for("account")
    assert signer.token_for("account") != signer.token_for("risk")


def test_a_token_is_renewed_at_half_its_life(keys_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer.load(service="confirm", directory=keys_dir)
    first = signer.token_for("account")
    now = time.time()

    monkeypatch.setattr(time, "time", lambda: now + TOKEN_LIFETIME_S / 2 + 1)

    assert signer.token_for("account") != first


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer nonsense", "Bearer a.b.c", "Basic Y29uZmlybTpzZWNyZXQ=", "\xff\xfe"],
)
def test_what_is_no_token_is_no_identity(verifier: Verifier, authorization: str) -> None:
    with pytest.raises(ServiceIdentityRequired):
        verifier.caller_of(authorization)


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 1},
        {"exp": None},
        {"aud": "risk"},
        {"aud": None},
        {"aud": ["account", "risk"]},
        {"iss": "risk"},
        {"iss": None},
        {"iss": ""},
    ],
    ids=lambda changes: " ".join(changes),
)
def test_a_token_with_wrong_claims_is_refused(keys_dir: Path, verifier: Verifier, changes: dict[str, Any]) -> None:
    token = a_token(key_of("confirm", keys_dir), **changes)

    with pytest.raises(ServiceIdentityRequired):
        verifier.caller_of(token)


def test_a_known_token_is_refused_once_it_has_expired(
    keys_dir: Path, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = a_token(key_of("confirm", keys_dir))
    assert verifier.caller_of(token) == "confirm"
    now = time.time()

    monkeypatch.setattr(time, "time", lambda: now + 61)

    with pytest.raises(ServiceIdentityRequired):
        verifier.caller_of(token)


def test_a_service_cannot_speak_as_another(keys_dir: Path, verifier: Verifier) -> None:
    risk = key_of("risk", keys_dir)

    for token in (a_token(risk, kid="risk", iss="confirm"), a_token(risk, kid="confirm", iss="confirm")):
        with pytest.raises(ServiceIdentityRequired):
            verifier.caller_of(token)


def test_a_caller_whose_key_nobody_knows_is_refused(verifier: Verifier) -> None:
    stranger = OKPKey.generate_key("Ed25519", {"kid": "stranger"})

    with pytest.raises(ServiceIdentityRequired):
        verifier.caller_of(a_token(stranger, kid="stranger", iss="stranger"))


@pytest.mark.parametrize("part", [0, 1, 2], ids=["header", "claims", "signature"])
def test_a_token_that_was_changed_is_refused(keys_dir: Path, verifier: Verifier, part: int) -> None:
    token = a_token(key_of("confirm", keys_dir))
    parts = token.removeprefix("Bearer ").split(".")
    middle = len(parts[part]) // 2
    parts[part] = parts[part][:middle] + ("A" if parts[part][middle] != "A" else "B") + parts[part][middle + 1 :]

    with pytest.raises(ServiceIdentityRequired):
        verifier.caller_of("Bearer " + ".".join(parts))


def test_a_token_without_a_signature_is_refused(verifier: Verifier) -> None:
    def part(document: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()

    claims = {"iss": "confirm", "aud": "account", "exp": int(time.time()) + 60}

    with pytest.raises(ServiceIdentityRequired):
        verifier.caller_of(f"Bearer {part({'alg': 'none', 'kid': 'confirm'})}.{part(claims)}.")


def test_a_public_key_used_as_a_shared_secret_is_refused(keys_dir: Path, verifier: Verifier) -> None:
    public = key_of("confirm", keys_dir).as_dict(private=False)["x"]
    secret = OctKey.import_key(str(public))

    with pytest.raises(ServiceIdentityRequired):
        verifier.caller_of(a_token(secret, alg="HS256"))


def test_a_service_that_joined_later_is_known_without_a_restart(keys_dir: Path, verifier: Verifier) -> None:
    ensure_keys(keys_dir, ["account", "confirm", "risk", "newcomer"])
    later = time.time() + 5
    os.utime(keys_dir / JWKS_FILE, (later, later))
    signer = Signer.load(service="newcomer", directory=keys_dir)

    assert verifier.caller_of(f"Bearer {signer.token_for('account')}") == "newcomer"


def test_keys_are_made_once_and_private_ones_are_their_owners_alone(keys_dir: Path) -> None:
    before = (keys_dir / "confirm.jwk").read_text()

    ensure_keys(keys_dir, ["account", "confirm", "risk"])

    assert (keys_dir / "confirm.jwk").read_text() == before
    assert stat.S_IMODE((keys_dir / "confirm.jwk").stat().st_mode) == 0o600
    public = json.loads((keys_dir / JWKS_FILE).read_text())["keys"]
    assert sorted(key["kid"] for key in public) == ["account", "confirm", "risk"]
    assert all("d" not in key for key in public)


def test_each_operation_takes_only_the_callers_that_its_contract_names(keys_dir: Path, verifier: Verifier) -> None:
    server = RpcServer(verifier=verifier)
    api = AccountApi(store=FakeAccountStore(), banks=None, clock=FixedClock(), ids=None)
    server.add(Account, api)
    transfer, resolve = server.route_for("/rpc/account/transfer"), server.route_for("/rpc/account/resolve")
    assert transfer is not None
    assert resolve is not None
    confirm = Signer.load(service="confirm", directory=keys_dir)
    risk = Signer.load(service="risk", directory=keys_dir)

    assert server.check_caller(transfer, f"Bearer {confirm.token_for('account')}") == "confirm"
    with pytest.raises(CallerNotAllowed, match=r"risk may not call account\.transfer"):
        server.check_caller(transfer, f"Bearer {risk.token_for('account')}")
    with pytest.raises(ServiceIdentityRequired):
        server.check_caller(transfer, "")


def test_an_implementation_that_lacks_an_operation_is_not_served(verifier: Verifier) -> None:
    with pytest.raises(TypeError, match=r"does not implement Account\."):
        RpcServer(verifier=verifier).add(Account, object())
