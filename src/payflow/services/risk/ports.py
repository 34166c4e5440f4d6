"""What the risk service needs from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.kyc import CheckCustomer, CustomerChecked
from payflow.contracts.ofac import Screened, ScreenPayment
from payflow.contracts.operation import Answers
from payflow.services.risk.domain import Assessment, RuleSet


class Corrections(Protocol):
    """Takes payments out of the count, in a transaction that somebody else commits."""

    async def stop_counting(self, payment_ids: Sequence[UUID]) -> None:
        """Take refused payments out of their customers' count; unknown ones and repeats change nothing."""
        ...


class AssessmentTransaction(Protocol):
    """One database transaction that counts and stores."""

    async def count_recent(self, *, customer_ids: Sequence[str], since: datetime, at_most: int) -> dict[str, int]:
        """Each customer's counted payments assessed after `since`, looking at no more than `at_most` of them.

        The customers stay locked until the end of the transaction, and what was stored while waiting for the lock is
        counted, so that payments at once see each other.
        """
        ...

    async def save(self, assessments: Sequence[Assessment]) -> None:
        """Store assessments of payments that have none.

        Raises Unavailable when one of the payments was assessed meanwhile: nothing is written, and the batch can be
        repeated at once.
        """
        ...


class Store(Protocol):
    """The risk service's database."""

    def transaction(self) -> AbstractAsyncContextManager[AssessmentTransaction]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def find(self, payment_ids: Sequence[UUID]) -> dict[UUID, Assessment]:
        """Stored assessments; payments without one are left out."""
        ...

    async def save_if_counted(
        self, assessments: Sequence[Assessment], *, expected: Mapping[str, int], since: datetime, at_most: int
    ) -> dict[str, int]:
        """Store assessments if each customer's count (see `count_recent`) is the expected one: answers an empty dict.

        Else nothing is stored, and the counts that differ are answered. Raises Unavailable, nothing stored, also when
        one of the payments was assessed before.
        """
        ...

    async def activate(self, rules: RuleSet, *, now: datetime) -> RuleSet:
        """Store a rule set that is newer than every stored one; the newest stored rule set afterwards."""
        ...


class SanctionsScreening(Protocol):
    """Screens payments' parties (contracts.ofac)."""

    async def screen(self, commands: list[ScreenPayment]) -> Answers[Screened]:
        """One answer per payment; an item may be an error."""
        ...


class CustomerChecks(Protocol):
    """Tells where customers stand (contracts.kyc)."""

    async def check(self, queries: list[CheckCustomer]) -> Answers[CustomerChecked]:
        """One answer per customer; an item may be an error."""
        ...
