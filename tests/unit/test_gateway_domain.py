"""Limits, password hashes and fingerprints as rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.contracts.confirm import Creditor
from payflow.services.gateway.domain.limits import Limit, SlidingCounters
from payflow.services.gateway.domain.payments import canonical_amount, fingerprint
from payflow.services.gateway.domain.users import is_acceptable_hash, is_username


@given(
    count=st.integers(1, 20),
    window_s=st.integers(1, 100),
    steps=st.lists(st.floats(0, 60, allow_nan=False), max_size=60),
    start=st.floats(0, 10_000, allow_nan=False),
)
def test_no_window_of_the_clock_ever_allows_more_than_the_limit(
    count: int, window_s: int, steps: list[float], start: float
) -> None:
    counters, limit, now = SlidingCounters(), Limit("l", count, window_s), start
    allowed: dict[int, int] = {}

    for step in steps:
        now += step
        standing = counters.take(key="k", limit=limit, now=now)
        allowed[int(now // window_s)] = allowed.get(int(now // window_s), 0) + standing.is_allowed
        assert 0 <= standing.remaining < count

    assert all(number <= count for number in allowed.values())


@given(
    count=st.integers(1, 20),
    window_s=st.integers(1, 100),
    steps=st.lists(st.floats(0, 30, allow_nan=False), max_size=80),
)
def test_who_waits_as_long_as_told_gets_through(count: int, window_s: int, steps: list[float]) -> None:
    counters, limit, now = SlidingCounters(), Limit("l", count, window_s), 1_000.0

    for step in steps:
        now += step
        standing = counters.take(key="k", limit=limit, now=now)
        if not standing.is_allowed:
            assert standing.retry_after_s >= 1
            now += standing.retry_after_s
            assert counters.take(key="k", limit=limit, now=now).is_allowed


def test_a_window_slides_instead_of_starting_anew() -> None:
    counters, limit = SlidingCounters(), Limit("l", 100, 900)

    at_the_end = sum(counters.take(key="k", limit=limit, now=899.0).is_allowed for _ in range(200))
    a_moment_later = sum(counters.take(key="k", limit=limit, now=901.0).is_allowed for _ in range(200))
    half_a_window_later = sum(counters.take(key="k", limit=limit, now=1350.0).is_allowed for _ in range(200))

    assert at_the_end == 100
    assert a_moment_later == 0
    assert half_a_window_later == 50


def test_counters_are_bounded_and_those_used_longest_ago_go_first() -> None:
    counters, limit = SlidingCounters(counters_max=3), Limit("l", 1, 900)

    for key in ("a", "b", "c", "a", "d"):
        counters.take(key=key, limit=limit, now=1.0)

    assert len(counters) == 3
    assert not counters.take(key="a", limit=limit, now=1.0).is_allowed
    assert counters.take(key="b", limit=limit, now=1.0).is_allowed


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("1000", "1000"),
        ("1000.0", "1000"),
        ("1000.00", "1000"),
        ("1000.10", "1000.1"),
        ("0.50", "0.5"),
        ("1e3", "1e3"),
        ("01", "01"),
        ("1000.", "1000."),
        ("-1.00", "-1.00"),
        ("١", "١"),
        ("1.00\n", "1.00\n"),
    ],
)
def test_an_amount_loses_only_what_does_not_change_it(text: str, canonical: str) -> None:
    assert canonical_amount(text) == canonical


def test_values_that_stand_in_other_fields_have_another_fingerprint() -> None:
    def of(creditor: Creditor | None, remittance: str | None) -> bytes:
        return fingerprint(
            transaction_id="t",
            customer_id="c",
            amount="1",
            currency=None,
            debtor_account="a",
            creditor_account="b",
            creditor=creditor,
            remittance_information=remittance,
        )

    prints = {
        of(None, None),
        of(None, "x"),
        of(Creditor(name="x"), None),
        of(Creditor(name="x", country="GB"), None),
        of(Creditor(name="x", agent="GB"), None),
        of(Creditor(name='x",null'), None),
    }

    assert len(prints) == 6


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM$" + "a" * 43, True),
        ("$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQxMjM$" + "a" * 43, True),
        ("$argon2id$v=16$m=65536,t=3,p=4$c29tZXNhbHQxMjM$" + "a" * 43, False),
        ("$argon2i$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM$" + "a" * 43, False),
        ("$argon2id$v=19$m=1048576,t=3,p=4$c29tZXNhbHQxMjM$" + "a" * 43, False),
        ("$argon2id$v=19$m=65536,t=17,p=4$c29tZXNhbHQxMjM$" + "a" * 43, False),
        ("$argon2id$v=19$m=65536,t=3,p=17$c29tZXNhbHQxMjM$" + "a" * 43, False),
        ("$argon2id$v=19$m=8,t=3,p=4$c29tZXNhbHQxMjM$" + "a" * 43, False),
        ("$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQxMjM$" + "a" * 43 + "\n", False),
        ("password123", False),
        ("", False),
    ],
)
def test_a_hash_is_argon2id_of_bounded_cost(text: str, is_good: bool) -> None:
    assert is_acceptable_hash(text) is is_good


@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("demo", True),
        ("a.b@example.org", True),
        ("7of9", True),
        ("x" * 64, True),
        ("", False),
        ("a b", False),
        (".a", False),
        ("x" * 65, False),
        ("dеmo", False),
        ("demo\n", False),
    ],
)
def test_a_user_name_is_plain(text: str, is_good: bool) -> None:
    assert is_username(text) is is_good
