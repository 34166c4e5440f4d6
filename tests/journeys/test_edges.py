"""Health, header fields and limits, as a load balancer, a browser and an impatient client see them."""

from __future__ import annotations

import asyncio
from datetime import datetime

import aiohttp
import pytest

from payflow.contracts.account import Account
from payflow.contracts.audit import Audit
from payflow.contracts.confirm import Confirm
from payflow.contracts.gateway import Gateway
from payflow.contracts.kyc import Kyc
from payflow.contracts.notification import Notification
from payflow.contracts.ofac import Ofac
from payflow.contracts.operation import OperationSpec, operations_of
from payflow.contracts.otp import Otp
from payflow.contracts.partner_bank import PartnerBank
from payflow.contracts.risk import Risk
from payflow.platform.rpc.identity import Signer
from payflow.run.registry import OTHER_BANK, SERVICES, Deployable, find
from tests.support.api import Api, Customer, Factory, new_key
from tests.support.system import System, running_system


async def test_the_public_health_tells_of_every_dependency(api: Api) -> None:
    answer = await api.send("GET", "/health")

    assert answer.status == 200
    assert answer.json.keys() == {"status", "service", "dependencies", "timestamp"}
    assert answer.json["status"] == "healthy"
    assert set(answer.json["dependencies"]) >= {"postgres", "redis", "confirm", "account", "risk"}
    assert set(answer.json["dependencies"].values()) == {"healthy"}
    assert datetime.fromisoformat(answer.json["timestamp"]).tzinfo is not None


@pytest.mark.parametrize("row", [*SERVICES, OTHER_BANK], ids=lambda row: row.name)
async def test_every_process_tells_its_health_and_metrics_on_its_own_port(
    system: System, api: Api, row: Deployable
) -> None:
    own = api.at(system.service_url(row.port_offset))

    answers = {path: await own.send("GET", path) for path in ("/live", "/ready", "/health", "/metrics")}

    assert {path: answer.status for path, answer in answers.items()} == dict.fromkeys(answers, 200)
    assert answers["/health"].json["status"] == "healthy"
    assert answers["/live"].json["status"] == "alive"
    assert b"# TYPE" in answers["/metrics"].body


CONTRACTS = (Account, Audit, Confirm, Gateway, Kyc, Notification, Ofac, Otp, PartnerBank, Risk)


def operations_with_addresses(system: System) -> list[tuple[str, OperationSpec]]:
    """Every operation between services with its address."""
    found = []
    for contract in CONTRACTS:
        row = find(contract.service)
        assert row is not None
        found += [
            (f"{system.service_url(row.port_offset)}/rpc/{spec.service}/{spec.name}", spec)
            for spec in operations_of(contract).values()
        ]
    return found


async def test_no_operation_between_services_is_open_to_strangers_or_customers(
    system: System, api: Api, bystander: Customer
) -> None:
    operations = operations_with_addresses(system)

    for url, _ in operations:
        stranger = await api.at(url).send("POST", "", body=b"\x90")
        customer = await api.at(url).send("POST", "", token=bystander.client.token, body=b"\x90")
        assert (stranger.status, stranger.error) == (401, "SERVICE_IDENTITY_REQUIRED"), url
        assert (customer.status, customer.error) == (401, "SERVICE_IDENTITY_REQUIRED"), url
    assert len(operations) > 40


async def test_a_service_s_identity_is_good_only_for_what_its_contract_names(system: System, api: Api) -> None:
    signer = Signer.load(service="cli", directory=system.instance.service_keys_dir)

    for url, spec in operations_with_addresses(system):
        if "cli" not in spec.options.callers:
            token = signer.token_for(spec.service)
            answer = await api.at(url).send("POST", "", token=token, body=b"\x90")
            assert (answer.status, answer.error) == (403, "CALLER_NOT_ALLOWED"), url


async def test_operations_between_services_cannot_be_reached_at_the_public_address(system: System, api: Api) -> None:
    signer = Signer.load(service="cli", directory=system.instance.service_keys_dir)

    answer = await api.send("POST", "/rpc/gateway/create_users", token=signer.token_for("gateway"), body=b"\x90")

    assert (answer.status, answer.error) == (404, "NOT_FOUND")


async def test_metrics_are_not_public(api: Api) -> None:
    answer = await api.send("GET", "/metrics")

    assert answer.status == 404


async def test_every_answer_has_the_security_header_fields(api: Api, make: Factory) -> None:
    customer = await make.customer()
    answers = [
        await api.send("GET", "/health"),
        await api.send("GET", "/nowhere"),
        await api.send("PUT", "/auth/login"),
        await customer.client.get("/accounts"),
        await customer.client.confirm(b"{", key=new_key()),
    ]

    for answer in answers:
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "server" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/auth/login", {"POST"}),
        ("DELETE", "/payments", {"GET"}),
        ("POST", "/.well-known/jwks.json", {"GET"}),
        ("POST", "/health", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    api: Api, make: Factory, method: str, path: str, allowed: set[str]
) -> None:
    customer = await make.customer()

    answer = await api.send(method, path, token=customer.client.token)

    assert (answer.status, answer.error) == (405, "METHOD_NOT_ALLOWED")
    assert {name.strip() for name in answer.headers["allow"].split(",")} >= allowed


async def test_the_description_of_the_api_names_every_row_of_it(api: Api) -> None:
    answer = await api.send("GET", "/openapi.json")

    assert answer.status == 200
    assert answer.json["openapi"].startswith("3.1")
    assert set(answer.json["paths"]) >= {
        "/auth/login",
        "/auth/refresh",
        "/auth/logout",
        "/.well-known/jwks.json",
        "/payment/confirm",
        "/payments",
        "/payments/{transaction_id}",
        "/payments/{transaction_id}/events",
        "/payments/{transaction_id}/cancel",
        "/accounts",
        "/accounts/{number}",
        "/accounts/{number}/entries",
        "/health",
    }


async def test_the_documentation_needs_no_other_server(api: Api) -> None:
    page = await api.send("GET", "/docs")

    assert page.status == 200
    assert page.headers["content-type"].startswith("text/html")
    assert b"https://" not in page.body
    assert b"http://" not in page.body


async def test_limits_hold_over_both_gateways(session: aiohttp.ClientSession) -> None:
    with running_system(RATE_LIMIT_LOGIN_PER_IP="5/15m") as system:
        gateways = [Api(session, url) for url in system.gateway_urls]
        public = Api(session, system.url)

        healths = [await public.send("GET", "/health") for _ in range(30)]
        logins = await asyncio.gather(*(gateways[index % 2].login("demo", "wrong") for index in range(6)))
        others = [await gateways[0].send("GET", "/accounts")]
        forged = [{"X-Forwarded-For": f"10.0.0.{index}"} for index in range(94)]
        others += await asyncio.gather(
            *(gateways[index % 2].send("GET", "/accounts", headers=headers) for index, headers in enumerate(forged))
        )
        last = await public.login("demo", "password123")
        demo = await asyncio.to_thread(system.run, "demo")

    assert {answer.status for answer in healths} == {200}
    assert sorted(answer.status for answer in logins) == [401] * 5 + [429]
    # 100 in all by default: six attempts to sign in and 94 others. A header of a stranger changes nothing about it.
    assert sorted(answer.status for answer in others) == [401] * 94 + [429]
    assert others[0].headers["ratelimit-limit"] == "100"
    assert others[0].headers["ratelimit-remaining"] == "93"
    assert last.error == "RATE_LIMITED"
    for refused in (last, *(answer for answer in others if answer.status == 429)):
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["ratelimit-remaining"] == "0"
    assert demo.returncode == 1
    assert "it works again at" in demo.stderr
