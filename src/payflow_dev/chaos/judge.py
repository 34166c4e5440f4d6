"""The judge: replays what customers were told against what was left in the books, with a ledger of its own.

It knows only the history. What it cannot know (no final read, a promised fault that never struck) counts as failure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from payflow_dev.chaos.cases import COMPLETED, ENDED_UNPAID, Case, calls_of
from payflow_dev.chaos.history import (
    Call,
    Fault,
    FileCall,
    FinalAccount,
    FinalBank,
    FinalEnd,
    FinalFile,
    FinalPayment,
    FinalReturn,
    OfficeCall,
    Opening,
    Promise,
    Record,
    ToldAgain,
    read_history,
)
from payflow_dev.chaos.judge_files import FilesDesk
from payflow_dev.chaos.judge_returns import ReturnsDesk, legs_of
from payflow_dev.chaos.kinds import Tallies, Tally

HOLDING: Final = frozenset({"UNDER_REVIEW", "SUBMITTED", "HELD"})
MAY_WAIT: Final = frozenset({"AWAITING_OTP", "UNDER_REVIEW", "SUBMITTED"})
# How far the clock of a payment's process may be from the customer's: both are this machine's, where none is shifted.
EARLY: Final = timedelta(seconds=1)
# Due so long before or after a clock was shifted, a payment may be made by that clock: payments for later of a run are
# some seconds ahead, and late ones are made when the process gets to them.
AROUND_NS: Final = 15_000_000_000
VIOLATIONS_MAX: Final = 50


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the judge found. `violations`: rule and case in words; the run is good when there is none."""

    calls: int
    payments: int
    acknowledged: int
    refused: int
    unknown: int
    completed: int
    faults: int
    violations: list[str]
    by_rule: dict[str, int]
    kinds: dict[str, Tally] = {}

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled, made up, contradicted or left open."""
        return not self.by_rule


def judge(path: Path) -> Verdict:
    """Judge a run by its history file."""
    return judge_records(read_history(path))


def judge_records(records: Iterable[Record]) -> Verdict:
    """Judge a run by its records."""
    court = _Court()
    for record in records:
        court.hear(record)
    return court.verdict()


class _Court:
    def __init__(self) -> None:
        self._openings: dict[str, Opening] = {}
        self._cases: dict[tuple[str, str], Case] = {}
        self._accounts: dict[str, FinalAccount] = {}
        self._bank: list[FinalBank] = []
        self._again: list[ToldAgain] = []
        self._faults: list[Fault] = []
        self._is_complete = False
        self._calls = 0
        self._violations: list[str] = []
        self._by_rule: Counter[str] = Counter()
        self._returns, self._files = ReturnsDesk(self._object), FilesDesk(self._object)
        self._tallies, self._promised = Tallies(), list[str]()

    def hear(self, record: Record) -> None:
        match record:
            case Opening():
                self._openings[record.account] = record
                self._tallies.ours.add(record.account)
            case Promise():
                self._promised = record.kinds
                self._returns.four_eyes_above_minor = record.four_eyes_above_minor
            case Call() | OfficeCall() | FileCall():
                self._hear_call(record)
            case Fault():
                self._faults.append(record)
            case _:
                self._hear_final(record)

    def _hear_call(self, record: Call | OfficeCall | FileCall) -> None:
        self._calls += 1
        self._tallies.count(record)
        if isinstance(record, OfficeCall):
            self._returns.hear_call(record)
            return
        if isinstance(record, FileCall):
            self._files.hear_call(record)
        for call in calls_of(record) if isinstance(record, FileCall) else [record]:
            self._cases.setdefault((call.customer, call.transaction), Case(call)).calls.append(call)

    def _hear_final(self, record: Record) -> None:
        match record:
            case FinalPayment():
                known = self._cases.get((record.customer, record.transaction))
                if known is None:
                    self._object("made up", f"{record.transaction} of {record.customer} was never asked for")
                else:
                    known.final = record
            case FinalReturn():
                self._returns.hear_final(record)
            case FinalFile():
                self._files.hear_final(record)
            case FinalAccount():
                self._accounts[record.account] = record
            case FinalBank():
                self._bank.append(record)
            case ToldAgain():
                self._again.append(record)
            case FinalEnd():
                self._is_complete = True

    def verdict(self) -> Verdict:
        if not self._is_complete:
            self._object("unknown", "the final read is not complete")
        for fault in self._faults:
            if not fault.is_hit:
                self._object("unknown", f"the promised fault never struck: {fault.name} {fault.edge} {fault.position}")
        for kind in self._tallies.never_acknowledged(self._promised):
            self._object("unknown", f"of what was promised, this was never acknowledged: {kind}")
        for case in self._cases.values():
            self._judge_words(case)
            self._judge_time(case)
        self._returns.judge(self._cases)
        self._files.judge(self._cases)
        self._judge_repeats()
        self._judge_ledger()
        self._judge_bank()
        cases = self._cases.values()
        return Verdict(
            calls=self._calls,
            payments=len(cases),
            acknowledged=sum(bool(case.successes) for case in cases),
            refused=sum(bool(case.refusals) for case in cases),
            unknown=sum(call.status is None or call.status >= 500 for case in cases for call in case.calls),
            completed=sum(case.state == COMPLETED for case in cases),
            faults=len(self._faults),
            violations=self._violations,
            by_rule=dict(self._by_rule),
            kinds=dict(sorted(self._tallies.by_kind.items())),
        )

    def _object(self, rule: str, words: str) -> None:
        self._by_rule[rule] += 1
        if len(self._violations) < VIOLATIONS_MAX:
            self._violations.append(f"{rule}: {words}")

    def _judge_words(self, case: Case) -> None:
        """What the customer was told must be what became of the payment."""
        name, state = case.name, case.state
        if case.final is None:
            self._object("unknown", f"{name} was not read at the end")
            return
        if case.successes and state != COMPLETED:
            self._object("lost", f"{name} was acknowledged and is {state}")
        if ((case.refusals and state not in ENDED_UNPAID) or case.is_turned_away) and state is not None:
            self._object("refused with an effect", f"{name} was refused and is {state}")
        if case.is_cancelled and state != "CANCELLED":
            self._object("cancelled with an effect", f"{name} was cancelled and is {state}")
        if state == "CANCELLED" and not case.may_be_cancelled:
            self._object("made up", f"{name} is cancelled, and nobody has cancelled it")
        if len(case.successes) + len(case.refusals) > 1:
            self._object("contradicted", f"{name} was told {len(case.successes) + len(case.refusals)} final answers")
        if case.is_taken and state is None:
            self._object("lost", f"{name} was taken and is not known any more")
        if state is not None and state != COMPLETED and state not in ENDED_UNPAID | MAY_WAIT:
            self._object("left open", f"{name} is {state}")
        if state is not None and case.final.amount_minor not in (None, case.first.amount_minor):
            self._object("wrong", f"{name} was for {case.first.amount_minor} and is for {case.final.amount_minor}")

    def _judge_time(self, case: Case) -> None:
        """What was ordered for later is neither told as made nor booked before its time, by the clocks that decide."""
        call = case.first
        if call.due_ns is not None and self._is_by_a_shifted_clock(call.due_ns):
            return
        if call.due_ns is not None and case.successes:
            told_ns = min(one.answered_ns or one.invoked_ns for one in case.calls if (one.body or "") in case.successes)
            if told_ns < call.due_ns - EARLY // timedelta(microseconds=1) * 1000:
                self._object(
                    "before its time", f"{case.name} was told as made {(call.due_ns - told_ns) / 1e9:.1f} s early"
                )
        if call.execute_at is None or case.final is None:
            return
        earliest = datetime.fromisoformat(call.execute_at) - EARLY
        for account in (call.debtor, call.creditor):
            for line in self._accounts[account].lines if account in self._accounts else ():
                is_its = line.payment_id == case.final.payment_id and line.booked_at is not None
                if is_its and datetime.fromisoformat(line.booked_at or "") < earliest:
                    self._object("before its time", f"{case.name}, for {call.execute_at}, was booked {line.booked_at}")

    def _is_by_a_shifted_clock(self, due_ns: int) -> bool:
        """Whether the clock that decides that a payment is due (confirm's) was ahead then, or that of its booking
        (account's) behind."""
        return any(
            fault.began_ns - AROUND_NS <= due_ns <= fault.began_ns + int(fault.seconds * 1e9) + AROUND_NS
            for fault in self._faults
            if (fault.victim == "confirm" and fault.shift_s > 0) or (fault.victim == "account" and fault.shift_s < 0)
        )

    def _judge_repeats(self) -> None:
        by_key = {(case.first.customer, case.first.key): case for case in self._cases.values()}
        for again in self._again:
            case = by_key[again.customer, again.key]
            if again.body not in case.successes | case.refusals:
                self._object("told otherwise", f"{again.key} of {again.customer}: {again.status} {again.body[:120]}")

    def _judge_ledger(self) -> None:
        """Replay every completed payment on a ledger of our own, and compare balances, holds and statements."""
        expected = {account: opening.balance_minor for account, opening in self._openings.items()}
        held: Counter[str] = Counter()
        legs: dict[str, Counter[tuple[str | None, int]]] = defaultdict(Counter)
        for case in self._cases.values():
            call, state = case.first, case.state
            if state in HOLDING:
                held[call.debtor] += call.amount_minor
            if state != COMPLETED or case.final is None:
                continue
            for account, amount_minor in ((call.debtor, -call.amount_minor), (call.creditor, call.amount_minor)):
                if account in expected:
                    expected[account] += amount_minor
                    legs[account][case.final.payment_id, amount_minor] += 1
        for final in self._returns.completed:
            for account, amount_minor in legs_of(final):
                if account in expected:
                    expected[account] += amount_minor
                    legs[account][final.return_id, amount_minor] += 1
        for account, balance_minor in expected.items():
            self._judge_account(account, balance_minor, held[account], legs[account])

    def _judge_account(
        self, account: str, balance_minor: int, held_minor: int, legs: Counter[tuple[str | None, int]]
    ) -> None:
        found = self._accounts.get(account)
        if found is None:
            self._object("unknown", f"{account} was not read at the end")
            return
        if found.posted_minor != balance_minor:
            self._object("wrong balance", f"{account} has {found.posted_minor}, the model {balance_minor}")
        if found.held_minor != held_minor:
            self._object("wrong balance", f"{account} holds {found.held_minor}, the model {held_minor}")
        running = 0
        for number, line in enumerate(found.lines, 1):
            running += line.amount_minor
            if line.sequence != number or line.balance_minor != running:
                self._object("wrong statement", f"{account}, line {line.sequence}: {line.balance_minor}, not {running}")
                break
            if running < 0:
                self._object("overdrawn", f"{account}, line {line.sequence}: {running}")
        booked = Counter((line.payment_id, line.amount_minor) for line in found.lines if line.kind != "opening")
        for (payment_id, amount_minor), count in (booked - legs).items():
            rule = "doubled" if legs[payment_id, amount_minor] else "made up"
            self._object(rule, f"{account} was booked {amount_minor} for {payment_id}, {count} times too often")
        for (payment_id, amount_minor), count in (legs - booked).items():
            self._object("lost", f"{account} was not booked {amount_minor} for {payment_id} ({count})")

    def _judge_bank(self) -> None:
        """The other bank accepted each completed payment to it once, and no other."""
        payments = {
            case.final.payment_id: case
            for case in self._cases.values()
            if case.final is not None and case.final.payment_id is not None
        }
        accepted: Counter[str | None] = Counter()
        for entry in self._bank:
            payment_id = _payment_id_of(entry.end_to_end_id)
            case = payments.get(payment_id)
            if entry.status != "ACCEPTED":
                continue
            accepted[payment_id] += 1
            if case is None or case.state not in (COMPLETED, "SUBMITTED"):
                self._object(
                    "paid abroad", f"{entry.end_to_end_id} was accepted, and is {case.state if case else None}"
                )
            elif entry.amount_minor != case.first.amount_minor:
                self._object("paid abroad", f"{entry.end_to_end_id} was accepted for {entry.amount_minor}")
        for payment_id, case in payments.items():
            is_abroad = case.first.creditor not in self._openings
            if is_abroad and case.state == COMPLETED and accepted[payment_id] != 1:
                self._object("paid abroad", f"{payment_id} is completed, accepted {accepted[payment_id]} times")


def _payment_id_of(end_to_end_id: str) -> str:
    """The payment that an end-to-end id names: the same digits, with a UUID's dashes."""
    digits = end_to_end_id.replace("-", "").lower()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
