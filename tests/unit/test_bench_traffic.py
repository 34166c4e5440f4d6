"""The bench's customers and payments: the same for the same seed, shaped as real traffic, and stopped by no control."""

from __future__ import annotations

from collections import Counter
from math import log
from statistics import mean, median, stdev

from payflow.contracts.agents import DEMO_AGENTS, read_agents
from payflow.contracts.ofac import ScreeningOutcome
from payflow.services.ofac.domain.screening import screen_name
from payflow.services.ofac.index import loaded_lists
from payflow_dev.bench.population import (
    AMOUNT_MAX_MINOR,
    INTER_BANK_CREDITORS,
    Payment,
    make_customers,
    make_payments,
    possible_names,
)

CUSTOMERS = make_customers(count=200, run_id="abc123", seed=1)
OWNER = {account: number for number, customer in enumerate(CUSTOMERS) for account in customer.accounts}


def some_payments(*, seed: int = 1, is_hot: bool = False, inter_bank_share: float = 0.0) -> list[Payment]:
    return make_payments(customers=CUSTOMERS, count=20_000, seed=seed, is_hot=is_hot, inter_bank_share=inter_bank_share)


def test_a_seed_gives_the_same_payments_again_and_another_one_others() -> None:
    assert some_payments(seed=7) == some_payments(seed=7)
    assert some_payments(seed=7) != some_payments(seed=8)


def test_amounts_are_log_normal_and_stay_below_what_asks_for_a_password() -> None:
    amounts = [payment.amount_minor for payment in some_payments()]

    unclipped = [log(amount / 100) for amount in amounts if amount < AMOUNT_MAX_MINOR]
    assert min(amounts) >= 1
    assert max(amounts) == AMOUNT_MAX_MINOR < 500_000
    assert abs(log(median(amounts) / 100) - 5.28) < 0.05
    assert abs(mean(unclipped) - 5.28) < 0.1
    assert abs(stdev(unclipped) - 1.30) < 0.1


def test_creditors_have_a_heavy_tail() -> None:
    counts = Counter(payment.creditor for payment in some_payments())

    shares = [count / 20_000 for _, count in counts.most_common()]
    assert len(counts) == 400
    assert 0.05 < sum(shares[:4]) < 0.12
    assert shares[0] > 10 * shares[-1]


def test_everybody_pays_from_their_own_account_and_nobody_pays_themselves() -> None:
    for payment in some_payments():
        assert OWNER[payment.debtor] == payment.customer
        assert OWNER[payment.creditor] != payment.customer

    assert {payment.customer for payment in some_payments()} == set(range(200))


def test_a_hot_run_has_one_debtor_account_and_many_creditors() -> None:
    payments = some_payments(is_hot=True)

    assert {payment.debtor for payment in payments} == {CUSTOMERS[0].accounts[0]}
    assert len({payment.creditor for payment in payments}) == 398


def test_the_asked_share_leaves_for_other_banks() -> None:
    payments = some_payments(inter_bank_share=0.25)

    leaving = [payment for payment in payments if payment.creditor in INTER_BANK_CREDITORS]
    assert 0.23 < len(leaving) / len(payments) < 0.27


def test_the_other_banks_accounts_are_at_banks_of_the_directory() -> None:
    prefixes = {prefix for agent in read_agents(DEMO_AGENTS) for prefix in agent.iban_prefixes}

    for iban in INTER_BANK_CREDITORS:
        assert any(iban[:2] == prefix[:2] and iban[4:].startswith(prefix[3:]) for prefix in prefixes)


def test_customers_have_ids_and_accounts_of_their_own() -> None:
    assert len({customer.customer_id for customer in CUSTOMERS}) == 200
    assert len({customer.username for customer in CUSTOMERS}) == 200
    assert len(OWNER) == 400
    assert all(len(account) <= 34 for account in OWNER)


def test_no_customer_s_name_is_near_a_sanctioned_one() -> None:
    index = loaded_lists().index

    stopped = [name for name in possible_names() if screen_name(index, name, "NL").outcome != ScreeningOutcome.CLEAR]

    assert stopped == []
