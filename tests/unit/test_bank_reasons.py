"""What other banks' ISO 20022 reasons are told as."""

from __future__ import annotations

import pytest

from payflow.contracts.problems import bank_refusal


@pytest.mark.parametrize(
    ("reason_code", "detail"),
    [
        ("AC01", "The other bank refused the payment: the account number is wrong (AC01)."),
        ("AC04", "The other bank refused the payment: the account is closed (AC04)."),
        ("AC06", "The other bank refused the payment: the account is blocked (AC06)."),
        ("RC04", "The other bank refused the payment: the creditor's bank is not known (RC04)."),
        # A bank's own code is told as it is, and silence as silence.
        ("X999", "The other bank refused the payment (X999)."),
        (None, "The other bank refused the payment (no reason given)."),
        ("", "The other bank refused the payment (no reason given)."),
    ],
)
def test_a_banks_refusal_says_in_words_what_its_reason_means(reason_code: str | None, detail: str) -> None:
    assert bank_refusal(reason_code) == detail
