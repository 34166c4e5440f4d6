"""What a cluster needs of the command line: signing keys made in a folder, a public port for the gateway alone."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from payflow.run.main import main
from payflow.services.gateway.keys import FileKeyRing


def run(monkeypatch: pytest.MonkeyPatch, *typed: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["payflow", *typed])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def created_at(file: Path) -> float:
    return float(json.loads(file.read_text())["created_at"])


def test_keys_are_made_one_after_the_other_and_the_first_signs_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "token_keys"

    first = run(monkeypatch, "keys", "make", str(folder))
    second = run(monkeypatch, "keys", "make", str(folder), "--signs-in-s", "600")

    files = sorted(folder.iterdir())
    assert (first, second) == (0, 0)
    assert capsys.readouterr().out.splitlines() == [str(file) for file in files]
    assert [file.name for file in files] == ["0001.jwk", "0002.jwk"]
    assert created_at(files[0]) <= time.time()
    assert 590 < created_at(files[1]) - time.time() <= 600
    ring = FileKeyRing.open(folder, token_lifetime=timedelta(hours=1), now=datetime.now(UTC))
    assert ring.active.number == 1


def hand_out(volume: Path, files: Path, version: str) -> None:
    """Bring a folder up to date as a kubelet does with a Secret: links to a folder that is exchanged as a whole."""
    shutil.copytree(files, volume / f"..{version}")
    (volume / "..data_tmp").symlink_to(f"..{version}")
    (volume / "..data_tmp").replace(volume / "..data")
    for file in files.iterdir():
        if not (volume / file.name).is_symlink():
            (volume / file.name).symlink_to(f"..data/{file.name}")


def test_a_key_that_a_kubelet_hands_out_is_found_by_a_running_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, volume = tmp_path / "made", tmp_path / "volume"
    volume.mkdir()
    run(monkeypatch, "keys", "make", str(made))
    hand_out(volume, made, "first")
    ring = FileKeyRing.open(volume, token_lifetime=timedelta(hours=1), now=datetime.now(UTC))
    run(monkeypatch, "keys", "make", str(made), "--signs-in-s", "600")

    hand_out(volume, made, "second")
    was_read = ring.reload_if_changed()

    assert was_read
    assert ring.active.number == 1
    assert len(json.loads(ring.jwks)["keys"]) == 2


def test_a_folder_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    code = run(monkeypatch, "keys", "make", str(tmp_path / "file" / "keys"))

    assert code == 1
    assert f"{tmp_path}/file/keys cannot be used: Not a directory." in capsys.readouterr().err


def test_passwords_that_are_not_there_stop_the_migration_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(monkeypatch, "migrate", "--passwords-dir", str(tmp_path / "roles"))

    assert code == 1
    assert f"--passwords-dir {tmp_path}/roles: there is no such folder" in capsys.readouterr().err


def test_a_public_port_is_the_gateways(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(monkeypatch, "serve", "account", "--public-port", "8080")

    assert code == 1
    assert "--public-port is for the gateway: account has no public API." in capsys.readouterr().err
