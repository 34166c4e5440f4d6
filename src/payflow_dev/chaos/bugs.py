"""Bugs that are planted in a copy of the product, one at a time, to see whether a fault run finds them.

A bug is a change of text in the product's files and the faults under which it shows. The product has no hook for any.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from payflow_dev.chaos.plan import EDGES, INCOMING_EDGES, OFFICE_EDGES, WRITES, Edge, Planned, overtaken
from payflow_dev.chaos.proxy import Position

_EDGES: Final = {edge.name: edge for edge in (*EDGES, *INCOMING_EDGES, *OFFICE_EDGES, *WRITES)}


@dataclass(frozen=True, slots=True)
class Change:
    """In this file of `payflow/` the text `before`, which stands there `times` times, becomes `after`."""

    path: str
    before: str
    after: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Bug:
    """A mistake in words, the changes that make it, and the faults under which a run must object."""

    words: str
    changes: tuple[Change, ...]
    faults: tuple[Planned, ...]


def _at(edge: str, *names: str, times: int = 1) -> tuple[Planned, ...]:
    """Faults "NAME position" at an edge, `times` times over."""
    planned = []
    for text in names * times:
        name, position = text.split()
        where: Edge = _EDGES[edge]
        victim = {"kill-caller": where.caller, "kill-callee": where.callee}.get(name)
        planned.append(Planned(name, victim, where, Position(position)))
    return tuple(planned)


_SAME: Final = tuple(Planned("same-request-50") for _ in range(6))
_CROSSING: Final = tuple(Planned("crossing") for _ in range(3))
# Enough time for officers and files.
_A_WHILE: Final = tuple(Planned("freeze", process, seconds=1.0) for process in ("gateway-2", "otp", "ofac", "kyc"))
_ACCOUNT: Final = "services/account"
_CONFIRM: Final = "services/confirm"
_PARTNER_BANK: Final = "services/partner_bank"
# A lease that ends while a call is on its way, so that a process takes a payment over from itself.
_SHORT_LEASE: Final = Change(
    f"{_CONFIRM}/app.py",
    'describe("seconds after which another process takes a payment over")] = 10.0',
    'describe("seconds after which another process takes a payment over")] = 2.0',
)
_NO_OUTCOMES: Final = (
    Change(
        f"{_ACCOUNT}/queries.sql",
        "AND payment_id BETWEEN $26 AND $27)\n",
        "AND payment_id BETWEEN $26 AND $27 AND false)\n",
    ),
    Change(
        f"{_ACCOUNT}/domain/batch.py",
        """        entry = self._outcomes.entries.get(payment_id)
        if entry is not None:
            return Booked(entry_id=entry.entry_id, booked_at=entry.booked_at)
""",
        "",
    ),
)

BUGS: Final = {
    "control": Bug("nothing is planted: the run must be good", (), (*_SAME[:1], *_CROSSING[:1])),
    "key-not-unique": Bug(
        "an idempotency key has no UNIQUE, nor has a transaction id",
        (
            Change(
                f"{_CONFIRM}/migrations/0001_initial.sql",
                """    CONSTRAINT one_payment_per_idempotency_key UNIQUE (customer_id, idempotency_key),
    CONSTRAINT one_payment_per_transaction_id UNIQUE (customer_id, transaction_id),
""",
                "",
            ),
        ),
        _SAME,
    ),
    "booked-twice": Bug(
        "a payment may be booked again: no UNIQUE one_booking_per_payment, and nobody looks for an earlier entry",
        (
            Change(
                f"{_ACCOUNT}/migrations/0002_ledger_over_time.sql",
                "ALTER TABLE journal_entry ADD CONSTRAINT one_booking_per_payment UNIQUE (payment_id);\n",
                "CREATE INDEX ON journal_entry (payment_id);\n",
            ),
            *_NO_OUTCOMES,
        ),
        _at("confirm -> account.transfer", "cut after_delivery", "kill-caller after_delivery", times=3),
    ),
    "released-on-silence": Bug(
        "the other bank's silence releases the hold and ends the payment",
        (
            Change(
                f"{_CONFIRM}/usecases/bank.py",
                """            await _rest(payment, ports)
        elif answer.status is BankStatus.ACCEPTED:
""",
                """            await reject_by_bank(payment=payment, reason_code=None, ports=ports)
        elif answer.status is BankStatus.ACCEPTED:
""",
            ),
        ),
        _at("partner-bank -> other-bank.iso20022", "cut after_delivery", times=2),
    ),
    "confirm-not-fenced": Bug(
        "confirm stores its steps whoever has the lease by now, also once more, and account refuses no lower token",
        (
            Change(
                f"{_CONFIRM}/queries.sql",
                "t (payment_id, fencing_token) USING (payment_id, fencing_token)",
                "t (payment_id, fencing_token) USING (payment_id)",
            ),
            Change(
                f"{_CONFIRM}/queries.sql",
                """     WHERE payment.payment_id = t.payment_id
       AND payment.fencing_token = t.fencing_token
""",
                """     WHERE payment.payment_id = t.payment_id
""",
                times=2,
            ),
            # Who was overtaken most often takes the same steps: what stops them is that they are there already.
            Change(
                f"{_CONFIRM}/migrations/0005_fewer_rows.sql",
                "    PRIMARY KEY (payment_id, version),\n",
                "",
            ),
            Change(
                f"{_ACCOUNT}/domain/batch.py",
                "return token < self._outcomes.highest_token(payment_id)",
                "return False",
            ),
            _SHORT_LEASE,
        ),
        (
            *overtaken(),
            *overtaken(),
            Planned("freeze", "confirm", seconds=13.0),
        ),
    ),
    "key-after-effect": Bug(
        "the money moves before the payment and its key are stored",
        (
            Change(f"{_CONFIRM}/store.py", "\n\nclass PostgresStore:", "\n_late = {}\n\n\nclass PostgresStore:"),
            Change(
                f"{_CONFIRM}/store.py",
                "        # In one order: two processes that store the same keys in opposite orders would wait "
                "for each other.\n",
                """        if payments and not any(one.is_final for one in payments):
            keys = [(one.customer_id, one.idempotency_key, one.transaction_id) for one in payments]
            fresh = [one for one, known in zip(payments, await self.find(keys)) if known is None]
            _late.update((one.payment_id, __import__("copy").deepcopy(one)) for one in fresh)
            for one in fresh:
                one.transitions.clear()
            return {one.payment_id for one in fresh}
""",
            ),
            Change(
                f"{_CONFIRM}/store.py",
                """        # Batches lock their payments in one order.
""",
                """        late = [_late.pop(one.payment_id) for one in payments if one.payment_id in _late]
        if late:
            await self._claim(sorted(late, key=lambda one: one.idempotency_key), self._ids.new())
""",
            ),
        ),
        _at("confirm -> account.transfer", "kill-caller after_delivery", "kill-caller after_answer", times=3),
    ),
    "answer-before-write": Bug(
        "customers hear of the end before it is stored, and a failure to store it is forgotten",
        (
            Change(
                f"{_CONFIRM}/usecases/saga.py",
                "        await self.save([payment for payment in self._payments if payment.transitions])\n",
                """        late = [payment for payment in self._payments if payment.transitions]

        async def store() -> None:
            await asyncio.sleep(0.5)
            await self.save(late)

        self._late = asyncio.ensure_future(store())
""",
            ),
        ),
        _at("client -> gateway-1.confirm", "cut after_answer")
        + _at("confirm -> account.transfer", "kill-caller after_answer", times=2)
        + tuple(Planned("kill", "confirm") for _ in range(3)),
    ),
    "hold-not-released": Bug(
        "a payment that the other bank refused keeps its hold",
        (
            Change(
                f"{_ACCOUNT}/domain/batch.py",
                """            at = self._instant(hold.account_id)
            self._give_back(hold, at=at)
            self._write_hold(hold.changed(fencing_token=token, state=RELEASED, ended_at=at, end_reason=reason))
            return Released(released_at=at)
""",
                "            return Released(released_at=self._now)\n",
            ),
        ),
        _at("confirm -> account.release_hold", "cut before_delivery"),
    ),
    "amount-off-by-one-digit": Bug(
        "of a payment whose amount ends in a zero cent, one cent too little is taken and given",
        (
            Change(
                f"{_CONFIRM}/usecases/commands.py",
                "        amount_minor=payment.money.minor_units,\n"
                "        currency=payment.money.currency,\n        captures_hold",
                "        amount_minor=payment.money.minor_units - (payment.money.minor_units % 10 == 0),\n"
                "        currency=payment.money.currency,\n        captures_hold",
            ),
        ),
        _CROSSING,
    ),
    "told-anew": Bug(
        "a repeat is told another answer than the first: its own instant instead of the stored one",
        (
            Change(
                "services/gateway/routes/answers.py",
                "        confirmed_at=payment.completed_at,\n        risk_level",
                "        confirmed_at=datetime.now(payment.completed_at.tzinfo),\n        risk_level",
            ),
        ),
        _CROSSING[:1],
    ),
    "new-id-at-repeat": Bug(
        "a payment that is sent to the other bank again goes under a new end-to-end id",
        (
            Change(
                "services/partner_bank/usecases/outgoing.py",
                "    missing = [one for one in instructions if words[one.payment_id].word is Word.NOT_RECEIVED]\n",
                "    missing = [\n"
                "        replace(one, end_to_end_id=one.end_to_end_id[::-1])\n"
                "        for one in instructions\n"
                "        if words[one.payment_id].word is not Word.REJECTED\n"
                "    ]\n",
            ),
        ),
        _at("partner-bank -> other-bank.iso20022", "cut before_delivery", "cut after_delivery", times=2),
    ),
    "holds-do-not-count": Bug(
        "the available balance forgets what is held, in the domain and in the constraint",
        (
            Change(
                f"{_ACCOUNT}/domain/records.py",
                "return self.posted_minor - self.held_minor",
                "return self.posted_minor",
            ),
            Change(
                f"{_ACCOUNT}/migrations/0001_initial.sql",
                "CHECK (is_internal OR posted_minor - held_minor >= 0)",
                "CHECK (is_internal OR posted_minor >= -1000000000000)",
            ),
        ),
        (Planned("last-cent"),) * 2,
    ),
    "outcome-event-lost": Bug(
        "a payment's end is stored without its event",
        (
            Change(
                f"{_CONFIRM}/queries.sql",
                "    SELECT $23::text[], $24::bytea, $25::int FROM whole WHERE whole.is_whole\n",
                "    SELECT $23::text[], $24::bytea, $25::int FROM whole WHERE whole.is_whole AND random() < 0.9\n",
            ),
        ),
        _CROSSING,
    ),
    "returned-too-much": Bug(
        "each return alone is held against its payment, all of them together are not",
        (
            Change(f"{_CONFIRM}/domain/returns.py", "    if left <= 0:\n", "    if original.minor_units <= 0:\n"),
            Change(
                f"{_CONFIRM}/domain/returns.py",
                "    if amount.minor_units > left:\n",
                "    if amount.minor_units > original.minor_units:\n",
            ),
            Change(
                f"{_CONFIRM}/migrations/0003_returns.sql",
                "CHECK (taken_minor BETWEEN 0 AND amount_minor)",
                "CHECK (taken_minor >= 0)",
            ),
        ),
        _A_WHILE[:2],
    ),
    "returned-alone": Bug(
        "one person alone returns any amount",
        (
            Change(
                "kernel/four_eyes.py",
                "        return Decimal(total_minor) > limit.scaleb(DECIMALS[currency])\n",
                "        return Decimal(total_minor) > limit.scaleb(DECIMALS[currency]) * 1000\n",
            ),
        ),
        _A_WHILE[:2],
    ),
    "file-paid-again": Bug(
        "a file that is sent again under its key is another file, and its lines are paid again",
        (
            Change(
                f"{_CONFIRM}/bulk/queries.sql",
                "SELECT * FROM bulk_order WHERE customer_id = $1 AND idempotency_key = $2;",
                "SELECT * FROM bulk_order WHERE customer_id = $1 AND idempotency_key = $2 AND false;",
            ),
            Change(
                f"{_CONFIRM}/migrations/0004_bulk.sql",
                "    CONSTRAINT one_bulk_order_per_idempotency_key UNIQUE (customer_id, idempotency_key),\n",
                "",
            ),
            Change(
                f"{_CONFIRM}/migrations/0001_initial.sql",
                "    CONSTRAINT one_payment_per_transaction_id UNIQUE (customer_id, transaction_id),\n",
                "",
            ),
        ),
        _A_WHILE * 2,
    ),
    "credited-again": Bug(
        "money from another bank that is sent again is another payment, and is credited again",
        (
            Change(
                f"{_PARTNER_BANK}/domain/instruction.py",
                """    return uuid5(NAMESPACE_OID, f"payflow:incoming:{agent_bic}:{end_to_end_id}")
""",
                """    again = __import__("secrets").token_hex(8)
    return uuid5(NAMESPACE_OID, f"payflow:incoming:{agent_bic}:{end_to_end_id}:{again}")
""",
            ),
            Change(
                f"{_PARTNER_BANK}/migrations/0001_initial.sql",
                "    CONSTRAINT one_payment_per_bank_and_end_to_end_id UNIQUE (direction, agent_bic, end_to_end_id),\n",
                "",
            ),
        ),
        _at("other-bank -> partner-bank.iso20022", "cut after_delivery", times=2),
    ),
    "blocked-is-paid": Bug(
        "a payment that an officer has blocked is made all the same",
        (Change(f"{_CONFIRM}/usecases/lifecycle.py", "    if not is_cleared:\n", "    if False:\n"),),
        _A_WHILE[:2],
    ),
    "made-too-early": Bug(
        "what is ordered for later is made two seconds before its time",
        (
            Change(
                f"{_CONFIRM}/domain/payment.py",
                "from datetime import datetime\n",
                "from datetime import datetime, timedelta\n",
            ),
            Change(
                f"{_CONFIRM}/domain/payment.py",
                "        return self.execute_at is not None and now < self.execute_at\n",
                "        return self.execute_at is not None and (self.execute_at - now).total_seconds() > 2\n",
            ),
            Change(
                f"{_CONFIRM}/domain/payment.py",
                "        self.rest(until=self.execute_at, expires_at=None)\n",
                "        self.rest(until=self.execute_at - timedelta(seconds=2), expires_at=None)\n",
            ),
        ),
        _A_WHILE[:2],
    ),
}


def plant(bug: Bug, *, source: Path, target: Path) -> None:
    """Make the bug in `target`, a copy of `source`. Raises ValueError where the text to be changed is not there."""
    for change in bug.changes:
        path = target / "payflow" / change.path
        text = path.read_text(encoding="utf-8")
        if text.count(change.before) != change.times:
            found = text.count(change.before)
            raise ValueError(f"{change.path} has {found} times what the bug changes, not {change.times}: {source}")
        path.write_text(text.replace(change.before, change.after), encoding="utf-8")
