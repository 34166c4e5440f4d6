"""Reading the keys of one-time passwords."""

from __future__ import annotations

import base64

import pytest

from payflow.services.otp.domain import KeyRing


def test_keys_are_read_as_hex_or_base64_and_the_first_one_is_active() -> None:
    first, second = b"a" * 32, b"b" * 40

    ring = KeyRing.parse(f"{base64.b64encode(first).decode()}, {second.hex()}")

    assert ring.active_id == KeyRing([first]).active_id
    assert KeyRing([second]).active_id in ring


@pytest.mark.parametrize("text", ["", "00" * 31, "not a key!", "z!" * 32, "00" * 32 + ",11"])
def test_a_short_or_unreadable_key_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        KeyRing.parse(text)

    assert not text or text not in str(refused.value)
