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
    Counts,
    Fault,
    FileCall,
    FinalAccount,
    FinalBank,
    FinalEnd,
    FinalFile,
    FinalIncoming,
    FinalPayment,
    FinalReturn,
    IncomingCall,
    OfficeCall,
    Opening,
    Promise,
    Record,
    ToldAgain,
    read_history,
)
from payflow_dev.chaos.judge_complete import what_is_missing
from payflow_dev.chaos.judge_files import FilesDesk
from payflow_dev.chaos.judge_incoming import IncomingDesk
from payflow_dev.chaos.judge_returns import ReturnsDesk, legs_of
from payflow_dev.chaos.kinds import Tallies, Tally

HOLDING: Final = frozenset({"UNDER_REVIEW", "SUBMITTED", "HELD"})
MAY_WAIT: Final = frozenset({"AWAITING_OTP", "UNDER_REVIEW", "SUBMITTED"})
# How far the clock of a payment's process may be from the customer's: processes go by the database's, which is this
# machine's, also where their own is shifted.
EARLY: Final = timedelta(seconds=1)
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
        self._promises: list[Promise] = []
        self._ends: list[FinalEnd] = []
        self._calls = 0
        self._violations: list[str] = []
        self._by_rule: Counter[str] = Counter()
        self._returns, self._files = ReturnsDesk(self._object), FilesDesk(self._object)
        self._incoming = IncomingDesk(self._object)
        self._tallies = Tallies()

    def hear(self, record: Record) -> None:
        match record:
            case Opening():
                self._openings[record.account] = record
                self._tallies.ours.add(record.account)
            case Promise():
                self._promises.append(record)
                self._returns.four_eyes_above_minor = record.four_eyes_above_minor
            case Call() | OfficeCall() | FileCall() | IncomingCall():
                self._hear_call(record)
            case Fault():
                self._faults.append(record)
            case _:
                self._hear_final(record)

    def _hear_call(self, record: Call | OfficeCall | FileCall | IncomingCall) -> None:
        self._calls += 1
        self._tallies.count(record)
        if isinstance(record, OfficeCall):
            self._returns.hear_call(record)
            return
        if isinstance(record, IncomingCall):
            self._incoming.hear_call(record)
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
            case FinalIncoming():
                self._incoming.hear_final(record)
            case ToldAgain():
                self._again.append(record)
            case FinalEnd():
                self._ends.append(record)

    def verdict(self) -> Verdict:
        self._judge_completeness()
        for case in self._cases.values():
            self._judge_words(case)
            self._judge_time(case)
        refused_abroad = {_payment_id_of(entry.end_to_end_id) for entry in self._bank if entry.status == "REJECTED"}
        self._returns.judge(self._cases, refused_abroad=refused_abroad)
        self._files.judge(self._cases)
        self._incoming.judge()
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

    def _judge_completeness(self) -> None:
        """What was promised and is not there is unknown."""
        heard = Counts(
            # Both: what an account had before is needed as much as what it has at the end.
            accounts=min(len(self._openings), len(self._accounts)),
            faults=len(self._faults),
            payments=sum(case.final is not None for case in self._cases.values()),
            repeats=len({(again.customer, again.key) for again in self._again}),
            files=self._files.read,
            returns=self._returns.read,
            bank=len(self._bank),
            incoming=self._incoming.read,
        )
        acknowledged = sum(bool(case.successes) for case in self._cases.values())
        for words in what_is_missing(
            promises=self._promises, ends=self._ends, heard=heard, faults=self._faults, acknowledged=acknowledged
        ):
            self._object("unknown", words)
        for key in (key for end in self._ends for key in end.unsettled):
            self._object("left open", f"{key} has no final answer")
        for fault in self._faults:
            if not fault.is_hit:
                self._object("unknown", f"the promised fault never struck: {fault.name} {fault.place} {fault.position}")
        for kind in self._tallies.never_acknowledged([kind for one in self._promises for kind in one.kinds]):
            self._object("unknown", f"of what was promised, this was never acknowledged: {kind}")

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
        """What was ordered for later is neither told as made nor booked before its time, whoever's clock is wrong."""
        call = case.first
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

    def _judge_repeats(self) -> None:
        """Whoever has a final answer is told the same once more at the end."""
        missing = {
            (case.first.customer, case.first.key): case
            for case in self._cases.values()
            if case.successes or case.refusals
        }
        by_key = {(case.first.customer, case.first.key): case for case in self._cases.values()}
        for again in self._again:
            missing.pop((again.customer, again.key), None)
            case = by_key.get((again.customer, again.key))
            if case is None or again.body not in case.successes | case.refusals:
                self._object("told otherwise", f"{again.key} of {again.customer}: {again.status} {again.body[:120]}")
        for case in missing.values():
            self._object("unknown", f"{case.name} was not asked for again at the end")

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
        for account, payment_id, amount_minor in self._incoming.legs():
            if account in expected:
                expected[account] += amount_minor
                legs[account][payment_id, amount_minor] += 1
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
