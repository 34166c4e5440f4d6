"""Decides what the ledger does. Pure: balances and earlier outcomes come in, answers and changes go out.

A batch is decided in the order given, greedily: an item that does not fit is refused alone, and the items after it see
the balances as they then are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID

from payflow.contracts.account import (
    AccountBlocked,
    AccountClosed,
    AccountNotFound,
    AccountState,
    AlreadyBooked,
    Booked,
    CaptureTooLarge,
    HoldKept,
    HoldNotFound,
    HoldPlaced,
    InsufficientFunds,
    PaymentEnded,
    PlaceHold,
    Released,
    StaleCommand,
    Transfer,
)
from payflow.kernel.errors import PayflowError, Rejection
from payflow.kernel.money import CurrencyMismatch, InvalidAmount, format_minor
from payflow.services.account.domain.records import (
    CAPTURED,
    HELD,
    INCOMING_RETURN,
    RELEASED,
    STEPS,
    Balance,
    Changes,
    Entry,
    Hold,
    Outcomes,
    Posting,
    Refusal,
    is_expired,
)

_NO_DEBIT: Final = {AccountState.BLOCKED, AccountState.BLOCKED_DEBIT}
_NO_CREDIT: Final = {AccountState.BLOCKED, AccountState.BLOCKED_CREDIT}


class Batch:
    """One batch of commands over locked balances: answers each command and gathers the changes."""

    def __init__(self, *, balances: Mapping[UUID, Balance], outcomes: Outcomes, now: datetime) -> None:
        self._balances = balances
        self._outcomes = outcomes
        self._now = now
        self.changes = Changes(at=now)

    def balances_after(self) -> list[Balance]:
        """All balances of the batch as they are once its changes are written."""
        return [
            replace(balance, version=balance.version + 1) if account_id in self.changes.balances else balance
            for account_id, balance in self._balances.items()
        ]

    def transfer(self, command: Transfer, *, entry_id: UUID) -> Booked | PayflowError:
        """Move money between two accounts, from the payment's open hold or else from the available balance.

        The hold is taken also where the caller does not know of it: who placed it may not have lived to say so.
        """
        earlier = self._earlier(command.payment_id, command.fencing_token, step="book")
        if earlier is not None:
            return earlier
        refusal = self._refuse_transfer(command)
        if refusal is not None:
            return self._remember_refusal(
                command.payment_id, "book", command.fencing_token, refusal, command.debtor_account_id
            )
        if command.captures_hold or self._open_hold(command.payment_id) is not None:
            at = self._instant(command.debtor_account_id, command.creditor_account_id)
            error = self._take_from_hold(command.payment_id, command.fencing_token, command.amount_minor, at=at)
            if error is not None:
                return error
        return self._book(
            payment_id=command.payment_id,
            kind="return" if command.is_return else "transfer",
            token=command.fencing_token,
            entry_id=entry_id,
            legs=(
                (command.debtor_account_id, -command.amount_minor),
                (command.creditor_account_id, command.amount_minor),
            ),
        )

    def place_hold(self, command: PlaceHold, *, hold_id: UUID) -> HoldPlaced | PayflowError:
        """Reserve funds; a repeat gets the first hold, which from then on obeys the later process, and lasts longer."""
        if self._is_stale(command.payment_id, command.fencing_token):
            return StaleCommand()
        if command.payment_id in self._outcomes.entries:
            return AlreadyBooked()
        known = self._outcomes.holds.get(command.payment_id)
        if known is not None:
            if known.state == RELEASED:
                return PaymentEnded(known.end_reason or "")
            if known.state == HELD:
                self._hand_over(known, token=command.fencing_token, expires_at=command.expires_at)
            return HoldPlaced(hold_id=known.hold_id, placed_at=known.placed_at)
        refused = self._outcomes.refusals.get((command.payment_id, "hold"))
        if refused is not None:
            return refused.as_error()
        refusal = self._refuse_debit(command.account_id, command.currency, command.amount_minor)
        if refusal is not None:
            return self._remember_refusal(
                command.payment_id, "hold", command.fencing_token, refusal, command.account_id
            )
        at = self._instant(command.account_id)
        self._touch(command.account_id, at=at).held_minor += command.amount_minor
        self._write_hold(
            Hold(
                payment_id=command.payment_id,
                hold_id=hold_id,
                account_id=command.account_id,
                amount_minor=command.amount_minor,
                currency=command.currency,
                state=HELD,
                fencing_token=command.fencing_token,
                placed_at=at,
                expires_at=command.expires_at,
            )
        )
        return HoldPlaced(hold_id=hold_id, placed_at=at)

    def keep_hold(self, payment_id: UUID, token: int) -> HoldKept | PayflowError:
        """Take the expiry off an open hold."""
        if self._is_stale(payment_id, token):
            return StaleCommand()
        hold = self._outcomes.holds.get(payment_id)
        if hold is None or hold.state == RELEASED:
            return HoldNotFound()
        if hold.state == HELD and (hold.expires_at is not None or hold.fencing_token != token):
            self._write_hold(hold.changed(fencing_token=token, expires_at=None))
        return HoldKept(hold_id=hold.hold_id)

    def capture_hold(
        self,
        payment_id: UUID,
        token: int,
        *,
        nostro_account_id: UUID,
        entry_id: UUID,
        amount_minor: int | None = None,
    ) -> Booked | PayflowError:
        """Book the held amount, or a part of it, to another bank's nostro account; either way the hold ends."""
        earlier = self._earlier(payment_id, token, step="book")
        if earlier is not None:
            return earlier
        hold = self._outcomes.holds.get(payment_id)
        if hold is None:
            return HoldNotFound()
        amount = hold.amount_minor if amount_minor is None else amount_minor
        if amount <= 0:
            return InvalidAmount("What is captured must be more than nothing.")
        if amount > hold.amount_minor:
            return CaptureTooLarge()
        at = self._instant(hold.account_id, nostro_account_id)
        error = self._take_from_hold(payment_id, token, hold.amount_minor, at=at)
        if error is not None:
            return error
        legs = ((hold.account_id, -amount), (nostro_account_id, amount))
        return self._book(payment_id=payment_id, kind="capture", token=token, entry_id=entry_id, legs=legs)

    def release_hold(
        self, payment_id: UUID, token: int, reason: str, *, account_id: UUID | None = None
    ) -> Released | PayflowError:
        """End the payment's funds: release its hold, and refuse every later command for it.

        `account_id`: the debtor's account, where it is known.
        """
        if self._is_stale(payment_id, token):
            return StaleCommand()
        if payment_id in self._outcomes.entries:
            return AlreadyBooked()
        for step in STEPS:
            # Whoever comes late with a command for this payment finds a "no", whatever its token.
            if (payment_id, step) not in self._outcomes.refusals:
                self._remember_refusal(payment_id, step, token, PaymentEnded(reason), account_id)
        hold = self._outcomes.holds.get(payment_id)
        if hold is None:
            return Released(released_at=self._now)
        if hold.state == HELD:
            at = self._instant(hold.account_id)
            self._give_back(hold, at=at)
            self._write_hold(hold.changed(fencing_token=token, state=RELEASED, ended_at=at, end_reason=reason))
            return Released(released_at=at)
        return Released(released_at=hold.ended_at or self._now)

    def expire_hold(self, payment_id: UUID) -> bool:
        """Release a hold whose expiry has passed; whether it was released. Submission takes the expiry off."""
        hold = self._outcomes.holds.get(payment_id)
        if hold is None or not is_expired(hold, now=self._now):
            return False
        at = self._instant(hold.account_id)
        self._give_back(hold, at=at)
        self._write_hold(hold.changed(fencing_token=0, state=RELEASED, ended_at=at, end_reason="expired"))
        return True

    def credit(
        self,
        *,
        payment_id: UUID,
        token: int,
        from_account_id: UUID,
        account_id: UUID | None,
        amount_minor: int,
        currency: str,
        entry_id: UUID,
    ) -> Booked | PayflowError:
        """Credit money that came in from another bank, once: from its nostro account, or from suspense.

        A refusal is remembered: the other bank is told of it, and no late command may book what it was told is refused.
        `account_id` None: the creditor's account is not known.
        """
        entry = self._outcomes.entries.get(payment_id)
        if entry is not None and entry.kind == INCOMING_RETURN:
            return AlreadyBooked()
        earlier = self._earlier(payment_id, token, step="book")
        if earlier is not None:
            return earlier
        if account_id is None:
            return self._remember_refusal(payment_id, "book", token, AccountNotFound(), None)
        refusal = self._refuse_credit(account_id, currency)
        if refusal is not None:
            return self._remember_refusal(payment_id, "book", token, refusal, account_id)
        legs = ((from_account_id, -amount_minor), (account_id, amount_minor))
        return self._book(payment_id=payment_id, kind="incoming", token=token, entry_id=entry_id, legs=legs)

    def return_from_suspense(
        self,
        *,
        payment_id: UUID,
        token: int,
        nostro_account_id: UUID,
        suspense_account_id: UUID,
        amount_minor: int,
        entry_id: UUID,
    ) -> Booked | PayflowError:
        """Book money back from suspense to the bank that sent it, once, unless it went to the creditor.

        `payment_id`: the one under which it leaves suspense, as the credit to the creditor does (see `credit`).
        """
        entry = self._outcomes.entries.get(payment_id)
        if entry is not None:
            is_returned = entry.kind == INCOMING_RETURN
            return Booked(entry_id=entry.entry_id, booked_at=entry.booked_at) if is_returned else AlreadyBooked()
        # That the creditor's account refused it is why it goes back; from now on nothing else can be booked.
        if self._is_stale(payment_id, token):
            return StaleCommand()
        legs = ((suspense_account_id, -amount_minor), (nostro_account_id, amount_minor))
        return self._book(payment_id=payment_id, kind=INCOMING_RETURN, token=token, entry_id=entry_id, legs=legs)

    def open_with(self, *, opening_account_id: UUID, account_id: UUID, amount_minor: int, entry_id: UUID) -> None:
        """Book an opening balance from the internal opening-balances account."""
        legs = ((opening_account_id, -amount_minor), (account_id, amount_minor))
        self._book(payment_id=None, kind="opening", token=0, entry_id=entry_id, legs=legs)

    def _is_stale(self, payment_id: UUID, token: int) -> bool:
        return token < self._outcomes.highest_token(payment_id)

    def _earlier(self, payment_id: UUID, token: int, *, step: str) -> Booked | PayflowError | None:
        """The stored answer of this step, if it was taken already."""
        entry = self._outcomes.entries.get(payment_id)
        if entry is not None:
            return Booked(entry_id=entry.entry_id, booked_at=entry.booked_at)
        refused = self._outcomes.refusals.get((payment_id, step))
        if refused is not None:
            return refused.as_error()
        if self._is_stale(payment_id, token):
            return StaleCommand()
        return None

    def _refuse_transfer(self, command: Transfer) -> Rejection | None:
        hold = self._open_hold(command.payment_id)
        already_held = 0 if hold is None else hold.amount_minor
        return self._refuse_debit(
            command.debtor_account_id, command.currency, command.amount_minor, already_held=already_held
        ) or self._refuse_credit(command.creditor_account_id, command.currency)

    def _refuse_debit(
        self, account_id: UUID, currency: str, amount_minor: int, *, already_held: int = 0
    ) -> Rejection | None:
        balance = self._balances.get(account_id)
        if balance is None:
            return AccountNotFound()
        if balance.currency != currency:
            return CurrencyMismatch(f"The debtor's account is in {balance.currency}, the payment in {currency}.")
        if balance.state is AccountState.CLOSED:
            return AccountClosed("The debtor's account is closed.")
        if balance.state in _NO_DEBIT or balance.is_owner_blocked:
            return AccountBlocked("The debtor's account does not allow payments.")
        if not balance.is_internal and balance.available_minor + already_held < amount_minor:
            needed = format_minor(amount_minor, currency)
            return InsufficientFunds(f"The available balance does not cover {needed} {currency}.")
        return None

    def _refuse_credit(self, account_id: UUID, currency: str) -> Rejection | None:
        balance = self._balances.get(account_id)
        if balance is None:
            return AccountNotFound()
        if balance.currency != currency:
            return CurrencyMismatch(f"The creditor's account is in {balance.currency}, the payment in {currency}.")
        if balance.state is AccountState.CLOSED:
            return AccountClosed("The creditor's account is closed.")
        if balance.state in _NO_CREDIT or balance.is_owner_blocked:
            return AccountBlocked("The creditor's account does not allow incoming payments.")
        return None

    def _open_hold(self, payment_id: UUID) -> Hold | None:
        hold = self._outcomes.holds.get(payment_id)
        return hold if hold is not None and hold.state == HELD else None

    def _hand_over(self, hold: Hold, *, token: int, expires_at: datetime | None) -> None:
        """A late command of whoever had placed the hold must not release it, nor its expiry a submitted payment's."""
        latest = None if hold.expires_at is None or expires_at is None else max(hold.expires_at, expires_at)
        if token > hold.fencing_token or latest != hold.expires_at:
            self._write_hold(hold.changed(fencing_token=token, expires_at=latest))

    def _take_from_hold(self, payment_id: UUID, token: int, amount_minor: int, *, at: datetime) -> PayflowError | None:
        """End the hold at the entry's instant: at none of them the funds are neither held nor paid."""
        hold = self._outcomes.holds.get(payment_id)
        if hold is None or hold.state != HELD or hold.amount_minor != amount_minor:
            return HoldNotFound("The payment's funds are no longer held.")
        self._give_back(hold, at=at)
        self._write_hold(hold.changed(fencing_token=token, state=CAPTURED, ended_at=at, end_reason="captured"))
        return None

    def _book(
        self, *, payment_id: UUID | None, kind: str, token: int, entry_id: UUID, legs: Iterable[tuple[UUID, int]]
    ) -> Booked:
        legs = tuple(legs)
        at = self._instant(*(account_id for account_id, _ in legs))
        entry = Entry(entry_id, payment_id, kind, token, at)
        self.changes.entries.append(entry)
        if payment_id is not None:
            self._outcomes.entries[payment_id] = entry
        for account_id, amount_minor in legs:
            balance = self._touch(account_id, at=at)
            balance.posted_minor += amount_minor
            balance.sequence += 1
            self.changes.postings.append(
                Posting(account_id, balance.sequence, entry_id, payment_id, amount_minor, balance.posted_minor, at)
            )
        return Booked(entry_id=entry_id, booked_at=at)

    def _instant(self, *account_ids: UUID) -> datetime:
        """When something about these accounts happens: now, or at the latest instant that one of them has.

        An account's instants never go back, although clocks differ and a batch waits for its locks: the balance as of
        an instant is then that of the last posting up to it. Both sides of an entry have one instant, so that the books
        balance at any; other accounts of the batch have nothing to do with it.
        """
        at = self._now
        for account_id in account_ids:
            latest = self._balances[account_id].booked_at
            if latest is not None and latest > at:
                at = latest
        return at

    def _give_back(self, hold: Hold, *, at: datetime) -> None:
        """What was held is available again, or taken."""
        self._touch(hold.account_id, at=at).held_minor -= hold.amount_minor

    def _touch(self, account_id: UUID, *, at: datetime) -> Balance:
        balance = self._balances[account_id]
        balance.booked_at = at
        self.changes.balances[account_id] = balance
        return balance

    def _write_hold(self, hold: Hold) -> None:
        self._outcomes.holds[hold.payment_id] = hold
        self.changes.holds[hold.payment_id] = hold

    def _remember_refusal(
        self, payment_id: UUID, step: str, token: int, error: PayflowError, account_id: UUID | None
    ) -> PayflowError:
        if account_id is not None and account_id in self._balances:
            # Raises the account's version, so that nobody goes on from a balance known before this refusal.
            self._touch(account_id, at=self._instant(account_id))
        refusal = Refusal(payment_id, step, error.code, error.detail, token)
        self._outcomes.refusals[payment_id, step] = refusal
        self.changes.refusals.append(refusal)
        return error
