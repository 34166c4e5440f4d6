"""What the fictional banks do: take payments, tell what became of them, and pay into accounts of ours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from payflow.contracts.account import AccountNotFound, AlreadyExists
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.money import InvalidAmount, Money, UnknownCurrency, format_minor
from payflow.platform.postgres import ConcurrencyConflict
from payflow.services.partner_bank.domain import account_number, message_id_of, uetr_of
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransfer,
    CreditTransferMessage,
    Header,
    PaymentReturn,
    PaymentReturnMessage,
    StatusMessage,
    StatusQuery,
    StatusRequestMessage,
    TransactionStatus,
)
from payflow.services.partner_bank.rails.iso20022.names import PACS_004
from payflow_dev.other_bank.domain import (
    FORGED,
    NOT_TAKEN,
    UNANSWERED,
    Behaviour,
    Decision,
    Mode,
    Payment,
    PaymentOut,
    outcome_of,
    return_key,
)
from payflow_dev.other_bank.store import BooksStore
from payflow_dev.other_bank.wire import Sender

T = TypeVar("T")
TRIES = 5


class UnknownOwnAccount(AccountNotFound):
    """No account of these banks has this number."""


class PaymentDiffers(AlreadyExists):
    """The end-to-end id belongs to a payment with other contents."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer to a message, in whose name, and how: None is no answer at all."""

    message: StatusMessage | None
    agent_bic: str
    delay_s: float = 0.0
    manner: Mode = Mode.ACCEPT


class Bank:
    """Both fictional banks behind one address; a message's InstdAgt says which of them is meant."""

    def __init__(self, *, store: BooksStore, sender: Sender, own_bic_of_partner: str, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._sender = sender
        self._partner_bic = own_bic_of_partner
        self._clock = clock
        self._ids = ids

    async def take(self, message: CreditTransferMessage, *, agent_bic: str, sender_bic: str) -> Reply:
        """Take the payments of a pacs.008 as the bank is told to behave towards each of them.

        A payment that stays unanswered is left out of the answer; when all are, there is none.
        """
        now = self._clock.now()
        payments = [_payment(one, message.header, agent_bic, sender_bic, now) for one in message.transactions]
        originals = [_original(one, message.header.message_id) for one in message.transactions]
        return await self._take(payments, originals, agent_bic=agent_bic, sender_bic=sender_bic)

    async def take_back(self, message: PaymentReturnMessage, *, agent_bic: str, sender_bic: str) -> Reply:
        """Take back the payments of a pacs.004, each as `take` takes one, to the account from which it was paid.

        A payment is taken back once, under whichever return's id; a return that was refused stays so.
        """
        now = self._clock.now()
        payments = []
        for one in message.transactions:
            paid = await self._store.find_paid(agent_bic, one.end_to_end_id)
            key = return_key(one.end_to_end_id, one.return_id)
            if await self._store.is_taken_back(agent_bic, prefix=return_key(one.end_to_end_id, ""), besides=key):
                paid = None
            payments.append(_returned(one, paid, message.header, agent_bic, sender_bic, now))
        originals = [
            StatusQuery(message.header.message_id, one.return_id, one.end_to_end_id, one.uetr, PACS_004)
            for one in message.transactions
        ]
        return await self._take(payments, originals, agent_bic=agent_bic, sender_bic=sender_bic)

    async def _take(
        self, payments: Sequence[Payment], originals: Sequence[StatusQuery], *, agent_bic: str, sender_bic: str
    ) -> Reply:
        now = self._clock.now()
        control = await self._store.control()
        behaviours = [control.behaviour_for(end_to_end_id=one.end_to_end_id, account=one.account) for one in payments]
        taken = [one for one, told in zip(payments, behaviours, strict=True) if told.mode not in NOT_TAKEN]
        decisions = await _repeat(lambda: self._store.take(taken, control=control, now=now)) if taken else []
        by_key = {one.key: decision for one, decision in zip(taken, decisions, strict=True)}
        statuses = [
            _status(original, FORGED if told.mode is Mode.FORGED else by_key[payment.key])
            for original, payment, told in zip(originals, payments, behaviours, strict=True)
            if payment.key in by_key and told.mode not in UNANSWERED
        ]
        return self._reply(statuses, behaviours, agent_bic=agent_bic, sender_bic=sender_bic)

    def _reply(
        self,
        statuses: list[TransactionStatus],
        behaviours: Sequence[Behaviour],
        *,
        agent_bic: str,
        sender_bic: str,
    ) -> Reply:
        modes = {told.mode for told in behaviours}
        manner = next(
            (mode for mode in (Mode.ERROR, Mode.CUT_OFF, Mode.GARBAGE, Mode.FORGED) if mode in modes), Mode.ACCEPT
        )
        delay_ms = max((told.delay_ms for told in behaviours if told.mode is Mode.DELAY), default=0)
        message = self._statuses(statuses, agent_bic, sender_bic) if statuses else None
        return Reply(message, agent_bic, delay_ms / 1000, manner)

    async def tell(self, message: StatusRequestMessage, *, agent_bic: str, sender_bic: str) -> Reply:
        """Answer a pacs.028 from the books."""
        control = await self._store.control()
        if not control.answers_enquiries:
            return Reply(None, agent_bic)
        decisions = await self._store.status_of(
            [
                return_key(one.end_to_end_id or "", one.instruction_id or "")
                if one.original_name == PACS_004
                else one.end_to_end_id or ""
                for one in message.transactions
            ],
            agent_bic=agent_bic,
            sender_bic=sender_bic,
            control=control,
            now=self._clock.now(),
        )
        statuses = [_status(one, decision) for one, decision in zip(message.transactions, decisions, strict=True)]
        return Reply(self._statuses(statuses, agent_bic, sender_bic), agent_bic)

    def _statuses(self, statuses: list[TransactionStatus], agent_bic: str, sender_bic: str) -> StatusMessage:
        head = Header(message_id_of(self._ids.new()), self._clock.now(), agent_bic, sender_bic)
        return StatusMessage(head, statuses)

    async def pay(
        self,
        *,
        from_account: str,
        to_account: str,
        amount: str,
        currency: str,
        debtor_name: str | None,
        creditor_name: str,
        end_to_end_id: str | None,
    ) -> PaymentOut:
        """Pay into an account at the partner bank; the payment with the answer, UNKNOWN where none came.

        A known end-to-end id is sent again under its ids. Raises UnknownOwnAccount, PaymentDiffers, InvalidAmount.
        """
        owner = (await self._store.accounts()).get(account_number(from_account))
        if owner is None:
            raise UnknownOwnAccount(f"No account here has the number {from_account[:34]}.")
        money = Money.from_decimal(amount, currency)
        id = self._ids.new()
        wanted = PaymentOut(
            end_to_end_id=end_to_end_id or f"OB{id.hex}",
            agent_bic=owner[0],
            message_id=message_id_of(id),
            uetr=uetr_of(id),
            from_account=account_number(from_account),
            to_account=to_account,
            amount_minor=money.minor_units,
            currency=currency,
            debtor_name=debtor_name or owner[1],
            creditor_name=creditor_name,
            sent_at=self._clock.now(),
        )
        payment = await self._store.note_payment(wanted)
        for name in ("from_account", "to_account", "amount_minor", "currency"):
            if getattr(payment, name) != getattr(wanted, name):
                raise PaymentDiffers(f"{payment.end_to_end_id} was sent with another {name}.")
        await self._send(payment)
        return await self._store.note_payment(wanted)

    async def ask_again(self) -> int:
        """Ask what became of payments without an answer; what never arrived is sent again. Returns how many."""
        open_ones = await self._store.unanswered(sent_before=self._clock.now() - timedelta(seconds=1))
        for payment in open_ones:
            head = Header(message_id_of(self._ids.new()), self._clock.now(), payment.agent_bic, self._partner_bic)
            query = StatusQuery(payment.message_id, None, payment.end_to_end_id, payment.uetr)
            status = await self._sender.ask(StatusRequestMessage(head, [query]))
            if status is not None and status.reason_code == "AG09":
                await self._send(payment)
            else:
                await self._note(payment, status)
        return len(open_ones)

    async def _send(self, payment: PaymentOut) -> None:
        await self._store.count_sending(payment)
        head = Header(payment.message_id, payment.sent_at, payment.agent_bic, self._partner_bic)
        await self._note(payment, await self._sender.ask(CreditTransferMessage(head, [self._transfer(payment)])))

    async def _note(self, payment: PaymentOut, status: TransactionStatus | None) -> None:
        iso_status = status.status if status else None
        await self._store.answer(
            payment,
            other_bic=self._partner_bic,
            outcome=outcome_of(iso_status),
            iso_status=iso_status,
            reason=status.reason_code if status else None,
            now=self._clock.now(),
        )

    def _transfer(self, payment: PaymentOut) -> CreditTransfer:
        return CreditTransfer(
            instruction_id=None,
            end_to_end_id=payment.end_to_end_id,
            transaction_id=payment.message_id,
            uetr=payment.uetr,
            amount=format_minor(payment.amount_minor, payment.currency),
            currency=payment.currency,
            debtor_name=payment.debtor_name,
            debtor_account=payment.from_account,
            debtor_agent_bic=payment.agent_bic,
            creditor_name=payment.creditor_name,
            creditor_account=payment.to_account,
            creditor_agent_bic=self._partner_bic,
        )


def _payment(one: CreditTransfer, header: Header, agent_bic: str, sender_bic: str, now: datetime) -> Payment:
    try:
        amount_minor = Money.from_decimal(one.amount, one.currency).minor_units
    except (InvalidAmount, UnknownCurrency):
        amount_minor = 0
    return Payment(
        agent_bic=agent_bic,
        sender_bic=sender_bic,
        end_to_end_id=one.end_to_end_id,
        message_id=header.message_id,
        instruction_id=one.instruction_id,
        uetr=one.uetr,
        account=account_number(one.creditor_account or ""),
        amount_minor=amount_minor,
        currency=one.currency,
        debtor_name=one.debtor_name,
        received_at=now,
    )


def _returned(
    one: PaymentReturn, paid: PaymentOut | None, header: Header, agent_bic: str, sender_bic: str, now: datetime
) -> Payment:
    """A return as what comes in for the account from which it was paid; for none where nothing like it was paid."""
    try:
        amount = Money.from_decimal(one.amount, one.currency)
    except (InvalidAmount, UnknownCurrency):
        amount = Money(0, one.currency)
    is_paid = (
        paid is not None
        and paid.status == "ACCEPTED"
        and (paid.amount_minor, paid.currency) == (amount.minor_units, amount.currency)
    )
    return Payment(
        agent_bic=agent_bic,
        sender_bic=sender_bic,
        end_to_end_id=return_key(one.end_to_end_id, one.return_id),
        message_id=header.message_id,
        instruction_id=one.return_id,
        uetr=one.uetr,
        account=paid.from_account if paid is not None and is_paid else "",
        amount_minor=amount.minor_units,
        currency=one.currency,
        debtor_name=None,
        received_at=now,
    )


def _original(one: CreditTransfer, message_id: str) -> StatusQuery:
    return StatusQuery(message_id, one.instruction_id, one.end_to_end_id, one.uetr)


def _status(original: StatusQuery, decision: Decision) -> TransactionStatus:
    return TransactionStatus(
        original_message_id=original.original_message_id,
        instruction_id=original.instruction_id,
        end_to_end_id=original.end_to_end_id,
        uetr=original.uetr,
        status=decision.iso_status,
        reason_code=decision.reason_code,
        original_name=original.original_name,
    )


async def _repeat(work: Callable[[], Awaitable[T]]) -> T:
    """Do it again after a deadlock: two messages with the same payments met."""
    for _ in range(TRIES - 1):
        try:
            return await work()
        except ConcurrencyConflict:
            continue
    return await work()
