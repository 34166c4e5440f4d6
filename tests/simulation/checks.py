"""What must hold after a run, judged by the tables, the other bank's books, and what customers were told."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from payflow.contracts.confirm import PaymentState
from payflow.contracts.partner_bank import BankStatus
from payflow.services.account.domain import HELD, Hold
from payflow.services.confirm.domain import MACHINE, Payment
from tests.simulation.checks_returns import ReturnsJudge
from tests.simulation.customers import Customers, Request, in_short, told_nothing_happened
from tests.simulation.ledger import LedgerTables
from tests.simulation.nodes import SKEW_MAX_S
from tests.simulation.payments import PaymentTables
from tests.simulation.services import Instruction, OtherBank, Otp, Risk
from tests.simulation.weather import World

# What may rest without anybody working on it: each waits for somebody outside, and has a deadline.
RESTS = frozenset(
    {PaymentState.AWAITING_OTP, PaymentState.UNDER_REVIEW, PaymentState.SCHEDULED, PaymentState.SUBMITTED}
)


class Judge:
    """Holds what happened against the rules; what breaks one is noted in the world."""

    def __init__(
        self,
        *,
        world: World,
        payments: PaymentTables,
        ledger: LedgerTables,
        risk: Risk,
        otp: Otp,
        books: OtherBank,
        instructions: dict[UUID, Instruction],
        customers: Customers,
        returns: ReturnsJudge,
    ) -> None:
        self._world, self._payments, self._ledger = world, payments, ledger
        self._risk, self._otp, self._books, self._customers = risk, otp, books, customers
        self._instructions, self._returns = instructions, returns
        self._moved: dict[UUID, dict[str, int]] = {}

    def check_quiet(self) -> None:
        """Some seconds after the last fault: nothing is at work any more, and what waits has a next step."""
        for payment in self._payments.unfinished.values():
            if payment.state not in RESTS or payment.due_at is None:
                self._world.break_(f"still {payment.state} after everything has healed", payment.payment_id)
        self._returns.check_quiet()

    def check_end(self) -> None:
        """After every deadline has passed."""
        for payment in self._payments.unfinished.values():
            self._world.break_(f"{payment.state} has not ended although its deadlines have passed", payment.payment_id)
        self._check_ledger()
        for payment in self._payments.payments.values():
            self._check_payment(payment)
        self._returns.check_end(self._moved)
        self._check_nothing_else_was_paid()
        self._check_events()
        for request in self._customers.requests:
            self._check_told(request)

    def _check_ledger(self) -> None:
        rows = self._ledger.rows
        numbers = {row.account_id: number for number, row in rows.accounts.items()}
        payment_of = {entry.entry_id: id for id, entry in rows.entries.items()}
        openings = {entry.entry_id for entry in rows.openings}
        posted = dict.fromkeys(rows.balances, 0)
        for posting in rows.postings:
            posted[posting.account_id] += posting.amount_minor
            payment_id = payment_of.get(posting.entry_id)
            if payment_id is not None:
                moved = self._moved.setdefault(payment_id, {})
                number = numbers[posting.account_id]
                moved[number] = moved.get(number, 0) + posting.amount_minor
            elif posting.entry_id not in openings:
                self._world.break_(f"{posting} belongs to no journal entry")
        held = dict.fromkeys(rows.balances, 0)
        for hold in rows.holds.values():
            if hold.state == HELD:
                held[hold.account_id] += hold.amount_minor
                self._world.break_("money is still held after everything has ended", hold.payment_id)
        for account_id, balance in rows.balances.items():
            if (balance.posted_minor, balance.held_minor) != (posted[account_id], held[account_id]):
                self._world.break_(f"account {account_id} has not the balance of its postings and holds")
            if not balance.is_internal and balance.posted_minor < 0:
                self._world.break_(f"account {account_id} is overdrawn")
        if sum(posted.values()) != 0:
            self._world.break_("all accounts together are not zero")

    def _check_payment(self, payment: Payment) -> None:
        id = payment.payment_id
        self._check_steps(payment)
        is_completed = payment.state is PaymentState.COMPLETED
        moved = self._moved.pop(id, {})
        expected_moves = self._moves_of(payment) if is_completed else {}
        if moved != expected_moves:
            self._world.break_(f"{payment.state}, and its money has moved as {moved} instead of {expected_moves}", id)
        accepted = self._books.accepted.get(id, ())
        expected = [payment.amount_minor] if is_completed and not payment.is_on_us else []
        if [amount_minor for _, amount_minor in accepted] != expected:
            self._world.break_(f"{payment.state}, and the other bank has accepted {list(accepted)}", id)
        if is_completed:
            self._check_gates(payment)

    def _moves_of(self, payment: Payment) -> dict[str, int]:
        """What a completed payment moves, by the account's number."""
        amount_minor = payment.amount_minor or 0
        creditor = payment.creditor_account if payment.is_on_us else f"NOSTRO/{payment.agent_bic}/{payment.currency}"
        return {payment.debtor_account: -amount_minor, creditor: amount_minor}

    def _check_steps(self, payment: Payment) -> None:
        steps = self._payments.steps[payment.payment_id]
        if payment.version != len(steps) or steps[-1].target is not payment.state:
            self._world.break_("its steps have a gap", payment.payment_id)
        source = None
        for step in steps:
            if step.source != source or (source is not None and not MACHINE.allows(source, step.target)):
                self._world.break_(f"went from {source} to {step.target}", payment.payment_id)
            source = step.target

    def _check_gates(self, payment: Payment) -> None:
        """No money moves without risk, code and officer having agreed to exactly this."""
        id = payment.payment_id
        command, assessed = self._risk.commands.get(id), self._risk.assessed.get(id)
        if command is None or assessed is None:
            self._world.break_("paid, and never assessed", id)
            return
        if (command.amount_minor, command.creditor) != (payment.amount_minor, payment.creditor_reference):
            self._world.break_("paid, and something else was assessed", id)
        if assessed.needs_otp and id not in self._otp.used:
            self._world.break_("paid without its one-time password", id)
        case = self._risk.case_of(id)
        if case is not None and not self._customers.decided.get(case, False):
            self._world.break_("paid without having been cleared", id)
        if payment.execute_at is not None:
            self._check_day(payment, payment.execute_at)

    def _check_day(self, payment: Payment, day: datetime) -> None:
        """A payment for later is screened again before it is made, and not made before its day on any clock."""
        was_scheduled = any(step.target is PaymentState.SCHEDULED for step in self._payments.steps[payment.payment_id])
        is_by_the_clock = not self._world.faults["clock_step"]
        if is_by_the_clock and was_scheduled and payment.payment_id not in self._risk.reassessed:
            self._world.break_("paid on its day, and not assessed again", payment.payment_id)
        entry = self._ledger.rows.entries.get(payment.payment_id)
        if entry is not None and entry.booked_at < day - timedelta(seconds=2 * SKEW_MAX_S):
            self._world.break_(f"was ordered for {day}, and paid at {entry.booked_at}", payment.payment_id)

    def _check_events(self) -> None:
        """Each payment is told of in order, and its end once."""
        told: dict[UUID, int] = {}
        for _, payment_id, version in self._payments.events:
            if version <= told.get(payment_id, 0):
                self._world.break_(f"event {version} came after event {told[payment_id]}", payment_id)
            told[payment_id] = version
        for payment in self._payments.payments.values():
            if told.get(payment.payment_id) != payment.version:
                self._world.break_(f"nobody was told of its end, {payment.state}", payment.payment_id)

    def check_release(self, hold: Hold) -> None:
        """Called when a hold is released: no release after submission without the other bank's word."""
        payment = self._payments.payments.get(hold.payment_id)
        if payment is None or payment.state is not PaymentState.SUBMITTED:
            return
        known = self._instructions.get(hold.payment_id)
        is_refused = known is not None and (known.refusal is not None or known.status is BankStatus.REJECTED)
        if not is_refused:
            self._world.break_("its hold was released after submission without the other bank's word", hold.payment_id)

    def _check_nothing_else_was_paid(self) -> None:
        known = self._payments.payments
        for id in (*self._moved, *self._books.accepted):
            if id not in known:
                self._world.break_("its money has moved, and nobody has stored it", id)

    def _check_told(self, request: Request) -> None:
        command = request.command
        id = self._payments.by_key.get((command.customer_id, command.idempotency_key))
        stored = None if id is None else self._payments.payments[id]
        is_mine = stored is not None and stored.fingerprint == command.fingerprint
        if request.payment_id is not None and (stored is None or not is_mine or id != request.payment_id):
            self._world.break_("was told to a customer, and is not there", request.payment_id)
        elif stored is None:
            return
        elif request.told is not None and stored.view() != request.told:
            self._world.break_(
                f"was told as {in_short(request.told)}, and is {in_short(stored.view())}", stored.payment_id
            )
        elif is_mine and stored.state is PaymentState.COMPLETED and told_nothing_happened(request):
            self._world.break_("was told as if nothing had happened, and was paid", stored.payment_id)
