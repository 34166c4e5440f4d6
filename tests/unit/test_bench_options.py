"""What `payflow bench` refuses before it starts anything."""

from __future__ import annotations

import sys

import pytest

from payflow.run.commands.bench import bench
from payflow.run.errors import StartError
from payflow_dev.bench.options import (
    AddressOnly,
    Options,
    check,
    choose_loader,
    default_connections,
    parse_connections,
    parse_history,
    payer_from,
)
from payflow_dev.bench.target import parse_url

PAYER = AddressOnly(username="demo", password="secret", from_account="ACC001", to_account="ACC002")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("http://localhost:8080/", ("127.0.0.1", 8080)),
        ("http://127.0.0.2", ("127.0.0.2", 80)),
        ("http://[::1]:8080", ("::1", 8080)),
    ],
)
def test_a_loopback_address_is_driven(url: str, expected: tuple[str, int]) -> None:
    assert parse_url(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://192.168.1.5:8080",
        "http://example.org",
        "http://0.0.0.0:8080",
        "https://127.0.0.1",
        "http://127.0.0.1:99999",
        "http://127.0.0.1.example.org",
        "http://127.0.0.1@example.org",
        "http://127.0.0.1/payment/confirm",
        "127.0.0.1:8080",
    ],
)
def test_any_other_address_is_refused(url: str) -> None:
    with pytest.raises(StartError):
        parse_url(url)


@pytest.mark.parametrize(
    ("asked", "wrk", "chosen"),
    [("auto", "/usr/bin/wrk", "wrk"), ("auto", None, "own"), ("own", "/usr/bin/wrk", "own"), ("wrk", "/x/wrk", "wrk")],
)
def test_wrk_makes_the_load_where_it_is_installed_and_nothing_else_was_asked_for(
    asked: str, wrk: str | None, chosen: str
) -> None:
    assert choose_loader(asked, wrk=wrk) == chosen


def test_wrk_that_is_asked_for_and_not_installed_is_refused() -> None:
    with pytest.raises(StartError, match="apt-get install wrk"):
        choose_loader("wrk", wrk=None)


def test_connections_are_a_list_in_which_a_number_may_come_again() -> None:
    assert parse_connections("64,256, 64") == (64, 256, 64)


@pytest.mark.parametrize("text", ["", "0", "64;256", "-1", "64,", "1001", "many"])
def test_connections_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(StartError, match="--connections"):
        parse_connections(text)


@pytest.mark.parametrize(
    "options",
    [
        Options(seconds=0.5),
        Options(seconds=float("nan")),
        Options(inter_bank_share=1.5),
        Options(customers=1),
        Options(url="http://127.0.0.1:8080"),
        Options(url="http://10.0.0.1:8080", payer=PAYER),
        Options(url="http://127.0.0.1:8080", payer=PAYER, is_hot=True),
        Options(payer=PAYER),
        Options(url="http://127.0.0.1:8080", payer=PAYER, keeps_instance=True),
        Options(is_overload=True, memory_payments=10),
        Options(memory_payments=10, velocity_payments=10),
        Options(memory_payments=-1),
        Options(velocity_payments=100_000_001),
        Options(is_overload=True, loader="wrk"),
        Options(memory_payments=10),
        Options(velocity_payments=10, is_hot=True),
        Options(is_overload=True, history=(10,)),
        Options(memory_payments=10, connections=(64,), is_bulk=True),
        Options(is_overload=True, url="http://127.0.0.1:8080", payer=PAYER),
    ],
)
def test_options_that_contradict_themselves_are_refused(options: Options) -> None:
    with pytest.raises(StartError):
        check(options)


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(url="http://127.0.0.1:8080", payer=PAYER),
        Options(is_overload=True, connections=(64, 256)),
        Options(memory_payments=500_000, connections=(64,), loader="wrk"),
        Options(velocity_payments=100_000, connections=(64, 64)),
    ],
)
def test_options_that_make_sense_are_taken(options: Options) -> None:
    check(options)


def test_a_payer_is_named_whole_or_not_at_all() -> None:
    assert payer_from(username=None, password=None, from_account=None, to_account=None) is None
    with pytest.raises(StartError, match="belong together"):
        payer_from(username="demo", password="secret", from_account=None, to_account=None)


def test_an_installation_without_the_repository_s_tools_says_where_the_bench_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("payflow_dev")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "payflow_dev", None)

    with pytest.raises(StartError, match="part of the repository"):
        bench()


def test_lengths_of_the_ledger_grow() -> None:
    assert parse_history("1000000,10000000") == (1_000_000, 10_000_000)
    assert parse_history(None) == ()


@pytest.mark.parametrize("text", ["", "x", "0", "-5", "2,1", "1,1", "100000001", "1,"])
def test_lengths_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(StartError, match="--history"):
        parse_history(text)


def test_a_history_needs_the_database() -> None:
    with pytest.raises(StartError, match="--history"):
        check(Options(history=(10,), url="http://127.0.0.1:8080", payer=PAYER))


@pytest.mark.parametrize(
    ("options", "mode", "compares"),
    [
        (Options(), "steps", True),
        (Options(with_pgbench=False), "steps", False),
        (Options(is_overload=True), "overload", False),
        (Options(memory_payments=1), "memory", False),
        (Options(velocity_payments=1), "velocity", False),
    ],
)
def test_pgbench_runs_beside_the_usual_steps_only(options: Options, mode: str, compares: bool) -> None:
    assert (options.mode, options.compares) == (mode, compares)


def test_each_mode_has_steps_of_its_own_where_none_are_named() -> None:
    found = [
        default_connections(is_bulk=bulk, is_overload=overload, memory=memory, velocity=velocity)
        for bulk, overload, memory, velocity in (
            (False, False, None, None),
            (True, False, None, None),
            (False, True, None, None),
            (False, False, 1, None),
            (False, False, None, 1),
        )
    ]

    assert found == ["1,16,64,256", "1,2,4", "256", "64", "64,64,64,64"]
