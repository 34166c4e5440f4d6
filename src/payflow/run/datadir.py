"""The data directory: made once, versioned, and held by one supervisor at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from pathlib import Path
from typing import Final

from payflow.run.errors import StartError, explain_os_error
from payflow.run.instance import DATA_FORMAT, MIN_FREE_BYTES, POSTGRES_MAJOR, Instance, command_for

_LOOKER_GONE_S: Final = 0.2


class InstanceLock:
    """An exclusive flock on `<data>/lock` with the holder's pid in it; the kernel frees it when the holder dies."""

    def __init__(self, *, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    def write_pid(self) -> None:
        """Name this process as the holder (again after a fork, which inherits the lock but not the pid)."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def forget(self) -> None:
        """Close the inherited descriptor in a child: a lock held by a child would outlive its supervisor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def release(self) -> None:
        """Remove the file, then free the lock: in this order nobody can lock a file that is about to vanish unseen."""
        if self._descriptor is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        self.forget()


def take_lock(instance: Instance) -> InstanceLock:
    """Take the instance for this process. Raises StartError naming the process that has it."""
    path = instance.lock_file
    # `status` and `down` look by holding the lock for an instant: that is no instance.
    deadline = time.monotonic() + _LOOKER_GONE_S
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _pid_in(descriptor)
            os.close(descriptor)
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            raise StartError(
                f"{instance.data_dir} is in use by pid {holder or 'unknown'}: "
                f"stop it with `{command_for(instance, 'down')}`, "
                "or start a second instance with --data-dir, --port-base and --port."
            ) from None
        if _is_same_file(descriptor, path):
            lock = InstanceLock(path=path, descriptor=descriptor)
            lock.write_pid()
            return lock
        os.close(descriptor)


def lock_holder(instance: Instance) -> int | None:
    """The pid of the supervisor that runs this instance, or None when none does. Takes nothing."""
    try:
        descriptor = os.open(instance.lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _pid_in(descriptor)
    finally:
        os.close(descriptor)
    return None


def prepare(instance: Instance) -> None:
    """Make the directories. Raises StartError when the place cannot be used: no permission, disk full, not ours."""
    data_dir = instance.data_dir
    try:
        if data_dir.is_dir() and not instance.version_file.exists() and _holds_something_else(data_dir):
            raise StartError(f"{data_dir} is not empty and no data directory of Payflow: choose another --data-dir.")
        data_dir.mkdir(parents=True, exist_ok=True)
        # Root's servers run as another user, who must pass through; what is secret has a closed directory of its own.
        data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        for private in (instance.secrets_dir, instance.logs_dir, instance.service_keys_dir):
            private.mkdir(mode=0o700, exist_ok=True)
        instance.run_dir.mkdir(mode=0o711, exist_ok=True)
        free = shutil.disk_usage(data_dir).free
    except OSError as error:
        raise explain_os_error(error) or StartError(f"{data_dir} cannot be used: {error.strerror}.") from error
    if free < MIN_FREE_BYTES:
        raise StartError(
            f"The disk is almost full: {free // 2**20} MB are free at {data_dir}, "
            f"{MIN_FREE_BYTES // 2**20} MB are needed. Free some space, or choose another place with --data-dir."
        )


def check_version(instance: Instance) -> None:
    """Refuse data that a newer Payflow wrote; write the version where there is none yet."""
    path = instance.version_file
    if not path.exists():
        write_atomically(path, json.dumps({"format": DATA_FORMAT, "postgres": POSTGRES_MAJOR}) + "\n")
        return
    try:
        found = json.loads(path.read_text())
        data_format, postgres = int(found["format"]), int(found["postgres"])
    except (ValueError, KeyError, TypeError):
        raise StartError(f"{path} cannot be read as a version: restore it, or choose another --data-dir.") from None
    if data_format > DATA_FORMAT or postgres > POSTGRES_MAJOR:
        raise StartError(
            f"{instance.data_dir} was written by a newer Payflow (data format {data_format}, PostgreSQL {postgres}; "
            f"this one knows {DATA_FORMAT} and {POSTGRES_MAJOR}): update Payflow, or choose another --data-dir."
        )
    if postgres < POSTGRES_MAJOR:
        raise StartError(
            f"{instance.data_dir} holds a PostgreSQL {postgres} database and this Payflow brings {POSTGRES_MAJOR}: "
            "dump and restore it (pg_dump), or choose another --data-dir."
        )


def ensure_secret(path: Path) -> str:
    """The secret in this file; made at the first call, mode 0600, never overwritten."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    secret = secrets.token_urlsafe(24)
    write_atomically(path, secret + "\n")
    return secret


def write_atomically(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file so that a reader sees the old text or the new, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def _holds_something_else(data_dir: Path) -> bool:
    """Whether a directory without a version file has contents other than what an interrupted first start leaves."""
    ours = {"secrets", "logs", "run", "lock", "brokers"}
    return any(entry.name not in ours and not entry.name.startswith(".") for entry in data_dir.iterdir())


def _pid_in(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


def _is_same_file(descriptor: int, path: Path) -> bool:
    """Whether the locked file is still the one at `path`: its former holder may have removed it in between."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
