"""Decides about one-time passwords. Pure: challenges come in locked, answers and changed challenges go out.

A code is never stored: it is computed from a secret key, the challenge's random nonce, and the payment it is bound to,
so that a changed amount or payee makes another code (PSD2 RTS on SCA, article 5: dynamic linking).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from payflow.contracts.otp import InvalidOtp, IssueOtp, OtpExpired, OtpPayment, OtpVerified, TooManyOtps, VerifyOtp
from payflow.kernel.errors import PayflowError
from payflow.kernel.machine import Machine

DIGITS: Final = 6
KEY_BYTES_MIN: Final = 32
NONCE_BYTES: Final = 16
SENT_AGAIN_AFTER: Final = timedelta(seconds=15)

OUT_OF_TRIES: Final = "out_of_tries"
OTHER_PAYMENT: Final = "other_payment"
KEY_GONE: Final = "key_gone"
TOO_LATE: Final = "too_late"


class ChallengeState(StrEnum):
    """OPEN waits for its code; the other three are final."""

    OPEN = "OPEN"
    USED = "USED"
    VOID = "VOID"
    EXPIRED = "EXPIRED"


LIFE: Final = Machine(
    {
        ChallengeState.OPEN: {ChallengeState.USED, ChallengeState.VOID, ChallengeState.EXPIRED},
        ChallengeState.USED: set(),
        ChallengeState.VOID: set(),
        ChallengeState.EXPIRED: set(),
    }
)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One code that was issued: everything about it but the code. `binding` is a keyed digest of the payment."""

    challenge_id: UUID
    payment_id: UUID
    customer_id: str
    key_id: str
    nonce: bytes = field(repr=False)
    binding: bytes = field(repr=False)
    tries_max: int
    issued_at: datetime
    expires_at: datetime
    state: ChallengeState = ChallengeState.OPEN
    tries: int = 0
    sent_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    attempt_id: UUID | None = None

    def is_expired(self, now: datetime) -> bool:
        """Whether the code's time is over; the interval is half-open."""
        return now >= self.expires_at

    def may_be_handed_over(self, now: datetime) -> bool:
        """Whether notification is to be asked to send it: not sent yet, or sent so long ago that its vendor may have
        told since that it did not arrive."""
        return self.sent_at is None or now >= self.sent_at + SENT_AGAIN_AFTER

    def ended(
        self, state: ChallengeState, *, now: datetime, reason: str | None = None, attempt_id: UUID | None = None
    ) -> Challenge:
        """This challenge in a final state. Raises IllegalTransition when it is in one already."""
        LIFE.check(self.state, state)
        return replace(self, state=state, ended_at=now, end_reason=reason, attempt_id=attempt_id)


@dataclass(frozen=True, slots=True)
class Issue:
    """That a code was issued, as the rate limits count it."""

    customer_id: str
    payment_id: UUID
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` codes in any `window`."""

    count: int
    window: timedelta

    def retry_after_s(self, issued: Iterable[datetime], *, now: datetime) -> int:
        """Whole seconds until one more may be issued; 0 when it may be now."""
        counted = sorted(instant for instant in issued if instant > now - self.window)
        if len(counted) < self.count:
            return 0
        return max(1, math.ceil((counted[-self.count] + self.window - now).total_seconds()))


@dataclass(frozen=True, slots=True)
class Rules:
    """How long a code lives, how often it may be tried, and how many may be asked for."""

    lifetime: timedelta
    tries_max: int
    per_payment: Limit
    per_customer: Limit

    @property
    def longest_window(self) -> timedelta:
        """How far back the limits look."""
        return max(self.per_payment.window, self.per_customer.window)


def canonical(payment: OtpPayment) -> bytes:
    """What a code is bound to, each part with its length in front: no two payments share an encoding."""
    parts = (
        payment.payment_id.bytes,
        payment.customer_id.encode(),
        str(payment.amount_minor).encode(),
        payment.currency.encode(),
        payment.debtor.encode(),
        payment.creditor.encode(),
    )
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _read_key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a key must be hex or base64") from None


class KeyRing:
    """The keys of codes. The first one makes codes, every one verifies those it made.

    A key's id is derived from the key, so that a rotation is: put the new key in front, and drop the old one when the
    codes made with it have ended.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) < KEY_BYTES_MIN for key in keys):
            raise ValueError(f"every key must have at least {KEY_BYTES_MIN} bytes")
        self._keys = {hashlib.sha256(b"payflow otp key id" + key).hexdigest()[:8]: key for key in keys}
        self.active_id = next(iter(self._keys))

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read keys in hex or base64, separated by commas or blanks. Raises ValueError, which never quotes a key."""
        return cls([_read_key(part) for part in text.replace(",", " ").split()])

    def __contains__(self, key_id: object) -> bool:
        return key_id in self._keys

    def binding(self, key_id: str, payment: OtpPayment) -> bytes:
        """A digest that tells whether two payments are the same; keyed, or account numbers could be guessed from it."""
        return hmac.digest(self._keys[key_id], b"payflow otp binding 1" + canonical(payment), "sha256")

    def code(self, key_id: str, nonce: bytes, payment: OtpPayment) -> str:
        """The code of a challenge: six digits.

        Truncated as 64 bits modulo 10^6: the first 551,616 codes are likelier than the rest by one part in 10^13,
        far less than anybody could use in five tries.
        """
        digest = hmac.digest(self._keys[key_id], b"payflow otp code 1" + nonce + canonical(payment), "sha256")
        return f"{int.from_bytes(digest[:8], 'big') % 10**DIGITS:0{DIGITS}d}"


def code_matches(given: str, code: str) -> bool:
    """Whether the customer typed the code. Takes the same time wherever the two differ; only ASCII digits can match."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), code.encode("ascii"))


class Issuing:
    """One batch of requests for codes: answers each and gathers the challenges to write.

    `open_challenges` are locked; `recent` are the codes issued to the batch's customers within the limits' windows.
    """

    def __init__(
        self,
        *,
        open_challenges: Mapping[UUID, Challenge],
        recent: Iterable[Issue],
        rules: Rules,
        keys: KeyRing,
        now: datetime,
    ) -> None:
        self._open = dict(open_challenges)
        self._recent = list(recent)
        self._rules = rules
        self._keys = keys
        self._now = now
        self._new: dict[UUID, Challenge] = {}
        self._changed: dict[UUID, Challenge] = {}

    @property
    def new(self) -> list[Challenge]:
        """Challenges to insert."""
        return list(self._new.values())

    @property
    def changed(self) -> list[Challenge]:
        """Challenges to update."""
        return list(self._changed.values())

    def issue(self, command: IssueOtp, *, challenge_id: UUID, nonce: bytes) -> Challenge | TooManyOtps:
        """The payment's open challenge, or a new one where there is none, it has expired, or the payment changed."""
        payment = command.payment
        known = self._open.get(payment.payment_id)
        if known is not None:
            kept = self._keep(known, payment)
            if kept is not None:
                return kept
        wait_s = self._wait_s(payment)
        if wait_s:
            return TooManyOtps(retry_after_s=wait_s)
        challenge = Challenge(
            challenge_id=challenge_id,
            payment_id=payment.payment_id,
            customer_id=payment.customer_id,
            key_id=self._keys.active_id,
            nonce=nonce,
            binding=self._keys.binding(self._keys.active_id, payment),
            tries_max=self._rules.tries_max,
            issued_at=self._now,
            expires_at=self._now + self._rules.lifetime,
        )
        self._open[payment.payment_id] = self._new[challenge_id] = challenge
        self._recent.append(Issue(payment.customer_id, payment.payment_id, self._now))
        return challenge

    def _keep(self, known: Challenge, payment: OtpPayment) -> Challenge | None:
        """The open challenge if it still serves this payment; else it is ended."""
        if known.is_expired(self._now):
            ended = known.ended(ChallengeState.EXPIRED, now=self._now, reason=TOO_LATE)
        elif known.key_id not in self._keys:
            ended = known.ended(ChallengeState.VOID, now=self._now, reason=KEY_GONE)
        elif not hmac.compare_digest(known.binding, self._keys.binding(known.key_id, payment)):
            ended = known.ended(ChallengeState.VOID, now=self._now, reason=OTHER_PAYMENT)
        else:
            return known
        written = self._new if known.challenge_id in self._new else self._changed
        written[known.challenge_id] = ended
        del self._open[payment.payment_id]
        return None

    def _wait_s(self, payment: OtpPayment) -> int:
        of_customer = [issue for issue in self._recent if issue.customer_id == payment.customer_id]
        of_payment = [issue.issued_at for issue in of_customer if issue.payment_id == payment.payment_id]
        return max(
            self._rules.per_payment.retry_after_s(of_payment, now=self._now),
            self._rules.per_customer.retry_after_s((issue.issued_at for issue in of_customer), now=self._now),
        )


class Verifying:
    """One batch of typed codes: answers each and gathers the challenges to write.

    `challenges` are all of the batch's payments, locked, so that codes tried at the same moment are decided one after
    the other and share the tries. `failed` are those that just ran out of tries.
    """

    def __init__(self, *, challenges: Iterable[Challenge], keys: KeyRing, now: datetime) -> None:
        self._open: dict[UUID, Challenge] = {}
        self._used: dict[tuple[UUID, UUID], Challenge] = {}
        for challenge in challenges:
            self._remember(challenge)
        self._keys = keys
        self._now = now
        self._changed: dict[UUID, Challenge] = {}
        self.failed: list[Challenge] = []

    @property
    def changed(self) -> list[Challenge]:
        """Challenges to update."""
        return list(self._changed.values())

    def verify(self, command: VerifyOtp) -> OtpVerified | PayflowError:
        """Check one code: counts a try unless it is right or there is nothing to try it on."""
        payment = command.payment
        used = self._used.get((payment.payment_id, command.attempt_id))
        if used is not None and self._is_bound_to(used, payment):
            return _verified(used)
        challenge = self._open.get(payment.payment_id)
        if challenge is None:
            return OtpExpired()
        if challenge.is_expired(self._now):
            self._put(challenge.ended(ChallengeState.EXPIRED, now=self._now, reason=TOO_LATE))
            return OtpExpired()
        if not self._is_bound_to(challenge, payment):
            reason = OTHER_PAYMENT if challenge.key_id in self._keys else KEY_GONE
            self._put(challenge.ended(ChallengeState.VOID, now=self._now, reason=reason))
            return OtpExpired()
        if code_matches(command.code, self._keys.code(challenge.key_id, challenge.nonce, payment)):
            used = challenge.ended(ChallengeState.USED, now=self._now, attempt_id=command.attempt_id)
            self._put(used)
            return _verified(used)
        return self._count_wrong(challenge)

    def _count_wrong(self, challenge: Challenge) -> InvalidOtp:
        tried = replace(challenge, tries=challenge.tries + 1)
        if tried.tries >= tried.tries_max:
            tried = tried.ended(ChallengeState.VOID, now=self._now, reason=OUT_OF_TRIES)
            self.failed.append(tried)
        self._put(tried)
        return InvalidOtp(tries_left=tried.tries_max - tried.tries)

    def _is_bound_to(self, challenge: Challenge, payment: OtpPayment) -> bool:
        if challenge.key_id not in self._keys:
            return False
        return hmac.compare_digest(challenge.binding, self._keys.binding(challenge.key_id, payment))

    def _put(self, challenge: Challenge) -> None:
        self._changed[challenge.challenge_id] = challenge
        self._open.pop(challenge.payment_id, None)
        self._remember(challenge)

    def _remember(self, challenge: Challenge) -> None:
        if challenge.state is ChallengeState.OPEN:
            self._open[challenge.payment_id] = challenge
        elif challenge.attempt_id is not None:
            self._used[challenge.payment_id, challenge.attempt_id] = challenge


def _verified(challenge: Challenge) -> OtpVerified:
    assert challenge.ended_at is not None
    return OtpVerified(challenge_id=challenge.challenge_id, verified_at=challenge.ended_at)
