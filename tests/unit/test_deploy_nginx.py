"""What the edge's generated files say follows from the registry, the public API and the table of problems."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from payflow.contracts.problems import PROBLEMS
from payflow.platform.http.health import HEALTH_PATHS
from payflow.run.registry import SERVICES
from payflow_dev.deploy import nginx
from payflow_dev.deploy.names import address_of, container_of

ROOT = Path(__file__).resolve().parents[2]
MAPS = (ROOT / "deploy/nginx/payflow/maps.conf").read_text(encoding="utf-8")


def test_every_gateway_of_the_registry_is_behind_the_edge() -> None:
    servers = re.findall(r"server (\S+) max_fails", nginx.upstream_conf())

    assert servers == [address_of(row) for row in SERVICES if row.is_gateway]
    assert servers == ["api-gateway-1:3001", "api-gateway-2:3002"]


def test_processes_have_the_names_that_users_know() -> None:
    assert [container_of(row) for row in SERVICES[:11]] == [
        "api-gateway-1",
        "api-gateway-2",
        "confirm-service",
        "risk-service",
        "notification-service",
        "otp-service",
        "account-service",
        "audit-service",
        "ofac-service",
        "kyc-service",
        "partner-bank-service",
    ]


def test_metrics_are_the_only_check_that_is_not_published() -> None:
    assert HEALTH_PATHS - set(nginx.published_paths()) == {"/metrics"}


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/payments/bulk", "/payments/bulk"),
        ("/payments/bulk?cursor=1", "/payments/bulk"),
        ("/payments/txn-1", "/payments/{transaction_id}"),
        ("/payments/bulk/7/items", "/payments/bulk/{bulk_id}/items"),
        ("/accounts/DE02/entries?from=2026-01-01", "/accounts/{number}/entries"),
        ("/docs/assets/a.css", "/docs/assets/{name}"),
        ("/rpc/gateway/rotate_keys", None),
    ],
)
def test_a_route_names_what_was_asked_for_without_its_values(path: str, route: str | None) -> None:
    rows = re.findall(r'^    "~(\S+)" "(\S+)";$', nginx.routes_conf(), re.MULTILINE)

    found = next((name for pattern, name in rows if re.match(pattern, path)), None)

    assert found == route


def test_every_problem_of_the_edge_is_one_of_the_table() -> None:
    texts = re.findall(r"return (\d+) '(.*)';", nginx.problems_conf())

    for status, text in texts:
        problem = json.loads(text.replace("\\'", "'"))
        known = PROBLEMS[problem["error"]]
        assert problem["status"] == int(status)
        assert (problem["type"], problem["title"], problem["detail"]) == (known.type, known.title, known.detail)
    assert {status for status, _ in texts} == {
        "400",
        "404",
        "405",
        "408",
        "413",
        "429",
        "431",
        "500",
        "502",
        "503",
        "504",
    }


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:"),
        ("2001:db8:1:2::6", "2001:db8:1:2:"),
        ("2001:db8::6", "2001:db8::"),
        ("::1", "::"),
    ],
)
def test_an_ipv6_address_shares_its_networks_limits(address: str, client: str) -> None:
    table = re.search(r"map \$remote_addr \$edge_client \{(.*?)\n\}", MAPS, re.DOTALL)
    assert table is not None
    rows = re.findall(r'"~(\S+)" "?\$(\w+?)(::)?"?;', table[1])
    assert len(rows) == 2

    found = address
    for pattern, name, end in rows:
        match = re.search(pattern.replace("(?<", "(?P<"), address)
        if match:
            found = match[name] + end
            break

    assert found == client
