"""Payments of one batch that are refused together are ended together: the ledger hears of them in one call."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

from payflow.contracts.account import Account
from payflow.contracts.confirm import Confirm, Creditor, PaymentState, PaymentView
from payflow.platform.rpc import in_process
from payflow.services.confirm.api import ConfirmApi
from payflow.services.confirm.usecases.lifecycle import do_what_is_due
from tests.builders_confirm import IBAN, World
from tests.builders_confirm import world as world


class CountedAccount:
    """Account as confirm sees it, counting the calls."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.calls: Counter[str] = Counter()

    def __getattr__(self, operation: str) -> Any:
        async def counted(items: list[Any]) -> list[Any]:
            self.calls[operation] += 1
            return await getattr(self._account, operation)(items)

        return counted


def with_counted_account(world: World) -> tuple[Confirm, CountedAccount]:
    account = CountedAccount(world.ports.account)
    ports = replace(world.ports, account=account)
    api = ConfirmApi(ports=ports, background=world.background, returns=world.return_ports)
    return in_process(Confirm, api, caller="gateway"), account


async def test_a_batch_that_the_funds_suffice_for_in_part_is_ended_by_one_release(world: World) -> None:
    gateway, account = with_counted_account(world)

    answers = await gateway.confirm([world.request("9000.00") for _ in range(30)])

    states = Counter(answer.state for answer in answers if isinstance(answer, PaymentView))
    assert states == {PaymentState.COMPLETED: 11, PaymentState.REJECTED: 19}
    assert {answer.error_code for answer in answers if isinstance(answer, PaymentView)} == {None, "INSUFFICIENT_FUNDS"}
    assert account.calls["release_hold"] == 1
    assert await world.balance(world.debtor) == (1_000_00, 0)


async def test_holds_that_the_funds_do_not_suffice_for_are_refused_by_one_release(world: World) -> None:
    gateway, account = with_counted_account(world)

    answers = await gateway.confirm(
        [world.request("9000.00", to=IBAN, creditor=Creditor(name="Erika Musterfrau")) for _ in range(30)]
    )
    await world.background.finish()

    assert sum(getattr(answer, "error_code", None) == "INSUFFICIENT_FUNDS" for answer in answers) == 19
    assert account.calls["release_hold"] == 1


async def test_payments_whose_deadline_has_passed_together_are_ended_by_one_release(world: World) -> None:
    gateway, account = with_counted_account(world)
    await gateway.confirm([world.request("15000.00") for _ in range(8)])
    world.clock.move(timedelta(hours=1))

    ended = await do_what_is_due(ports=replace(world.ports, account=account), background=world.background, limit=100)

    assert ended >= 8
    assert account.calls["release_hold"] == 1
