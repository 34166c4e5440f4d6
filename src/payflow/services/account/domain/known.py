"""Balances that a process remembers between batches. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from payflow.services.account.domain.records import Balance


class KnownBalances:
    """Balances as this process last wrote or read them, so that a batch can be decided without asking for them.

    Only ever a belief: each goes with its version, and the store writes nothing unless all versions are still true.
    Bounded: those not used for the longest time are forgotten.
    """

    def __init__(self, *, accounts_max: int = 50_000) -> None:
        self._accounts_max = accounts_max
        self._balances: dict[UUID, Balance] = {}

    def take(self, account_ids: Iterable[UUID]) -> dict[UUID, Balance]:
        """The balances that are known, forgotten here: until it is written what becomes of them, nobody knows them.

        Those that are not known are left out.
        """
        taken = {}
        for account_id in account_ids:
            balance = self._balances.pop(account_id, None)
            if balance is not None:
                taken[account_id] = balance
        return taken

    def learn(self, balances: Iterable[Balance]) -> None:
        """These are the stored balances."""
        for balance in balances:
            # Put at the end, so that the first one is the one not used for the longest time.
            self._balances.pop(balance.account_id, None)
            self._balances[balance.account_id] = balance
        while len(self._balances) > self._accounts_max:
            del self._balances[next(iter(self._balances))]
