"""Encrypted columns: what was altered, moved or encrypted under another key is found, and keys can be rotated."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.platform.crypto import ColumnCipher, DecryptionError, ensure_column_keys

PLACE = "customers.name:cust_001"
KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}


def cipher(active: str = "k1", *known: str) -> ColumnCipher:
    return ColumnCipher(keys={name: KEYS[name] for name in (active, *known)}, active=active)


def key_file(**document: object) -> str:
    return json.dumps(document)


@given(text=st.text(max_size=200), place=st.text(max_size=40))
def test_what_was_encrypted_is_decrypted_at_its_place(text: str, place: str) -> None:
    assert cipher().decrypt(cipher().encrypt(text, place=place), place=place) == text


def test_the_same_text_never_looks_the_same() -> None:
    assert cipher().encrypt("Ada Lovelace", place=PLACE) != cipher().encrypt("Ada Lovelace", place=PLACE)


def test_the_text_cannot_be_seen() -> None:
    assert b"Ada" not in cipher().encrypt("Ada Lovelace", place=PLACE)


def test_every_altered_byte_is_found() -> None:
    data = cipher().encrypt("Ada", place=PLACE)

    for index in range(len(data)):
        altered = bytes([*data[:index], data[index] ^ 1, *data[index + 1 :]])
        with pytest.raises(DecryptionError):
            cipher().decrypt(altered, place=PLACE)


def test_every_cut_is_found() -> None:
    data = cipher().encrypt("Ada", place=PLACE)

    for length in range(len(data)):
        with pytest.raises(DecryptionError):
            cipher().decrypt(data[:length], place=PLACE)


@pytest.mark.parametrize("place", ["customers.name:cust_002", "customers.email:cust_001", ""])
def test_a_value_moved_to_another_record_or_column_is_found(place: str) -> None:
    data = cipher().encrypt("Ada", place=PLACE)

    with pytest.raises(DecryptionError, match="altered or moved"):
        cipher().decrypt(data, place=place)


def test_after_a_rotation_old_values_are_read_and_new_ones_need_the_new_key() -> None:
    before = cipher("k1")
    after = cipher("k2", "k1")
    old = before.encrypt("old", place=PLACE)

    new = after.encrypt("new", place=PLACE)

    assert after.decrypt(old, place=PLACE) == "old"
    assert after.decrypt(new, place=PLACE) == "new"
    with pytest.raises(DecryptionError, match="no key 'k2'"):
        before.decrypt(new, place=PLACE)


def test_a_key_that_was_taken_away_is_named() -> None:
    old = cipher("k1").encrypt("old", place=PLACE)

    with pytest.raises(DecryptionError, match="no key 'k1'"):
        cipher("k2").decrypt(old, place=PLACE)


def test_another_key_under_the_same_name_reads_nothing() -> None:
    data = cipher("k1").encrypt("Ada", place=PLACE)
    other = ColumnCipher(keys={"k1": b"x" * 32}, active="k1")

    with pytest.raises(DecryptionError):
        other.decrypt(data, place=PLACE)


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    ensure_column_keys(path)
    made = path.read_text()

    ensure_column_keys(path)

    assert path.read_text() == made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ColumnCipher.from_json(made).encrypt("x", place=PLACE)


GOOD_KEY = base64.b64encode(b"k" * 32).decode()
BROKEN = [
    "",
    "not json",
    "[]",
    "{}",
    key_file(active="k1"),
    key_file(keys={"k1": GOOD_KEY}),
    key_file(active="k2", keys={"k1": GOOD_KEY}),
    key_file(active="k1", keys=[GOOD_KEY]),
    key_file(active="k1", keys={"k1": 7}),
    key_file(active="k1", keys={"k1": "no base64!"}),
    key_file(active="k1", keys={"k1": GOOD_KEY[:-4] + "!@#" + GOOD_KEY[-4:]}),
    key_file(active="k1", keys={"k1": base64.b64encode(b"k" * 16).decode()}),
    key_file(active="k1", keys={"k1": base64.b64encode(b"k" * 33).decode()}),
    key_file(active="", keys={"": GOOD_KEY}),
    key_file(active="schlüssel", keys={"schlüssel": GOOD_KEY}),
    key_file(active="k" * 256, keys={"k" * 256: GOOD_KEY}),
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_key_file_that_cannot_be_used_is_refused_without_showing_a_key(text: str) -> None:
    with pytest.raises(ValueError) as told:
        ColumnCipher.from_json(text)

    assert GOOD_KEY not in str(told.value)
