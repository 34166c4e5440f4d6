"""What sessions are like behind PgBouncer, and which address is whose."""

from __future__ import annotations

import pytest

from payflow.platform.pooling import as_user_of, is_kept, session_settings
from payflow.platform.settings import CommonSettings, SettingsError, read_settings
from payflow.run.errors import StartError
from payflow.run.supervisor.environment import Backends, direct_postgres, external_postgres, pooled_postgres
from payflow.services.notification.app import NotificationSettings

POOLED = "postgresql://owner:s%40cret@bouncer:6432/payflow"


@pytest.mark.parametrize(
    ("direct", "expected"),
    [
        ("postgresql://db:5432/payflow", "postgresql://owner:s%40cret@db:5432/payflow"),
        ("postgresql://db1:5432,db2:5432/payflow?x=1", "postgresql://owner:s%40cret@db1:5432,db2:5432/payflow?x=1"),
        ("postgresql://other@db:5432/payflow", "postgresql://other@db:5432/payflow"),
        ("postgresql:///payflow?host=/run", "postgresql://owner:s%40cret@/payflow?host=/run"),
        ("", ""),
    ],
)
def test_an_address_without_a_role_takes_that_of_the_other(direct: str, expected: str) -> None:
    assert as_user_of(direct, POOLED) == expected


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("account, event_log", True),
        ("account,event_log", True),
        ('"$user", public', False),
        ("confirm, event_log", False),
    ],
)
def test_a_search_path_is_recognised_however_it_is_written(path: str, kept: bool) -> None:
    assert is_kept(path, "account") is kept


def test_a_session_without_a_schema_gets_no_search_path() -> None:
    assert "search_path" not in session_settings("")


def test_pooling_by_transaction_needs_a_direct_address() -> None:
    with pytest.raises(SettingsError, match="PAYFLOW_POSTGRES_DIRECT_URL"):
        read_settings(CommonSettings, {"PAYFLOW_POSTGRES_POOLING": "transaction"})


def test_a_class_with_a_check_of_its_own_checks_that_too() -> None:
    settings = NotificationSettings(column_keys="", postgres_pooling="transaction")

    with pytest.raises(SettingsError, match="PAYFLOW_POSTGRES_DIRECT_URL"):
        settings.check()


def test_the_owner_works_past_pgbouncer_and_services_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYFLOW_POSTGRES_URL", "postgresql://owner@bouncer:6432/payflow")
    monkeypatch.setenv("PAYFLOW_POSTGRES_DIRECT_URL", "postgresql://db:5432/payflow")
    monkeypatch.setenv("PAYFLOW_POSTGRES_PASSWORD", "p")

    assert external_postgres() == "postgresql://owner:p@db:5432/payflow"
    assert pooled_postgres() == "postgresql://owner:p@bouncer:6432/payflow"


def test_a_direct_address_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PAYFLOW_POSTGRES_URL", raising=False)
    monkeypatch.setenv("PAYFLOW_POSTGRES_DIRECT_URL", "postgresql://db:5432/payflow")

    with pytest.raises(StartError, match="PAYFLOW_POSTGRES_URL"):
        direct_postgres()


def test_a_service_gets_both_addresses_with_its_own_role_and_no_password() -> None:
    backends = Backends(postgres_owner_url=POOLED, redis_url="", postgres_direct_url="postgresql://o:p@db/payflow")

    assert backends.postgres_settings_for("kyc") == {
        "PAYFLOW_POSTGRES_URL": "postgresql://payflow_kyc@bouncer:6432/payflow",
        "PAYFLOW_POSTGRES_DIRECT_URL": "postgresql://payflow_kyc@db/payflow",
    }
