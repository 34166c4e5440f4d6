"""What of the Helm chart is generated from the code."""

from __future__ import annotations

import json

import pytest
import yaml

from payflow.platform.settings import is_secret
from payflow.run.registry import SERVICES, service_names
from payflow_dev.deploy import helm


def test_the_generated_files_of_the_chart_are_up_to_date() -> None:
    stale = [path for path, text in helm.files().items() if (helm.ROOT / path).read_text(encoding="utf-8") != text]

    assert stale == [], "run python -m payflow_dev.deploy.helm"


def test_both_gateways_are_one_deployment() -> None:
    assert list(helm.services()) == [helm.dashed(service) for service in service_names(SERVICES)]
    assert helm.services()["gateway"]["port"] == 3001
    assert helm.services()["gateway"]["publicPort"] == 8080


def test_a_service_gets_the_secrets_that_its_settings_name() -> None:
    secrets = {name: set(service["secrets"].values()) for name, service in helm.services().items()}

    assert secrets["otp"] == {"otp_key"}
    assert secrets["partner-bank"] == {"column_keys.json", "inbound_secret"}
    assert secrets["kyc"] == set()


def test_only_a_service_that_uses_the_cache_needs_it() -> None:
    needs = {name: service["needs"] for name, service in helm.services().items()}

    assert {name for name, found in needs.items() if "cache" in found} == {"gateway"}
    assert needs["audit"] == ["heads"]


def test_the_gateway_reaches_every_service_because_it_tells_of_their_health() -> None:
    callers = helm.callers()

    assert all("gateway" in names for callee, names in callers.items() if callee != "gateway")
    assert callers["otp"] == ["confirm", "gateway"]
    assert callers["gateway"] == ["cli"]


def test_no_secret_can_be_set_as_a_plain_setting() -> None:
    names = [name.removeprefix("PAYFLOW_").lower() for name in helm.settable()]

    assert names
    assert not [name for name in names if is_secret(name)]
    assert "PAYFLOW_BANK_SECRETS" in helm.file_settings()
    assert "PAYFLOW_OTP_KEY" not in helm.file_settings()


def test_bounds_and_choices_of_a_setting_are_the_schemas() -> None:
    schema = json.loads(helm.files()["deploy/helm/payflow/values.schema.json"])["$defs"]["settings"]["properties"]

    assert schema["PAYFLOW_LOG_LEVEL"]["enum"] == ["debug", "info", "warning", "error"]
    assert (schema["PAYFLOW_ACCESS_TOKEN_S"]["minimum"], schema["PAYFLOW_ACCESS_TOKEN_S"]["maximum"]) == (60, 86400)
    assert schema["PAYFLOW_DEMO_CHANNEL"]["enum"] == [True, False, "true", "false"]


def test_the_alerts_are_prometheus_own_file() -> None:
    copied = yaml.safe_load(helm.files()["deploy/helm/payflow/files/alerts.yml"])

    own = yaml.safe_load((helm.ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))
    assert copied["groups"] == [group for group in own["groups"] if group["name"] != "payflow-servers"]


def test_values_that_have_lost_the_two_lines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helm, "BEGIN", "# a line that is nowhere")

    with pytest.raises(ValueError, match="between which services stand"):
        helm.files()
