"""Values that cannot work are refused before anything is installed, with a line that says where."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from payflow_dev.deploy.helm import rows, settable
from tests.stack.helm.chart import CHART, KUBERNETES, ROOT, manifests, run_helm, template

NONSENSE = {
    "a mistyped setting": ("settings.PAYFLOW_LOG_LEVL=info", "additional properties 'PAYFLOW_LOG_LEVL' not allowed"),
    "a level that is none": ("settings.PAYFLOW_LOG_LEVEL=loud", "/settings/PAYFLOW_LOG_LEVEL"),
    "a secret among the settings": ("settings.PAYFLOW_OTP_KEY=abc", "'PAYFLOW_OTP_KEY' not allowed"),
    "what the chart says itself": ("settings.PAYFLOW_PORT=80", "'PAYFLOW_PORT' not allowed"),
    "a number beyond its bounds": ("settings.PAYFLOW_POSTGRES_POOL_SIZE=500", "maximum: got 500, want 100"),
    "a rate that is none": ("settings.PAYFLOW_RATE_LIMIT_PER_IP=many", "does not match pattern"),
    "a service that is none": ("services.acount.replicas=2", "additional properties 'acount' not allowed"),
    "no replicas": ("defaults.replicas=0", "/defaults/replicas"),
    "replicas of a word": ("services.account.replicas=two", "/services/account/replicas"),
    "a mistyped key": ("services.account.replcas=2", "'replcas' not allowed"),
    "a mistyped key above all": ("ingres.enabled=true", "additional properties 'ingres' not allowed"),
    "an ingress without a host": ("ingress.enabled=true", "/ingress/host"),
    "an ingress for banks without a host": ("ingress.banks.enabled=true", "/ingress/banks/host"),
    "an environment that is none": ("environment=staging", "/environment"),
    "a password in an address": ("redis.url=redis://:secret@valkey:6379/0", "/redis/url"),
    "no address and no Secret for Redis": ("redis.url=", "/redis"),
    "a way to sign in that is none": ("postgres.sslMode=prefer", "/postgres/sslMode"),
    "a root user": ("podSecurityContext.runAsUser=0", "/podSecurityContext/runAsUser"),
    "a writable root file system": ("securityContext.readOnlyRootFilesystem=false", "/securityContext"),
    "more rights than its parent": ("securityContext.allowPrivilegeEscalation=true", "/securityContext"),
    "kept capabilities": ("securityContext.capabilities.drop={NET_RAW}", "/securityContext/capabilities/drop"),
    "added capabilities": ("securityContext.capabilities.add={NET_ADMIN}", "'add' not allowed"),
    "a proxy that is no network": ("ingress.trustedProxies={all}", "/ingress/trustedProxies/0"),
    "a digest that is none": ("image.digest=latest", "/image/digest"),
    "external secrets of no store": ("externalSecrets.enabled=true", "/externalSecrets/store/name"),
    "a disruption of nobody": ("defaults.disruptionBudget.maxUnavailable=0", "/defaults/disruptionBudget"),
    "everybody may come in": ("networkPolicy.prometheus.from={}", "/networkPolicy/prometheus/from"),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_nonsense_is_refused_with_its_place(what: str) -> None:
    value, message = NONSENSE[what]

    done = template(values=(value,))

    assert done.returncode != 0, what
    assert message in done.stderr


def test_production_without_a_channel_for_codes_is_refused_at_once() -> None:
    done = run_helm("template", "payflow", str(CHART), "--kube-version", f"{KUBERNETES}.0")

    assert done.returncode != 0
    assert "no channel for one-time codes is set" in done.stderr


@pytest.mark.parametrize(
    "values",
    [
        ("settings.PAYFLOW_TWILIO_ACCOUNT_SID=AC1",),
        ("services.notification.settings.PAYFLOW_SMTP_HOST=mail.example.org",),
        (
            *("secrets.extra[0].setting=PAYFLOW_SENDGRID_API_KEY", "secrets.extra[0].existingSecret=mail"),
            *("secrets.extra[0].key=key", "secrets.extra[0].services={notification}"),
        ),
        ("environment=development",),
    ],
    ids=["a setting", "a setting of notification", "a secret setting", "development"],
)
def test_a_channel_may_be_named_at_each_place_and_development_needs_none(values: tuple[str, ...]) -> None:
    options = [option for value in values for option in ("--set", value)]

    done = run_helm("template", "payflow", str(CHART), "--kube-version", f"{KUBERNETES}.0", *options)

    assert done.returncode == 0, done.stderr


def test_the_values_of_the_guide_are_taken(tmp_path: Path) -> None:
    guide = (ROOT / "docs/howto/run-on-kubernetes.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^```yaml\n(# mine\.yaml\n.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "mine.yaml").write_text(text)
    files = ("--values", str(CHART / "values-small.yaml"), "--values", str(tmp_path / "mine.yaml"))

    done = run_helm("template", "payflow", str(CHART), "--kube-version", f"{KUBERNETES}.0", *files)

    assert done.returncode == 0, done.stderr
    assert "PAYFLOW_SMTP_PASSWORD_FILE" in done.stdout


def test_a_channel_of_which_notification_knows_nothing_is_none() -> None:
    given = ("setting=PAYFLOW_SENDGRID_API_KEY", "existingSecret=mail", "key=key", "services={gateway}")
    options = [option for value in given for option in ("--set", f"secrets.extra[0].{value}")]

    done = run_helm("template", "payflow", str(CHART), "--kube-version", f"{KUBERNETES}.0", *options)

    assert "no channel for one-time codes is set" in done.stderr


def test_a_secret_setting_comes_from_a_secret_of_a_known_name_only() -> None:
    entry = "secrets.extra[0].{}"
    given = {"existingSecret": "banks", "key": "secrets.json", "services": "{partner-bank}"}
    values = tuple(f"{entry.format(name)}={value}" for name, value in given.items())

    good = template(values=(*values, f"{entry.format('setting')}=PAYFLOW_BANK_SECRETS"))
    bad = template(values=(*values, f"{entry.format('setting')}=PAYFLOW_BANK_SECRET"))

    assert good.returncode == 0, good.stderr
    assert bad.returncode != 0
    assert "/secrets/extra/0/setting" in bad.stderr


def test_a_further_secret_reaches_the_services_that_it_is_for_and_no_other() -> None:
    values = ("setting=PAYFLOW_BANK_SECRETS", "existingSecret=banks", "key=secrets.json", "services={partner-bank}")
    objects = manifests(values=tuple(f"secrets.extra[0].{value}" for value in values))

    having = {
        entry["metadata"]["name"]
        for entry in objects
        if entry["kind"] == "Deployment" and "PAYFLOW_BANK_SECRETS_FILE" in json.dumps(entry)
    }
    assert having == {"payflow-partner-bank"}


def test_the_schema_knows_every_setting_and_every_service() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

    assert list(schema["$defs"]["settings"]["properties"]) == list(settable())
    assert list(schema["properties"]["services"]["properties"]) == list(rows())
