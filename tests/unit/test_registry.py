"""The registry is data that the supervisor, the settings and the documentation share."""

from __future__ import annotations

import dataclasses
from typing import cast

import pytest

from payflow.run.embedded.user import ServerUser
from payflow.run.errors import StartError
from payflow.run.instance import Instance, make_instance
from payflow.run.plan import payflow_plan
from payflow.run.registry import (
    OTHER_BANK,
    SERVICES,
    Deployable,
    deployables,
    find,
    highest_port_offset,
    service_names,
    with_copies,
)
from payflow.run.supervisor.servers import Broker

PORTS = [
    ("gateway-1", 3001),
    ("gateway-2", 3002),
    ("confirm", 3003),
    ("risk", 3004),
    ("notification", 3005),
    ("otp", 3006),
    ("account", 3007),
    ("audit", 3008),
    ("ofac", 3009),
    ("kyc", 3010),
    ("partner-bank", 3011),
    ("other-bank", 3012),
]


@pytest.mark.parametrize(("name", "port"), PORTS)
def test_every_process_has_the_port_that_the_documentation_promises(name: str, port: int) -> None:
    instance = make_instance()

    row = find(name)

    assert row is not None
    assert instance.service_port(row) == port


def test_the_gateway_is_two_of_the_eleven_services() -> None:
    promised = [find(name) for name, _ in PORTS[:-1]]

    assert len(promised) == 11
    assert set(promised) <= set(SERVICES)
    assert len(service_names(tuple(row for row in promised if row is not None))) == 10


def test_the_public_port_lies_beyond_the_last_service_port() -> None:
    last = highest_port_offset()

    with pytest.raises(StartError, match=f"3001 to {3000 + last}"):
        make_instance(port=3000 + last)
    assert make_instance(port=3001 + last).port == 3001 + last


def test_no_two_processes_share_a_name_or_a_port() -> None:
    rows = deployables(is_production=False)

    assert len({row.name for row in rows}) == len(rows)
    assert len({row.port_offset for row in rows}) == len(rows)


def test_the_simulated_bank_does_not_exist_in_production() -> None:
    assert OTHER_BANK in deployables(is_production=False)
    assert OTHER_BANK not in deployables(is_production=True)


@pytest.mark.parametrize("name", ["partner-bank", "partner_bank"])
def test_a_service_is_found_under_both_spellings(name: str) -> None:
    row = find(name)

    assert row is not None
    assert row.service == "partner_bank"
    assert row.module == "payflow.services.partner_bank.app"


def test_an_unknown_service_is_not_found() -> None:
    assert find("ledger") is None


def test_a_row_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SERVICES[0].port_offset = 99


def test_only_gateways_share_the_public_port() -> None:
    assert [row.name for row in SERVICES if row.is_gateway] == ["gateway-1", "gateway-2"]
    assert not Deployable(name="x", service="x", module="x", port_offset=20).is_gateway


@pytest.mark.parametrize(
    ("port_base", "port"), [(0, 8080), (65500, 8080), (3000, 0), (3000, 70000), (3000, 3001), (3000, 3012)]
)
def test_ports_that_cannot_work_are_refused_before_anything_starts(port_base: int, port: int) -> None:
    with pytest.raises(StartError):
        make_instance(port_base=port_base, port=port)


def test_services_are_reached_by_loopback_whatever_host_is_opened() -> None:
    instance = make_instance(host="0.0.0.0")

    assert instance.service_url(SERVICES[0]) == "http://127.0.0.1:3001"
    assert instance.public_url == "http://localhost:8080"
    assert not instance.is_loopback


def test_copies_have_ports_of_their_own_and_share_the_services_port() -> None:
    instance = make_instance()
    rows = with_copies(deployables(is_production=False), {"partner_bank": 3})

    mine = [row for row in rows if row.service == "partner_bank"]

    assert [row.name for row in mine] == ["partner-bank-1", "partner-bank-2", "partner-bank-3"]
    assert len({instance.service_port(row) for row in mine}) == 3
    assert {instance.callers_url(row) for row in mine} == {"http://127.0.0.1:3011"}
    assert len({row.name for row in rows}) == len(rows) == len(deployables(is_production=False)) + 2


def test_further_gateways_stand_beside_the_two() -> None:
    rows = with_copies(SERVICES, {"gateway": 3})

    assert [row.name for row in rows if row.is_gateway] == ["gateway-1", "gateway-2", "gateway-3"]
    assert all(row.shared_offset is None for row in rows)


@pytest.mark.parametrize(
    "copies", [{"gateway": 1}, {"confirm": 0}, {"nobody": 2}, {"other_bank": 2}, {"confirm": 30, "account": 30}]
)
def test_copies_that_cannot_be_are_refused(copies: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"copies|service"):
        with_copies(deployables(is_production=False), copies)


@pytest.mark.parametrize("text", ["confirm", "confirm=x", "nobody=2", "=2", "other-bank=2"])
def test_a_wrong_option_of_copies_is_told_in_one_line(text: str) -> None:
    with pytest.raises(StartError, match="--copies"):
        payflow_plan(copies=[text])


def test_copies_of_what_is_no_service_are_told_which_there_are() -> None:
    with pytest.raises(StartError) as refused:
        payflow_plan(copies=["foo=3"])

    assert (
        refused.value.message == f"--copies foo=3: there is no service foo: choose one of {', '.join(service_names())}."
    )


@pytest.mark.parametrize(
    ("copies", "readers"),
    [((), 1), (("gateway=4", "confirm=3"), 1), (("notification=3", "audit=2"), 3)],
    ids=["as it comes", "nobody who reads events", "consumers"],
)
def test_a_broker_of_ones_own_is_told_how_many_processes_share_the_events(
    copies: tuple[str, ...], readers: int
) -> None:
    told: list[int] = []

    def prepare_broker(_: Instance, __: ServerUser | None, *, readers: int) -> Broker:
        told.append(readers)
        return cast(Broker, None)

    plan = payflow_plan(prepare_broker=prepare_broker, copies=copies)
    assert plan.prepare_broker is not None
    plan.prepare_broker(make_instance(), None)

    assert told == [readers]
