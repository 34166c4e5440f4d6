"""Who reaches whom: the policies say what the contracts say, and nothing else is open."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import pytest
import yaml

import payflow.contracts
from payflow.contracts.operation import operations_of
from payflow.run.registry import SERVICES, service_names
from payflow.services.gateway.app import REPORTED, REQUIRED
from payflow_dev.deploy.helm import OUTSIDE, dashed
from tests.stack.helm.chart import CHART, ROOT, SETS, manifests, of_kind

COMPONENT = "app.kubernetes.io/component"


def allowed_by_contracts() -> set[tuple[str, str]]:
    """(caller, callee) of every operation, and of the gateway's look at everybody's health."""
    pairs = {("gateway", service) for service in (*REQUIRED, *REPORTED) if service != "postgres"}
    for info in pkgutil.iter_modules(payflow.contracts.__path__, prefix="payflow.contracts."):
        for contract in vars(importlib.import_module(info.name)).values():
            if isinstance(contract, type) and getattr(contract, "service", None) in service_names(SERVICES):
                for spec in operations_of(contract).values():
                    pairs |= {(caller, spec.service) for caller in spec.options.callers}
    known = {*service_names(SERVICES), "cli"}
    return {(dashed(a), dashed(b)) for a, b in pairs if a != b and a in known}


def component_of(peer: dict[str, Any]) -> str | None:
    return peer.get("podSelector", {}).get("matchLabels", {}).get(COMPONENT)


def pairs_in(policies: dict[str, dict[str, Any]], way: str, word: str) -> set[tuple[str, str]]:
    return {
        (component, own) if way == "ingress" else (own, component)
        for own, policy in policies.items()
        for rule in policy["spec"].get(way) or ()
        for peer in rule.get(word, ())
        if (component := component_of(peer))
    }


@pytest.mark.parametrize("name", SETS)
def test_who_may_connect_to_whom_is_what_the_contracts_say_in_both_directions(name: str) -> None:
    policies = of_kind(manifests(*SETS[name]), "NetworkPolicy")
    wanted = allowed_by_contracts()
    if "cli" not in policies:
        wanted = {(caller, callee) for caller, callee in wanted if caller != "cli"}

    assert pairs_in(policies, "ingress", "from") == wanted
    assert pairs_in(policies, "egress", "to") == wanted


def test_the_contracts_say_what_is_known_of_a_payments_way() -> None:
    wanted = allowed_by_contracts()

    assert {("gateway", "confirm"), ("confirm", "account"), ("risk", "ofac"), ("otp", "notification")} <= wanted
    assert ("kyc", "confirm") not in wanted
    assert ("notification", "otp") not in wanted


@pytest.mark.parametrize("name", SETS)
def test_everything_is_denied_first(name: str) -> None:
    objects = manifests(*SETS[name])
    denial = next(e for e in objects if e["metadata"]["name"] == "payflow-default-deny")

    assert denial["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in denial["spec"]
    assert "egress" not in denial["spec"]
    selected = denial["spec"]["podSelector"]["matchLabels"].items()
    owners = [e for e in objects if e["kind"] in ("Deployment", "Job")]
    assert len(owners) > 10
    for owner in owners:
        assert selected <= owner["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("name", SETS)
def test_no_rule_lets_everybody_in_or_everything_out(name: str) -> None:
    for own, policy in of_kind(manifests(*SETS[name]), "NetworkPolicy").items():
        for way, word in (("ingress", "from"), ("egress", "to")):
            for rule in policy["spec"].get(way) or ():
                assert rule.get(word), own
                assert rule.get("ports"), own
                assert all(rule[word]), own


def test_only_the_gateways_public_port_and_the_banks_address_are_open_to_the_controller() -> None:
    open_to_it = {
        (own, port["port"])
        for own, policy in of_kind(manifests(*SETS["everything"]), "NetworkPolicy").items()
        for rule in policy["spec"].get("ingress") or ()
        if "ingress-nginx" in str(rule["from"])
        for port in rule["ports"]
    }

    assert open_to_it == {("gateway", "public"), ("partner-bank", "http")}


def test_without_an_ingress_nobody_outside_reaches_anything() -> None:
    policies = of_kind(manifests(), "NetworkPolicy")

    assert "ingress-nginx" not in yaml.dump(policies)
    assert "monitoring" not in yaml.dump(policies)


def test_ingresses_lead_to_the_public_port_and_to_the_banks_address_only() -> None:
    ingresses = of_kind(manifests(*SETS["everything"]), "Ingress")

    def backends(service: str) -> list[tuple[str, str, str]]:
        return [
            (path["path"], path["pathType"], path["backend"]["service"]["port"]["name"])
            for rule in ingresses[service]["spec"]["rules"]
            for path in rule["http"]["paths"]
        ]

    assert backends("gateway") == [("/", "Prefix", "public")]
    assert backends("partner-bank") == [("/inbound/iso20022", "Exact", "http")]
    assert all(ingress["spec"]["tls"] for ingress in ingresses.values() if ingress is ingresses["gateway"])


def test_the_banks_address_is_the_one_that_partner_bank_answers() -> None:
    rails = (ROOT / "src/payflow/services/partner_bank/rails/inbound.py").read_text(encoding="utf-8")

    assert '"/inbound/iso20022"' in rails


@pytest.mark.parametrize("name", SETS)
def test_only_those_who_speak_with_the_world_go_out_and_never_to_private_addresses(name: str) -> None:
    going_out = {}
    for own, policy in of_kind(manifests(*SETS[name]), "NetworkPolicy").items():
        for rule in policy["spec"].get("egress") or ():
            for peer in rule["to"]:
                if "ipBlock" in peer:
                    going_out[own] = peer["ipBlock"]

    assert set(going_out) == {dashed(service) for service in OUTSIDE}
    for block in going_out.values():
        assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"} <= set(block["except"])


def outside_ports(values: tuple[str, ...]) -> dict[str, list[int]]:
    return {
        own: [port["port"] for port in rule["ports"]]
        for own, policy in of_kind(manifests(values=values), "NetworkPolicy").items()
        for rule in policy["spec"].get("egress") or ()
        if any("ipBlock" in peer for peer in rule["to"])
    }


def test_notification_alone_reaches_the_mail_servers_port() -> None:
    assert outside_ports(()) == {"notification": [443, 587], "partner-bank": [443]}
    assert outside_ports(("settings.PAYFLOW_SMTP_PORT=465",))["notification"] == [443, 465]
    own = ("settings.PAYFLOW_SMTP_HOST=", "services.notification.settings.PAYFLOW_TWILIO_ACCOUNT_SID=AC1")
    assert outside_ports(own)["notification"] == [443]


@pytest.mark.parametrize("name", SETS)
def test_every_service_and_the_migration_reach_the_database_and_only_the_gateway_the_cache(name: str) -> None:
    policies = of_kind(manifests(*SETS[name]), "NetworkPolicy")

    def reaching(label: str) -> set[str]:
        return {own for own, policy in policies.items() if label in str(policy["spec"].get("egress", ""))}

    services = {dashed(service) for service in service_names(SERVICES)}
    assert reaching("cnpg.io/cluster") == services | {"migration"}
    assert reaching("'valkey'") == {"gateway"}


def test_the_callers_file_is_generated_and_names_every_service() -> None:
    callers = yaml.safe_load((CHART / "files/callers.yaml").read_text(encoding="utf-8"))

    assert set(callers) == {dashed(service) for service in service_names(SERVICES)}
    assert {(caller, callee) for callee, names in callers.items() for caller in names} == allowed_by_contracts()


def test_those_who_speak_with_the_world_are_the_ones_whose_code_does() -> None:
    services = ROOT / "src/payflow/services"
    speaking = {
        service
        for service in service_names(SERVICES)
        for file in (services / service).rglob("*.py")
        if "import aiohttp" in file.read_text(encoding="utf-8")
    }

    # The gateway asks the other services for their health, and nobody else.
    assert speaking - {"gateway"} == set(OUTSIDE)
