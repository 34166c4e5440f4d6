"""One-time passwords: bound to the payment, limited in tries, time and number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.contracts.otp import InvalidOtp, IssueOtp, OtpExpired, OtpPayment, OtpVerified, TooManyOtps, VerifyOtp
from payflow.kernel.machine import IllegalTransition
from payflow.services.otp.domain import (
    Challenge,
    ChallengeState,
    Issue,
    Issuing,
    KeyRing,
    Limit,
    Rules,
    Verifying,
    canonical,
    code_matches,
)
from tests.builders import NOON, new_id

KEYS = KeyRing([bytes(range(32))])
RULES = Rules(
    lifetime=timedelta(minutes=5),
    tries_max=5,
    per_payment=Limit(3, timedelta(minutes=15)),
    per_customer=Limit(30, timedelta(minutes=15)),
)


def a_payment(**changes: Any) -> OtpPayment:
    values: dict[str, Any] = {
        "payment_id": new_id(),
        "customer_id": "cust_001",
        "amount_minor": 1_500_000,
        "currency": "USD",
        "debtor": "ACC001",
        "creditor": "ACC002",
    }
    return OtpPayment(**{**values, **changes})


def changed(payment: OtpPayment, **changes: Any) -> OtpPayment:
    return OtpPayment(**{**{name: getattr(payment, name) for name in payment.__struct_fields__}, **changes})


def a_challenge(payment: OtpPayment, keys: KeyRing = KEYS, **changes: Any) -> Challenge:
    challenge = Challenge(
        challenge_id=new_id(),
        payment_id=payment.payment_id,
        customer_id=payment.customer_id,
        key_id=keys.active_id,
        nonce=b"n" * 16,
        binding=keys.binding(keys.active_id, payment),
        tries_max=5,
        issued_at=NOON,
        expires_at=NOON + timedelta(minutes=5),
    )
    return replace(challenge, **changes)


def code_of(challenge: Challenge, payment: OtpPayment, keys: KeyRing = KEYS) -> str:
    return keys.code(challenge.key_id, challenge.nonce, payment)


def a_wrong_code(challenge: Challenge, payment: OtpPayment) -> str:
    return f"{(int(code_of(challenge, payment)) + 1) % 1_000_000:06d}"


def a_try(payment: OtpPayment, code: str, attempt_id: UUID | None = None) -> VerifyOtp:
    return VerifyOtp(payment=payment, code=code, attempt_id=attempt_id or new_id())


def verifying(*challenges: Challenge, keys: KeyRing = KEYS, after: timedelta = timedelta(0)) -> Verifying:
    return Verifying(challenges=challenges, keys=keys, now=NOON + after)


def issuing(
    *challenges: Challenge, recent: Iterable[Issue] = (), keys: KeyRing = KEYS, after: timedelta = timedelta(0)
) -> Issuing:
    return Issuing(
        open_challenges={challenge.payment_id: challenge for challenge in challenges},
        recent=recent,
        rules=RULES,
        keys=keys,
        now=NOON + after,
    )


def issue(batch: Issuing, payment: OtpPayment) -> Challenge | TooManyOtps:
    return batch.issue(IssueOtp(payment=payment, transaction_id="txn"), challenge_id=new_id(), nonce=b"m" * 16)


CHANGES = [
    {"amount_minor": 1_500_001},
    {"currency": "EUR"},
    {"debtor": "ACC003"},
    {"creditor": "ACC003"},
    {"customer_id": "cust_002"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_a_code_is_void_as_soon_as_anything_it_is_bound_to_changes(change: dict[str, Any]) -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    batch = verifying(challenge)

    answer = batch.verify(a_try(changed(payment, **change), code_of(challenge, payment)))

    assert isinstance(answer, OtpExpired)
    assert [(row.state, row.end_reason) for row in batch.changed] == [(ChallengeState.VOID, "other_payment")]
    assert isinstance(batch.verify(a_try(payment, code_of(challenge, payment))), OtpExpired)


@given(
    left=st.tuples(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8)),
    right=st.tuples(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8)),
)
def test_different_payments_never_share_an_encoding(left: tuple[str, str, str], right: tuple[str, str, str]) -> None:
    payment_id = new_id()
    payments = [
        a_payment(payment_id=payment_id, currency=parts[0], debtor=parts[1], creditor=parts[2])
        for parts in (left, right)
    ]

    encodings = [canonical(payment) for payment in payments]

    assert (encodings[0] == encodings[1]) == (left == right)


def test_codes_are_six_digits_and_spread_over_the_whole_range() -> None:
    payment = a_payment()

    codes = [KEYS.code(KEYS.active_id, nonce.to_bytes(16, "big"), payment) for nonce in range(5_000)]

    assert all(len(code) == 6 and code.isascii() and code.isdigit() for code in codes)
    assert {code[0] for code in codes} == set("0123456789")
    assert len(set(codes)) > 4_950


def test_the_code_is_the_same_in_every_release() -> None:
    payment = a_payment(payment_id=UUID(int=1))

    code = KEYS.code(KEYS.active_id, b"\x00" * 16, payment)

    assert (KEYS.active_id, code) == ("572cf5df", "965922")


@pytest.mark.parametrize(
    "typed",
    ["", "1", "12345", "1234567", " {code}", "{code} ", "{code}\n", "+{code}", "abcdef", "\ud800", "０１２３４５"],
)
def test_a_code_that_is_not_six_ascii_digits_is_a_wrong_try(typed: str) -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    batch = verifying(challenge)

    answer = batch.verify(a_try(payment, typed.format(code=code_of(challenge, payment))))

    assert answer == InvalidOtp(tries_left=4)


def test_digits_of_other_scripts_do_not_match() -> None:
    assert code_matches("012345", "012345")
    assert not code_matches("０１２３４５", "012345")
    assert not code_matches("٠١٢٣٤٥", "012345")


def test_five_wrong_tries_void_the_code_even_for_the_right_one_after_them() -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    batch = verifying(challenge)

    answers = [batch.verify(a_try(payment, a_wrong_code(challenge, payment))) for _ in range(5)]
    late = batch.verify(a_try(payment, code_of(challenge, payment)))

    assert answers == [InvalidOtp(tries_left=left) for left in (4, 3, 2, 1, 0)]
    assert isinstance(late, OtpExpired)
    assert [(row.state, row.tries, row.end_reason) for row in batch.changed] == [
        (ChallengeState.VOID, 5, "out_of_tries")
    ]
    assert [row.challenge_id for row in batch.failed] == [challenge.challenge_id]


def test_the_right_code_on_the_last_try_is_a_success() -> None:
    payment = a_payment()
    challenge = a_challenge(payment, tries=4)
    batch = verifying(challenge)

    answer = batch.verify(a_try(payment, code_of(challenge, payment)))

    assert answer == OtpVerified(challenge_id=challenge.challenge_id, verified_at=NOON)
    assert not batch.failed


def test_a_code_succeeds_once_and_the_same_attempt_again_is_the_same_success() -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    code, attempt_id = code_of(challenge, payment), new_id()
    batch = verifying(challenge)

    first = batch.verify(a_try(payment, code, attempt_id))
    again = batch.verify(a_try(payment, code, attempt_id))
    other = batch.verify(a_try(payment, code))
    later = verifying(*batch.changed, after=timedelta(hours=1)).verify(a_try(payment, code, attempt_id))

    assert isinstance(first, OtpVerified)
    assert first == again == later
    assert isinstance(other, OtpExpired)


def test_a_success_is_no_success_for_another_amount() -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    attempt_id = new_id()
    batch = verifying(challenge)
    batch.verify(a_try(payment, code_of(challenge, payment), attempt_id))

    answer = batch.verify(a_try(changed(payment, amount_minor=9), code_of(challenge, payment), attempt_id))

    assert isinstance(answer, OtpExpired)


def test_the_success_of_an_older_challenge_is_found_beside_a_newer_open_one() -> None:
    payment = a_payment()
    attempt_id = new_id()
    used = a_challenge(payment).ended(ChallengeState.USED, now=NOON, attempt_id=attempt_id)
    batch = verifying(used, a_challenge(payment, nonce=b"o" * 16))

    answer = batch.verify(a_try(payment, "000000", attempt_id))

    assert answer == OtpVerified(challenge_id=used.challenge_id, verified_at=NOON)
    assert not batch.changed


@pytest.mark.parametrize(("seconds", "is_valid"), [(299, True), (300, False)])
def test_a_code_is_valid_until_just_before_it_expires(seconds: int, is_valid: bool) -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    batch = verifying(challenge, after=timedelta(seconds=seconds))

    answer = batch.verify(a_try(payment, code_of(challenge, payment)))

    assert isinstance(answer, OtpVerified) == is_valid
    assert batch.changed[0].state is (ChallengeState.USED if is_valid else ChallengeState.EXPIRED)


def test_a_payment_without_a_challenge_has_no_valid_code() -> None:
    batch = verifying()

    assert isinstance(batch.verify(a_try(a_payment(), "123456")), OtpExpired)
    assert not batch.changed


def test_a_repeat_shows_the_open_challenge_and_issues_nothing() -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    batch = issuing(challenge, after=timedelta(minutes=4))

    answer = issue(batch, payment)

    assert answer == challenge
    assert (batch.new, batch.changed) == ([], [])


def test_two_requests_of_one_batch_for_one_payment_share_a_challenge() -> None:
    payment = a_payment()
    batch = issuing()

    answers = [issue(batch, payment), issue(batch, payment)]

    assert answers[0] == answers[1]
    assert batch.new == answers[:1]


def test_a_new_code_comes_when_the_old_one_expired() -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    batch = issuing(challenge, after=timedelta(minutes=5))

    answer = issue(batch, payment)

    assert isinstance(answer, Challenge)
    assert answer.challenge_id != challenge.challenge_id
    assert answer.expires_at == NOON + timedelta(minutes=10)
    assert [(row.challenge_id, row.state) for row in batch.changed] == [
        (challenge.challenge_id, ChallengeState.EXPIRED)
    ]


@pytest.mark.parametrize("change", CHANGES[:-1], ids=lambda change: next(iter(change)))
def test_asking_for_a_changed_payment_voids_the_old_code(change: dict[str, Any]) -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    batch = issuing(challenge)

    answer = issue(batch, changed(payment, **change))

    assert isinstance(answer, Challenge)
    assert answer.challenge_id != challenge.challenge_id
    assert [row.state for row in batch.changed] == [ChallengeState.VOID]


def test_a_payment_that_changes_within_one_batch_leaves_one_open_challenge() -> None:
    payment = a_payment()
    batch = issuing()

    issue(batch, payment)
    issue(batch, changed(payment, amount_minor=1))

    assert [row.state for row in batch.new] == [ChallengeState.VOID, ChallengeState.OPEN]


def test_a_fourth_code_for_a_payment_has_to_wait_until_the_first_has_left_the_window() -> None:
    payment = a_payment()
    minutes = [-14, -8, -2]
    recent = [Issue("cust_001", payment.payment_id, NOON + timedelta(minutes=minute)) for minute in minutes]

    answers = [issue(issuing(recent=recent, after=after), payment) for after in (timedelta(0), timedelta(minutes=1))]

    assert answers[0] == TooManyOtps(retry_after_s=60)
    assert isinstance(answers[1], Challenge)


def test_the_customers_limit_counts_over_all_payments_and_within_the_batch() -> None:
    recent = [Issue("cust_001", new_id(), NOON - timedelta(minutes=1)) for _ in range(28)]
    batch = issuing(recent=recent)

    answers = [issue(batch, a_payment()) for _ in range(3)]
    other = issue(batch, a_payment(customer_id="cust_002"))

    assert [type(answer) for answer in answers] == [Challenge, Challenge, TooManyOtps]
    assert answers[2] == TooManyOtps(retry_after_s=14 * 60)
    assert isinstance(other, Challenge)


def test_an_open_challenge_is_shown_also_to_a_customer_at_the_limit() -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    recent = [Issue("cust_001", payment.payment_id, NOON)] * 30

    assert issue(issuing(challenge, recent=recent), payment) == challenge


def test_a_rotated_key_verifies_its_codes_and_makes_no_new_ones() -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    rotated = KeyRing([b"x" * 32, bytes(range(32))])

    verified = verifying(challenge, keys=rotated).verify(a_try(payment, code_of(challenge, payment)))
    issued = issue(issuing(keys=rotated), a_payment())

    assert isinstance(verified, OtpVerified)
    assert isinstance(issued, Challenge)
    assert issued.key_id == rotated.active_id != KEYS.active_id


def test_a_code_whose_key_is_gone_is_void_and_replaced() -> None:
    payment = a_payment()
    challenge = a_challenge(payment)
    other = KeyRing([b"x" * 32])
    tried, asked = verifying(challenge, keys=other), issuing(challenge, keys=other)

    answers = [tried.verify(a_try(payment, code_of(challenge, payment))), issue(asked, payment)]

    assert [type(answer) for answer in answers] == [OtpExpired, Challenge]
    assert [row.end_reason for row in (*tried.changed, *asked.changed)] == ["key_gone", "key_gone"]


def test_a_final_state_is_never_left() -> None:
    ended = a_challenge(a_payment()).ended(ChallengeState.EXPIRED, now=NOON)

    with pytest.raises(IllegalTransition):
        ended.ended(ChallengeState.USED, now=NOON, attempt_id=new_id())


def test_a_challenge_shows_neither_nonce_nor_binding_when_printed() -> None:
    challenge = a_challenge(a_payment())

    assert "nonce" not in repr(challenge)
    assert "binding" not in repr(challenge)
