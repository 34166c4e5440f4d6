"""One suite for heads in memory and in the heads file; then what only a file and real keys can show."""

from __future__ import annotations

import asyncio
import base64
import json
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from joserfc.jwk import ECKey, OKPKey

from payflow.kernel.errors import Conflict, Unavailable
from payflow.services.audit.domain import ChainEnd, Head, HeadRead, Receipt, next_head, receipt_of
from payflow.services.audit.heads import HEADS_FILE, PUBLIC_KEYS_FILE, HeadKeys, HeadsFile
from payflow.services.audit.ports import Heads
from tests.builders import NOON
from tests.fakes_audit import FakeHeads


def a_key() -> OKPKey:
    return OKPKey.generate_key("Ed25519")


def as_json(*keys: OKPKey) -> str:
    documents = [key.as_dict(private=True) for key in keys]
    return json.dumps(documents[0] if len(documents) == 1 else {"keys": documents})


@pytest.fixture(scope="module")
def key() -> OKPKey:
    return a_key()


@pytest.fixture
def heads_file(tmp_path: Path, key: OKPKey) -> HeadsFile:
    heads = HeadsFile(directory=tmp_path, keys=HeadKeys.from_json(as_json(key)))
    heads.prepare()
    return heads


@pytest.fixture(params=["memory", "file"])
def heads(request: pytest.FixtureRequest, heads_file: HeadsFile) -> Heads:
    return FakeHeads() if request.param == "memory" else heads_file


def after(sequence: int) -> Callable[[Head | None], Head | None]:
    """Makes the head of row `sequence`, whatever was signed before."""
    end = ChainEnd(sequence, bytes([sequence]) * 32)
    return lambda last: next_head(end=end, last=last, receipt=Receipt(), now=NOON)


async def all_of(heads: Heads) -> list[HeadRead]:
    return [read async for page in heads.pages() for read in page]


async def test_heads_are_read_as_they_were_signed_and_each_names_the_one_before(heads: Heads) -> None:
    for sequence in (3, 4, 9):
        await heads.append(after(sequence))

    reads = await all_of(heads)

    assert [read.is_signature_valid for read in reads] == [True, True, True]
    found = [read.head for read in reads if read.head is not None]
    assert [(head.number, head.sequence, head.signed_at) for head in found] == [
        (1, 3, NOON),
        (2, 4, NOON),
        (3, 9, NOON),
    ]
    assert [head.previous for head in found] == [Receipt().digest, found[0].digest(), found[1].digest()]


async def test_nothing_to_sign_gives_the_last_head_and_writes_nothing(heads: Heads) -> None:
    nothing = await heads.append(lambda last: None)
    head = await heads.append(after(3))

    again = await heads.append(after(3))

    assert nothing is None
    assert again == head
    assert len(await all_of(heads)) == 1


async def test_an_error_of_the_rule_passes_through_and_writes_nothing(heads: Heads) -> None:
    await heads.append(after(3))

    with pytest.raises(Conflict):
        await heads.append(after(2))

    assert len(await all_of(heads)) == 1


async def test_appends_of_the_same_moment_make_one_chain(heads: Heads) -> None:
    await asyncio.gather(*(heads.append(_whatever) for _ in range(8)))

    found = [read.head for read in await all_of(heads) if read.head is not None]

    assert [head.number for head in found] == list(range(1, 9))
    assert [head.previous for head in found[1:]] == [head.digest() for head in found[:-1]]


def _whatever(last: Head | None) -> Head:
    receipt = Receipt() if last is None else receipt_of(last)
    return Head(number=receipt.number + 1, sequence=1, hash="00", signed_at=NOON, previous=receipt.digest)


async def test_files_larger_than_a_page_are_read_whole(heads_file: HeadsFile) -> None:
    for _ in range(3):
        await heads_file.append(_whatever)
    path = heads_file._path
    path.write_bytes(path.read_bytes() * 400)

    reads = await all_of(heads_file)

    assert [read.line for read in reads] == list(range(1, 1201))
    assert all(read.is_signature_valid for read in reads)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sequence", 4),
        ("hash", "ff" * 32),
        ("number", 2),
        ("previous", "00"),
        ("signature", "AAAA"),
        ("kid", "unknown"),
    ],
)
async def test_a_changed_head_has_no_valid_signature(
    heads_file: HeadsFile, tmp_path: Path, name: str, value: object
) -> None:
    await heads_file.append(after(3))
    line = json.loads((tmp_path / HEADS_FILE).read_text())
    (tmp_path / HEADS_FILE).write_text(json.dumps({**line, name: value}) + "\n")

    (read,) = await all_of(heads_file)

    assert read.head is not None
    assert not read.is_signature_valid


async def test_a_head_signed_with_another_key_is_not_valid(heads_file: HeadsFile, tmp_path: Path) -> None:
    forger = HeadsFile(directory=tmp_path, keys=HeadKeys.from_json(as_json(a_key())))
    await heads_file.append(after(3))
    await forger.append(after(4))

    reads = await all_of(heads_file)

    assert [read.is_signature_valid for read in reads] == [True, False]


async def test_after_a_change_of_keys_old_heads_stay_valid(tmp_path: Path, key: OKPKey, heads_file: HeadsFile) -> None:
    await heads_file.append(after(3))
    rotated = HeadsFile(directory=tmp_path, keys=HeadKeys.from_json(as_json(a_key(), key)))
    rotated.prepare()
    await rotated.append(after(4))

    reads = await all_of(rotated)

    assert [read.is_signature_valid for read in reads] == [True, True]
    published = json.loads((tmp_path / PUBLIC_KEYS_FILE).read_text())["keys"]
    assert {read.head.kid for read in reads if read.head} == {key["kid"] for key in published}


async def test_whoever_has_the_public_keys_can_check_a_head_without_this_code(
    heads_file: HeadsFile, tmp_path: Path
) -> None:
    await heads_file.append(after(3))
    (published,) = json.loads((tmp_path / PUBLIC_KEYS_FILE).read_text())["keys"]
    head = json.loads((tmp_path / HEADS_FILE).read_text())

    instant = "2026-03-02T12:00:00.000000+00:00"
    parts = [head["number"], head["sequence"], head["hash"], instant, head["previous"], head["kid"]]
    signed = b"payflow-audit-head-1\n" + json.dumps(parts, separators=(",", ":")).encode()
    public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(published["x"] + "=="))

    public.verify(base64.urlsafe_b64decode(head["signature"]), signed)
    assert published["kid"] == head["kid"]
    assert "d" not in published


async def test_what_a_crash_left_of_a_line_is_neither_read_nor_continued(heads_file: HeadsFile, tmp_path: Path) -> None:
    await heads_file.append(after(3))
    whole = (tmp_path / HEADS_FILE).read_bytes()
    (tmp_path / HEADS_FILE).write_bytes(whole + whole[: len(whole) // 2])

    before = await all_of(heads_file)
    await heads_file.append(after(4))
    afterwards = await all_of(heads_file)

    assert [read.line for read in before] == [1]
    assert [(read.head.number if read.head else None, read.is_signature_valid) for read in afterwards] == [
        (1, True),
        (2, True),
    ]


async def test_a_line_that_is_no_head_is_told_as_unreadable(heads_file: HeadsFile, tmp_path: Path) -> None:
    await heads_file.append(after(3))
    with (tmp_path / HEADS_FILE).open("ab") as file:
        file.write(b"\xff\xfe nonsense\n")

    reads = await all_of(heads_file)

    assert [(read.line, read.head is None) for read in reads] == [(1, False), (2, True)]


async def test_without_a_file_there_are_no_heads(heads_file: HeadsFile) -> None:
    assert await all_of(heads_file) == []


async def test_the_heads_file_is_its_owners_alone(heads_file: HeadsFile, tmp_path: Path) -> None:
    await heads_file.append(after(3))

    assert stat.S_IMODE((tmp_path / HEADS_FILE).stat().st_mode) == 0o600


async def test_a_file_that_cannot_be_written_is_told_as_unavailable(tmp_path: Path, key: OKPKey) -> None:
    heads = HeadsFile(directory=tmp_path / "gone", keys=HeadKeys.from_json(as_json(key)))

    with pytest.raises(Unavailable, match="heads file cannot be written"):
        await heads.append(after(1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no json",
        "[]",
        "{}",
        '{"keys": []}',
        json.dumps(ECKey.generate_key("P-256").as_dict(private=True)),
        json.dumps(a_key().as_dict(private=False)),
        msgspec.json.encode(OKPKey.generate_key("X25519").as_dict(private=True)).decode(),
    ],
    ids=["empty", "no JSON", "a list", "no key", "no keys", "another kind of key", "only public", "X25519"],
)
def test_a_key_that_cannot_sign_heads_is_refused_with_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        HeadKeys.from_json(text)
