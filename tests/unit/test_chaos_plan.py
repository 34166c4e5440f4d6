"""The plan of a fault run: every edge of the saga, and who is stopped for longer than a lease."""

from __future__ import annotations

import random
from itertools import islice

import msgspec

from payflow.services.confirm.app import SETTINGS
from payflow_dev.chaos.plan import LEASE_S, LONG_FROZEN, in_turn, one_round, until_kills


def test_every_edge_of_the_saga_is_struck_in_a_round() -> None:
    edges = {planned.edge.name for planned in one_round(random.Random(1)) if planned.edge is not None}

    assert {
        "confirm -> account.keep_hold",
        "other-bank -> partner-bank.iso20022",
        "partner-bank -> ofac.screen",
        "partner-bank -> account.credit_incoming",
        "gateway-2 -> confirm.open_bulk",
    } <= edges


def test_a_run_of_sixty_faults_stops_processes_for_thirty_seconds_which_is_longer_than_a_lease() -> None:
    (lease_s,) = (field.default for field in msgspec.structs.fields(SETTINGS) if field.name == "payment_lease_s")
    for seed in range(20):
        faults = list(islice(in_turn(random.Random(seed)), 60))
        frozen = {fault.victim for fault in faults if fault.name == "freeze" and fault.seconds >= 30}

        assert frozen == set(LONG_FROZEN) >= {"confirm", "partner-bank"}
    assert lease_s == LEASE_S < 30


def test_a_short_run_has_no_time_for_that() -> None:
    faults = list(islice(in_turn(random.Random(1)), 40))

    assert max(fault.seconds for fault in faults) < LEASE_S


def test_a_run_of_so_many_kills_promises_the_faults_up_to_the_last_of_them() -> None:
    planned = list(until_kills(in_turn(random.Random(3)), 40))

    assert sum(fault.is_kill for fault in planned) == 40
    assert planned[-1].is_kill
    assert planned == list(islice(in_turn(random.Random(3)), len(planned)))
    assert list(until_kills(in_turn(random.Random(3)), 0)) == []
