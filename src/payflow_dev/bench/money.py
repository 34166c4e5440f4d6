"""Is the money right? What was acknowledged, replayed on a model, against what the ledger says. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from payflow_dev.bench.population import Payment
from payflow_dev.bench.wire import Outcome

# A report of ten thousand lines tells less than the first ones.
DIFFERENCES_MAX: Final = 20
_ENDED_WELL: Final = "COMPLETED"
_ENDED_BADLY: Final = frozenset({"REJECTED", "CANCELLED", "EXPIRED"})
_HOLDS_FUNDS: Final = frozenset({"UNDER_REVIEW", "HELD", "SUBMITTED"})


class Sent(msgspec.Struct, frozen=True):
    """A payment that was, or may have been, sent, and what its payer knows of it."""

    transaction_id: str
    payment: Payment
    outcome: Outcome


class Leg(msgspec.Struct, frozen=True):
    """A posting of a payment's journal entry. `account` is None for an account of the bank's own."""

    entry: bytes
    account: str | None
    amount_minor: int


class Recorded(msgspec.Struct, frozen=True):
    """A payment as the instance has it: its state and every posting of all journal entries of its payment id."""

    state: str
    legs: Sequence[Leg]


class MoneyReport(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict. `differences` holds the first of them in words, `differences_count` counts all."""

    acknowledged: int
    lost: int
    doubled: int
    unresolved: int
    wrong: int
    late_successes: int
    differences: list[str]
    differences_count: int

    @property
    def is_right(self) -> bool:
        """Whether nothing was acknowledged and lost, booked twice or otherwise, and every balance is as modelled."""
        return self.differences_count == 0

    def in_words(self) -> str:
        """One line for the terminal."""
        line = f"money: {self.acknowledged} acknowledged, {self.lost} lost, {self.doubled} doubled"
        if self.unresolved:
            line += f", {self.unresolved} still pending"
        return f"{line}, balances right" if self.is_right else f"{line}, {self.differences_count} differences"


class MoneyModel:
    """Replays the payments one by one, then compares balances. Amounts are in minor units."""

    def __init__(self, opening: Mapping[str, int]) -> None:
        """`opening`: what every account of the run started with."""
        self._posted = dict(opening)
        self._held: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._differences: list[str] = []

    def replay(self, sent: Iterable[Sent], recorded: Mapping[str, Recorded]) -> None:
        """Take every payment that was sent, and what the instance has of it."""
        for each in sent:
            self._replay_one(each, recorded.get(each.transaction_id))

    def refuse_strangers(self, known: Iterable[str], recorded: Mapping[str, Recorded]) -> None:
        """Payments of this run that nobody sent."""
        for transaction_id in recorded.keys() - set(known):
            self._differ("wrong", f"{transaction_id} is recorded and was never sent")

    def compare_balances(self, actual: Mapping[str, tuple[int, int]]) -> None:
        """Compare with the accounts' stored (posted, held) balances."""
        for account, posted in self._posted.items():
            expected = (posted, self._held[account])
            if actual.get(account) != expected:
                self._differ(
                    "wrong", f"account {account}: (posted, held) is {actual.get(account)}, expected {expected}"
                )

    def add_broken_rules(self, rules: Sequence[str]) -> None:
        """What the ledger's own verification found."""
        for rule in rules:
            self._differ("wrong", rule)

    def report(self) -> MoneyReport:
        """The verdict on all that was taken."""
        return MoneyReport(
            acknowledged=self._counts["acknowledged"],
            lost=self._counts["lost"],
            doubled=self._counts["doubled"],
            unresolved=self._counts["unresolved"],
            wrong=self._counts["wrong"],
            late_successes=self._counts["late_successes"],
            differences=self._differences[:DIFFERENCES_MAX],
            differences_count=len(self._differences),
        )

    def _replay_one(self, sent: Sent, recorded: Recorded | None) -> None:
        name, outcome = sent.transaction_id, sent.outcome
        state = recorded.state if recorded else "not recorded"
        entries = {leg.entry for leg in recorded.legs} if recorded else set()
        self._counts["acknowledged"] += outcome.is_acknowledged
        if recorded is not None and entries:
            self._book(sent, recorded)
            self._counts["late_successes"] += outcome is Outcome.UNKNOWN
        elif state in _HOLDS_FUNDS:
            self._held[sent.payment.debtor] += sent.payment.amount_minor
            self._counts["unresolved"] += 1
        if len(entries) > 1:
            self._differ("doubled", f"{name} was booked {len(entries)} times")
        if outcome is Outcome.REFUSED and (entries or state in _HOLDS_FUNDS):
            self._differ("wrong", f"{name} was refused and moved or holds money (state: {state})")
        elif not entries and (outcome is Outcome.SUCCESS or _is_lost(outcome, state)):
            self._differ("lost", f"{name} was acknowledged as {outcome.name} and is not booked (state: {state})")
        elif bool(entries) != (state == _ENDED_WELL):
            self._differ("wrong", f"{name} has {len(entries)} journal entries and its state is {state}")

    def _book(self, sent: Sent, recorded: Recorded) -> None:
        """Replay a booked payment once, and see that the ledger's postings say the same."""
        payment = sent.payment
        self._posted[payment.debtor] -= payment.amount_minor
        is_on_us = payment.creditor in self._posted
        if is_on_us:
            self._posted[payment.creditor] += payment.amount_minor
        expected = [
            (payment.debtor, -payment.amount_minor),
            (payment.creditor if is_on_us else None, payment.amount_minor),
        ]
        by_entry: dict[bytes, list[tuple[str | None, int]]] = {}
        for leg in recorded.legs:
            by_entry.setdefault(leg.entry, []).append((leg.account, leg.amount_minor))
        for legs in by_entry.values():
            if Counter(legs) != Counter(expected):
                self._differ("wrong", f"{sent.transaction_id} is booked as {legs}, expected {expected}")

    def _differ(self, kind: str, text: str) -> None:
        self._counts[kind] += 1
        self._differences.append(text)


def _is_lost(outcome: Outcome, state: str) -> bool:
    """Whether a payment acknowledged as pending is neither still under way nor ended without a booking."""
    return outcome is Outcome.PENDING and state not in _HOLDS_FUNDS and state not in _ENDED_BADLY
