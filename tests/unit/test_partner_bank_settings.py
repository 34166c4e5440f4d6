"""What production refuses: anything of the demo."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from payflow.platform.service import Runtime
from payflow.platform.settings import SettingsError
from payflow.services.partner_bank import app as partner_bank
from payflow_dev.other_bank import app as other_bank

BANK = {"bic": "NORDDEFFXXX", "name": "Nordbank AG", "url": "https://rail.example.org/iso20022"}
REAL = {
    "PAYFLOW_ENV": "production",
    "PAYFLOW_COLUMN_KEYS": json.dumps({"active": "k1", "keys": {"k1": "A" * 43 + "="}}),
    "PAYFLOW_AGENTS": json.dumps([BANK]),
    "PAYFLOW_INBOUND_SECRET": "a secret of our own",
    "PAYFLOW_POSTGRES_URL": "postgresql://payflow_partner_bank@127.0.0.1:1/payflow",
}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"PAYFLOW_INBOUND_SECRET": "demo-bank-secret"}, "PAYFLOW_INBOUND_SECRET"),
        ({"PAYFLOW_INBOUND_SECRET": ""}, "PAYFLOW_INBOUND_SECRET"),
        ({"PAYFLOW_AGENTS": json.dumps([{**BANK, "url": ""}])}, "PAYFLOW_AGENTS"),
        ({"PAYFLOW_AGENTS": json.dumps([{**BANK, "url": "http://rail.example.org/iso20022"}])}, "https.*NORDDEFFXXX"),
        ({"PAYFLOW_AGENTS": json.dumps([{**BANK, "url": "http://127.0.0.1:3012"}])}, "https.*NORDDEFFXXX"),
        ({"PAYFLOW_AGENTS": json.dumps([{**BANK, "url": "rail.example.org"}])}, "https.*NORDDEFFXXX"),
        ({"PAYFLOW_AGENTS": json.dumps([{**BANK, "url": "https:///iso20022"}])}, "https.*NORDDEFFXXX"),
        ({"PAYFLOW_AGENTS": json.dumps([{**BANK, "url": "https://[::1/iso20022"}])}, "https.*NORDDEFFXXX"),
        ({"PAYFLOW_AGENTS": "nobody"}, "PAYFLOW_AGENTS"),
        ({"PAYFLOW_BANK_SECRETS": "[]"}, "PAYFLOW_BANK_SECRETS"),
        ({"PAYFLOW_OWN_BIC": "payflow"}, "PAYFLOW_OWN_BIC"),
        ({"PAYFLOW_BANK_TIMEOUT_S": "0"}, "PAYFLOW_BANK_TIMEOUT_S"),
        ({"PAYFLOW_TAKEN_BACK_FOUR_EYES_ABOVE": "much"}, "PAYFLOW_TAKEN_BACK_FOUR_EYES_ABOVE"),
        ({"PAYFLOW_TAKEN_BACK_APPROVAL_S": "0"}, "PAYFLOW_TAKEN_BACK_APPROVAL_S"),
    ],
)
async def test_production_refuses_demo_banks_demo_secrets_and_nonsense(changes: dict[str, str], complaint: str) -> None:
    runtime = Runtime(service="partner_bank", instance="partner_bank", environ={**REAL, **changes})

    with pytest.raises(SettingsError, match=complaint):
        await partner_bank.build(runtime)
    await runtime.close()


@pytest.mark.parametrize(
    ("changes", "above_minor", "hours"),
    [
        ({}, 100_000, 72),
        ({"PAYFLOW_TAKEN_BACK_FOUR_EYES_ABOVE": "50,JPY=9", "PAYFLOW_TAKEN_BACK_APPROVAL_S": "3600"}, 5_000, 1),
    ],
)
async def test_the_limit_and_the_time_of_an_operators_word_are_settings(
    changes: dict[str, str], above_minor: int, hours: int
) -> None:
    runtime = Runtime(service="partner_bank", instance="partner_bank", environ={**REAL, **changes})

    rules = partner_bank.taken_back_rules(runtime.settings(partner_bank.SETTINGS))

    assert [rules.four_eyes.asks(minor, "EUR") for minor in (above_minor, above_minor + 1)] == [False, True]
    assert rules.approval == timedelta(hours=hours)


async def test_a_secret_for_each_bank_serves_instead_of_a_common_one() -> None:
    environ = {**REAL, "PAYFLOW_INBOUND_SECRET": "demo-bank-secret", "PAYFLOW_BANK_SECRETS": '{"NORDDEFFXXX": "own"}'}
    settings = Runtime(service="partner_bank", instance="partner_bank", environ=environ).settings(partner_bank.SETTINGS)

    agents, secrets = partner_bank.read_banks(settings)

    assert [agent.bic for agent in agents] == ["NORDDEFFXXX"]
    assert secrets.of("NORDDEFFXXX") == "own"


async def test_a_development_bank_may_be_reached_without_tls() -> None:
    agents = json.dumps([{**BANK, "url": "http://127.0.0.1:3012/iso20022"}])
    environ = {**REAL, "PAYFLOW_ENV": "development", "PAYFLOW_AGENTS": agents}
    settings = Runtime(service="partner_bank", instance="partner_bank", environ=environ).settings(partner_bank.SETTINGS)

    (agent,), _ = partner_bank.read_banks(settings)

    assert agent.url == "http://127.0.0.1:3012/iso20022"


async def test_the_simulated_bank_does_not_exist_in_production() -> None:
    runtime = Runtime(service="other_bank", instance="other_bank", environ=REAL)

    with pytest.raises(SettingsError, match="production"):
        await other_bank.build(runtime)
