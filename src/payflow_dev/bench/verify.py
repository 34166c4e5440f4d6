"""Checks the money of a run: reads the ledger, replays the model, asks the ledger's own verification."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

from payflow.run.supervisor.status import InstanceStatus
from payflow_dev.bench.ledger import LedgerState, broken_ledger_rules, read_ledger, wait_until_finished
from payflow_dev.bench.money import MoneyModel, MoneyReport, Sent
from payflow_dev.bench.population import OPENING_BALANCE_MINOR, Customer, Payment
from payflow_dev.bench.target import owner_url
from payflow_dev.bench.wire import Outcome, id_prefix, transaction_id


def check_money(
    *,
    status: InstanceStatus,
    run_id: str,
    customers: Sequence[Customer],
    payments: Sequence[Payment],
    outcomes: bytes,
    seconds_max: float,
    tick: Callable[[], None],
) -> MoneyReport:
    """Compare every payment that may have been sent with the ledger, after at most `seconds_max` for pending ones.

    `payments` and `outcomes` have one entry for each, in the order of their numbers.
    """
    accounts = [number for customer in customers for number in customer.accounts]
    state = asyncio.run(_settled_state(owner_url(status), run_id, accounts, seconds_max, tick))
    model = MoneyModel(dict.fromkeys(accounts, OPENING_BALANCE_MINOR))
    known = {transaction_id(run_id=run_id, number=number) for number in range(len(outcomes))}
    model.replay(_sent(run_id, payments, outcomes), state.payments)
    model.refuse_strangers(known, state.payments)
    model.compare_balances(state.balances)
    model.add_broken_rules(asyncio.run(broken_ledger_rules(owner_url(status))))
    return model.report()


def _sent(run_id: str, payments: Sequence[Payment], outcomes: bytes) -> Iterator[Sent]:
    for number, (payment, outcome) in enumerate(zip(payments, outcomes, strict=True)):
        yield Sent(transaction_id(run_id=run_id, number=number), payment, Outcome(outcome))


async def _settled_state(
    url: str, run_id: str, accounts: Sequence[str], seconds_max: float, tick: Callable[[], None]
) -> LedgerState:
    prefix = id_prefix(run_id)
    await wait_until_finished(url=url, prefix=prefix, seconds_max=seconds_max, tick=tick)
    return await read_ledger(url=url, prefix=prefix, accounts=accounts)
