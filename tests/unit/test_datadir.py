"""The data directory's lock: one holder, and looking at it takes nothing away."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from payflow.run.datadir import ensure_secret, lock_holder, prepare, take_lock
from payflow.run.errors import StartError
from payflow.run.instance import Instance, make_instance


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    made = make_instance(data_dir=tmp_path / "data")
    prepare(made)
    return made


def test_the_holder_is_named_and_a_second_one_refused(instance: Instance) -> None:
    lock = take_lock(instance)

    with pytest.raises(StartError, match=f"in use by pid {os.getpid()}"):
        take_lock(instance)

    assert lock_holder(instance) == os.getpid()
    lock.release()


def test_a_released_lock_leaves_no_file_and_can_be_taken_again(instance: Instance) -> None:
    take_lock(instance).release()

    left = instance.lock_file.exists()
    again = take_lock(instance)

    assert not left
    assert lock_holder(instance) == os.getpid()
    again.release()
    assert lock_holder(instance) is None


def test_somebody_who_only_looks_does_not_keep_an_instance_from_starting(instance: Instance) -> None:
    descriptor = os.open(instance.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    looker = threading.Thread(target=lambda: (time.sleep(0.06), os.close(descriptor)))
    looker.start()

    lock = take_lock(instance)

    looker.join()
    assert lock_holder(instance) == os.getpid()
    lock.release()


def test_a_secret_is_made_once_and_closed_to_others(instance: Instance) -> None:
    path = instance.secrets_dir / "example"

    first, second = ensure_secret(path), ensure_secret(path)

    assert first == second
    assert len(first) >= 32
    assert path.stat().st_mode & 0o777 == 0o600
