"""When the processes of a consumer are more than the partitions of a topic that they share."""

from __future__ import annotations

import pytest

from payflow.platform.eventlog.kafka.sharing import Scarce, scarce

PAYMENTS = frozenset({("payments", 0), ("payments", 1)})
NONE: frozenset[tuple[str, int]] = frozenset()


def _halves() -> dict[str, frozenset[tuple[str, int]]]:
    return {"a": frozenset({("payments", 0)}), "b": frozenset({("payments", 1)})}


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"a": PAYMENTS}, {}),
        (_halves(), {}),
        # All are had by one, which has room to give the other one of them.
        ({"a": PAYMENTS, "b": NONE}, {}),
        (_halves() | {"c": NONE}, {"c": [Scarce("payments", partitions=2, processes=3)]}),
        # Of those that stand by one speaks for all.
        (_halves() | {"d": NONE, "c": NONE}, {"c": [Scarce("payments", partitions=2, processes=4)]}),
        # Nobody has anything yet.
        ({"a": NONE, "b": NONE, "c": NONE}, {}),
    ],
    ids=["alone", "half each", "one has all", "one too many", "two too many", "joining"],
)
def test_one_of_those_that_stand_by_says_so(
    members: dict[str, frozenset[tuple[str, int]]], found: dict[str, list[Scarce]]
) -> None:
    told = {member: scarce(members, topics=["payments"], member=member) for member in members}

    assert {member: topics for member, topics in told.items() if topics} == found


def test_a_process_that_has_another_topic_stands_by_for_this_one_all_the_same() -> None:
    members = {"a": frozenset({("payments", 0)}), "b": frozenset({("customers", 0)})}

    assert scarce(members, topics=["payments", "customers"], member="a") == [Scarce("customers", 1, 2)]
    assert scarce(members, topics=["payments", "customers"], member="b") == [Scarce("payments", 1, 2)]
