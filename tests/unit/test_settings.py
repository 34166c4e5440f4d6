"""Settings: what the environment, files with one value, and the configuration file say; typing errors are told."""

from __future__ import annotations

import importlib
import os
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from payflow.platform.settings import (
    CommonSettings,
    Given,
    Rate,
    SettingsError,
    convert_setting,
    describe,
    is_secret,
    read_settings,
    setting_types,
    shown,
    unknown_settings,
)
from payflow.run.errors import StartError
from payflow.run.instance import default_data_dir
from payflow.run.registry import SERVICES, find, service_names
from payflow.run.secrets import make_secrets
from payflow.run.supervisor.environment import is_production, setting
from payflow.run.supervisor.settings import check_names, check_values, settings_class


class Sample(CommonSettings, frozen=True, kw_only=True):
    """Settings of a service that does not exist."""

    sample_key: Annotated[str, describe("a secret")]
    sample_rate: Annotated[Rate, describe("a rate")] = Rate(100, 900)
    sample_flag: Annotated[bool, describe("a switch")] = False
    sample_choice: Annotated[Literal["red", "blue"], describe("a colour")] = "red"
    sample_share: Annotated[float, describe("a share"), msgspec.Meta(ge=0)] = 0.5


def read(**environ: str) -> Sample:
    """The settings of an environment; the required secret is there unless it is given."""
    return read_settings(Sample, {"PAYFLOW_SAMPLE_KEY": "k", **environ})


def config_file(folder: Path, text: str) -> str:
    path = folder / "payflow.toml"
    path.write_text(text)
    return str(path)


def test_what_nobody_set_has_its_default() -> None:
    settings = read()

    assert (settings.env, settings.host, settings.sample_rate) == ("development", "127.0.0.1", Rate(100, 900))


def test_a_required_setting_that_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match=r"^PAYFLOW_SAMPLE_KEY is not set\.$"):
        read_settings(Sample, {})


MALFORMED = [
    ("POSTGRES_POOL_SIZE", "three", "expected a whole number"),
    ("POSTGRES_POOL_SIZE", "0", "expected a whole number >= 1"),
    ("POSTGRES_POOL_SIZE", "", "expected a whole number"),
    ("PORT", "70000", "expected a whole number <= 65535"),
    ("DRAIN_S", "-1", "expected a number >= 0"),
    ("SAMPLE_SHARE", "nan", "expected a number"),
    ("SAMPLE_SHARE", "inf", "expected a finite number"),
    ("SAMPLE_FLAG", "yes", "expected true or false"),
    ("SAMPLE_CHOICE", "green", "expected red or blue"),
    ("ENV", "prod", "expected development or production"),
    ("SAMPLE_RATE", "100", "expected COUNT/WINDOW such as 100/15m"),
]


@pytest.mark.parametrize(("name", "value", "expected"), MALFORMED)
def test_a_malformed_value_is_told_with_its_name_and_what_is_expected(name: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as told:
        read(**{f"PAYFLOW_{name}": value})

    assert str(told.value).startswith(f"PAYFLOW_{name}={value!r}: {expected}")


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/15m", Rate(100, 900)),
        ("1/s", Rate(1, 1)),
        ("20/2h", Rate(20, 7200)),
        ("5/d", Rate(5, 86400)),
        (" 7/30s ", Rate(7, 30)),
    ],
)
def test_a_rate_is_a_count_in_a_window(text: str, rate: Rate) -> None:
    assert Rate.parse(text) == rate
    assert Rate.parse(str(rate)) == rate


@pytest.mark.parametrize("text", ["", "100", "0/15m", "-1/m", "1.5/m", "100/0m", "100/15", "100/15w", "100 / 15m"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="COUNT/WINDOW"):
        Rate.parse(text)


@pytest.mark.parametrize("text", ["true", "True", "1"])
def test_a_switch_is_on_in_every_usual_spelling(text: str) -> None:
    assert read(PAYFLOW_SAMPLE_FLAG=text).sample_flag is True


def test_a_secret_is_read_from_the_file_that_its_setting_names(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")

    settings = read_settings(Sample, {"PAYFLOW_SAMPLE_KEY_FILE": str(tmp_path / "key")})

    assert settings.sample_key == "from a file"


def test_a_file_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path) -> None:
    missing = tmp_path / "missing"

    with pytest.raises(SettingsError, match=f"^PAYFLOW_SAMPLE_KEY_FILE={missing}: No such file or directory$"):
        read_settings(Sample, {"PAYFLOW_SAMPLE_KEY_FILE": str(missing)})


def test_a_value_from_a_file_is_checked_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "rate").write_text("often")

    with pytest.raises(SettingsError, match=r"^PAYFLOW_SAMPLE_RATE_FILE='often': expected COUNT/WINDOW"):
        read(PAYFLOW_SAMPLE_RATE_FILE=str(tmp_path / "rate"))


class Checked(CommonSettings, frozen=True, kw_only=True):
    """Settings whose values must make sense to the one who uses them."""

    networks: Annotated[str, describe("a network", check=ip_network)] = ""
    sign_key: Annotated[str, describe("hexadecimal digits", check=bytes.fromhex)] = ""


def test_a_value_that_its_user_cannot_read_is_refused_with_the_users_own_words() -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(Checked, {"PAYFLOW_NETWORKS": "10.0.0.1/8"})

    assert str(refused.value) == "PAYFLOW_NETWORKS='10.0.0.1/8': 10.0.0.1/8 has host bits set"


def test_a_secret_that_its_user_cannot_read_is_not_shown() -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(Checked, {"PAYFLOW_SIGN_KEY": "hunter2"})

    assert str(refused.value).startswith("PAYFLOW_SIGN_KEY: ")
    assert "hunter2" not in str(refused.value)


def test_a_value_that_its_user_can_read_is_taken_as_it_is() -> None:
    settings = read_settings(Checked, {"PAYFLOW_NETWORKS": "10.0.0.0/8", "PAYFLOW_SIGN_KEY": "00ff"})

    assert (settings.networks, settings.sign_key) == ("10.0.0.0/8", "00ff")


WRONG_VALUES = [
    ("account", "AGENTS", "nobody"),
    ("partner_bank", "BANK_SECRETS", "[]"),
    ("risk", "RISK_RULES", "version ="),
    ("otp", "OTP_KEY", "short"),
    ("audit", "AUDIT_KEY", "{}"),
    ("gateway", "TRUSTED_PROXIES", "everybody"),
    ("notification", "WEBHOOK_ALLOWED_NETWORKS", "10.0.0.0/99"),
    ("confirm", "COLUMN_KEYS", "{}"),
]


@pytest.mark.parametrize(("service", "name", "value"), WRONG_VALUES)
def test_what_a_service_could_not_use_is_refused_when_its_settings_are_read(
    service: str, name: str, value: str
) -> None:
    row = find(service)
    assert row is not None
    cls = settings_class(importlib.import_module(row.module))

    with pytest.raises(SettingsError, match=f"^PAYFLOW_{name}(=.*)?: "):
        convert_setting(name.lower(), Given(value, f"PAYFLOW_{name}"), setting_types(cls)[name.lower()])


def test_a_malformed_secret_is_not_shown() -> None:
    class Strict(CommonSettings, frozen=True, kw_only=True):
        strict_key: Annotated[str, msgspec.Meta(min_length=30)]

    with pytest.raises(SettingsError) as told:
        read_settings(Strict, {"PAYFLOW_STRICT_KEY": "hunter2"})

    assert "hunter2" not in str(told.value)
    assert "PAYFLOW_STRICT_KEY" in str(told.value)


def test_the_configuration_file_sets_what_the_environment_does_not(tmp_path: Path) -> None:
    text = 'sample_rate = "5/m"\nlog_level = "debug"\nport = 4000\nsample_flag = true\n'

    settings = read(PAYFLOW_CONFIG_FILE=config_file(tmp_path, text), PAYFLOW_LOG_LEVEL="error")

    assert (settings.sample_rate, settings.port, settings.sample_flag) == (Rate(5, 60), 4000, True)
    assert settings.log_level == "error"


def test_the_environments_file_wins_over_the_configuration_files_value(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("of the service")
    config = config_file(tmp_path, 'postgres_password = "of the owner"\n')

    settings = read(PAYFLOW_CONFIG_FILE=config, PAYFLOW_POSTGRES_PASSWORD_FILE=str(tmp_path / "password"))

    assert settings.postgres_password == "of the service"


def test_the_configuration_file_can_name_a_file_with_a_secret(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file")
    config = config_file(tmp_path, f'sample_key_file = "{tmp_path / "key"}"\n')

    settings = read_settings(Sample, {"PAYFLOW_CONFIG_FILE": config})

    assert settings.sample_key == "from a file"


def test_a_malformed_value_in_the_configuration_file_is_told_with_the_files_name(tmp_path: Path) -> None:
    config = config_file(tmp_path, 'log_level = "loud"\n')

    with pytest.raises(SettingsError) as told:
        read(PAYFLOW_CONFIG_FILE=config)

    assert str(told.value) == f"log_level in {config}='loud': expected debug or info or warning or error"


@pytest.mark.parametrize("text", ["log_level = debug", "a = 1\na = 2", "\xff"])
def test_a_configuration_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(SettingsError, match=f"^PAYFLOW_CONFIG_FILE={path}: "):
        read(PAYFLOW_CONFIG_FILE=str(path))


def test_an_unknown_variable_is_found_and_others_variables_are_not_ours(tmp_path: Path) -> None:
    environ = {"PAYFLOW_LOG_LEVL": "x", "PAYFLOW_SAMPLE_KEY_FILE": "x", "LOG_LEVL": "x", "PAYFLOW_VENV": "x"}

    assert unknown_settings(environ, [Sample]) == ["PAYFLOW_LOG_LEVL"]


def test_an_unknown_key_of_the_configuration_file_is_found(tmp_path: Path) -> None:
    config = config_file(tmp_path, 'log_levl = "debug"\nlog_level = "debug"\n')

    assert unknown_settings({"PAYFLOW_CONFIG_FILE": config}, [Sample]) == ["log_levl"]


def test_a_mistyped_variable_stops_the_start_with_the_nearest_name() -> None:
    with pytest.raises(StartError) as told:
        check_names({"PAYFLOW_RATE_LIMIT_PER_UP": "1/s", "PAYFLOW_LOG_LEVL": "info"}, [Sample])

    assert told.value.message == "PAYFLOW_LOG_LEVL is no setting of Payflow: did you mean PAYFLOW_LOG_LEVEL?"


def test_a_variable_that_resembles_none_points_at_the_list() -> None:
    with pytest.raises(StartError, match="`payflow check-config --all` lists them"):
        check_names({"PAYFLOW_XYZZY": "1"}, [Sample])


def test_a_mistyped_key_of_the_configuration_file_stops_the_start(tmp_path: Path) -> None:
    config = config_file(tmp_path, "Log_Level = 'debug'\n")

    with pytest.raises(StartError) as told:
        check_names({"PAYFLOW_CONFIG_FILE": config}, [Sample])

    assert told.value.message == f"Log_Level (in {config}) is no setting of Payflow: did you mean log_level?"


def test_a_malformed_value_stops_the_start() -> None:
    with pytest.raises(StartError, match="PAYFLOW_SAMPLE_RATE='x'"):
        check_values({"PAYFLOW_SAMPLE_KEY": "k", "PAYFLOW_SAMPLE_RATE": "x"}, Sample)


@pytest.mark.parametrize(
    ("environ", "config", "expected"),
    [
        ({}, "", False),
        ({"PAYFLOW_ENV": "production"}, "", True),
        ({}, 'env = "production"', True),
        ({"PAYFLOW_ENV": "development"}, 'env = "production"', False),
    ],
)
def test_production_is_known_wherever_it_is_set(
    tmp_path: Path, environ: dict[str, str], config: str, expected: bool
) -> None:
    environ = environ | {"PAYFLOW_CONFIG_FILE": config_file(tmp_path, config)}

    assert is_production(environ) is expected


def test_a_word_that_is_nearly_production_is_refused_rather_than_taken_for_development() -> None:
    with pytest.raises(StartError, match="PAYFLOW_ENV=Production: choose development or production"):
        is_production({"PAYFLOW_ENV": "Production"})


def test_the_launcher_reads_addresses_from_the_configuration_file_too(tmp_path: Path) -> None:
    config = config_file(tmp_path, 'postgres_url = "postgresql://owner@db/payflow"\n')

    assert setting("POSTGRES_URL", {"PAYFLOW_CONFIG_FILE": config}) == "postgresql://owner@db/payflow"


def test_the_data_directory_can_be_named_in_the_configuration_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAYFLOW_DATA_DIR", raising=False)
    monkeypatch.setenv("PAYFLOW_CONFIG_FILE", config_file(tmp_path, 'data_dir = "/srv/payflow"\n'))

    assert default_data_dir() == Path("/srv/payflow")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("otp_key", "abc", "********"),
        ("bank_secrets", "{}", "********"),
        ("postgres_password", "abc", "********"),
        ("postgres_url", "postgresql://a:s3cret@h:5/db", "postgresql://a:********@h:5/db"),
        ("redis_url", "redis://:s3cret@h/0", "redis://:********@h/0"),
        ("redis_url", "unix:///tmp/x.sock", "unix:///tmp/x.sock"),
        ("token_keys_dir", "/srv/keys", "/srv/keys"),
        ("idempotency_key_days", 30, "30"),
    ],
)
def test_a_value_is_shown_without_its_secret(name: str, value: object, text: str) -> None:
    assert shown(name, value) == text


@pytest.mark.parametrize("service", service_names(SERVICES))
def test_every_setting_of_every_service_is_described_and_every_default_is_one_that_it_would_accept(
    service: str, tmp_path: Path
) -> None:
    cls = _settings_of(service)
    fields: list[Any] = list(msgspec.structs.fields(cls))
    secrets = make_secrets(tmp_path, [service])
    names = {f"PAYFLOW_{field.name.upper()}" for field in fields if field.required}
    required = {name: value for name, value in secrets.items() if name.removesuffix("_FILE") in names}
    given = {
        f"PAYFLOW_{field.name.upper()}": str(field.default)
        for field in fields
        if not field.required and field.default is not None
    }

    assert read_settings(cls, required | given) == read_settings(cls, required)
    assert [field.name for field in fields if not _description(cls, field.name)] == []
    assert all(isinstance(field.default, str) for field in fields if is_secret(field.name) and not field.required)


def _settings_of(service: str) -> type[CommonSettings]:
    import importlib

    cls: type[CommonSettings] = importlib.import_module(f"payflow.services.{service}.app").SETTINGS
    return cls


def _description(cls: type[CommonSettings], name: str) -> str:
    from payflow.platform.settings import description_of, setting_types

    return description_of(setting_types(cls)[name])


def test_this_process_is_not_run_with_settings_that_would_change_the_tests() -> None:
    assert [name for name in os.environ if name in ("PAYFLOW_ENV", "PAYFLOW_CONFIG_FILE")] == []
