"""Balances that a process remembers between batches. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
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

    def of(self, account_ids: Iterable[UUID]) -> dict[UUID, Balance]:
        """Copies of the balances that are known; the others are left out."""
        known = {}
        for account_id in account_ids:
            balance = self._balances.get(account_id)
            if balance is not None:
                known[account_id] = replace(balance)
        return known

    def learn(self, balances: Iterable[Balance]) -> None:
        """These are the stored balances."""
        for balance in balances:
            # Put at the end, so that the first one is the one not used for the longest time.
            self._balances.pop(balance.account_id, None)
            self._balances[balance.account_id] = balance
        while len(self._balances) > self._accounts_max:
            del self._balances[next(iter(self._balances))]

    def forget(self, account_ids: Iterable[UUID]) -> None:
        """What is known of these was wrong, or may be."""
        for account_id in account_ids:
            self._balances.pop(account_id, None)
