"""What the otp service does: issue codes, verify them, forget old ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from payflow.contracts.notification import SendOtpCode
from payflow.contracts.operation import Answers
from payflow.contracts.otp import IssueOtp, OtpIssued, OtpVerified, VerifyOtp
from payflow.contracts.topics import SecurityEvent, mask_account
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.kernel.money import format_minor
from payflow.services.otp.domain import Challenge, Issuing, KeyRing, Rules, Verifying
from payflow.services.otp.ports import CodeSender, Entropy, Store

SOURCE = "otp"


async def issue(
    *,
    commands: Sequence[IssueOtp],
    store: Store,
    sender: CodeSender,
    keys: KeyRing,
    rules: Rules,
    ids: Ids,
    entropy: Entropy,
    now: datetime,
) -> Answers[OtpIssued]:
    """Issue a code for each payment, or show its open challenge: one answer per command, in order.

    Safe to repeat: a payment has one open challenge. A code that could not be handed over leaves its challenge open,
    answers Unavailable, and is handed over by the repeat. Items may be TooManyOtps (with `retry_after_s`).
    """
    customer_ids = sorted({command.payment.customer_id for command in commands})
    async with store.transaction() as challenges:
        await challenges.lock_customers(customer_ids)
        batch = Issuing(
            open_challenges=await challenges.open_challenges([command.payment.payment_id for command in commands]),
            recent=await challenges.issues_since(customer_ids, now - rules.longest_window),
            rules=rules,
            keys=keys,
            now=now,
        )
        decided = [batch.issue(command, challenge_id=ids.new(), nonce=entropy.nonce()) for command in commands]
        await challenges.update(batch.changed)
        await challenges.insert(batch.new)
    new = {challenge.challenge_id for challenge in batch.new}
    failures = await _hand_over(commands=commands, decided=decided, sender=sender, keys=keys, store=store, now=now)

    def answer(challenge: Challenge | PayflowError) -> OtpIssued | PayflowError:
        if isinstance(challenge, PayflowError):
            return challenge
        is_new = challenge.challenge_id in new
        new.discard(challenge.challenge_id)
        return failures.get(challenge.challenge_id) or OtpIssued(
            challenge_id=challenge.challenge_id, expires_at=challenge.expires_at, is_new=is_new
        )

    return [answer(challenge) for challenge in decided]


async def _hand_over(
    *,
    commands: Sequence[IssueOtp],
    decided: Sequence[Challenge | PayflowError],
    sender: CodeSender,
    keys: KeyRing,
    store: Store,
    now: datetime,
) -> dict[UUID, Unavailable]:
    """Send the codes that were not sent yet, outside any transaction; the failures by challenge.

    One that was sent a while ago is handed over again: notification sends it another way if it has heard meanwhile that
    it did not arrive, and does nothing otherwise. Whatever becomes of that, the code was sent.
    """
    wanted: dict[UUID, SendOtpCode] = {}
    unsent: set[UUID] = set()
    for command, challenge in zip(commands, decided, strict=True):
        if isinstance(challenge, Challenge) and challenge.may_be_handed_over(now):
            wanted[challenge.challenge_id] = _message(command, challenge, keys)
            if challenge.sent_at is None:
                unsent.add(challenge.challenge_id)
    if not wanted:
        return {}
    answers = await sender.send_otp_codes(list(wanted.values()))
    # Also where nobody can tell whether it was sent: the repeat sends nothing twice.
    failures = {
        challenge_id: Unavailable("The one-time password could not be sent.")
        for challenge_id, answer in zip(wanted, answers, strict=True)
        if isinstance(answer, PayflowError) and challenge_id in unsent
    }
    await store.mark_sent([challenge_id for challenge_id in unsent if challenge_id not in failures], now)
    return failures


def _message(command: IssueOtp, challenge: Challenge, keys: KeyRing) -> SendOtpCode:
    payment = command.payment
    return SendOtpCode(
        challenge_id=challenge.challenge_id,
        customer_id=payment.customer_id,
        transaction_id=command.transaction_id,
        code=keys.code(challenge.key_id, challenge.nonce, payment),
        amount=format_minor(payment.amount_minor, payment.currency),
        currency=payment.currency,
        creditor=mask_account(payment.creditor),
        expires_at=challenge.expires_at,
    )


async def verify(
    *, commands: Sequence[VerifyOtp], store: Store, keys: KeyRing, ids: Ids, now: datetime, traceparent: str
) -> Answers[OtpVerified]:
    """Check typed codes, each wrong one counted in the transaction that decides: one answer per command, in order.

    A repeat of a success under the same `attempt_id` is the same success. Items may be InvalidOtp (with `tries_left`)
    or OtpExpired: too late, void, out of tries, used, or issued for another amount or payee.
    """
    async with store.transaction() as challenges:
        batch = Verifying(
            challenges=await challenges.challenges_of([command.payment.payment_id for command in commands]),
            keys=keys,
            now=now,
        )
        answers = [batch.verify(command) for command in commands]
        await challenges.update(batch.changed)
        await challenges.append_events(
            [_failed_event(challenge, id=ids.new(), now=now, traceparent=traceparent) for challenge in batch.failed]
        )
    return answers


def _failed_event(challenge: Challenge, *, id: UUID, now: datetime, traceparent: str) -> Event:
    detail = f"payment {challenge.payment_id}: {challenge.tries} wrong one-time passwords"
    data = SecurityEvent(actor=challenge.customer_id, detail=detail, customer_id=challenge.customer_id)
    return Event(
        id=id,
        source=SOURCE,
        type="security.otp_failed",
        subject=str(challenge.challenge_id),
        version=1,
        time=now,
        data=msgspec.to_builtins(data),
        traceparent=traceparent,
    )


async def forget_old(*, store: Store, now: datetime, keep: timedelta) -> int:
    """Delete challenges older than `keep`; returns how many."""
    return await store.delete_before(now - keep)
