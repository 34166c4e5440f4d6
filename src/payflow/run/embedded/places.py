"""Where the servers' files can be: inside the data directory if possible, else where their user can reach them.

No mode outside the data directory is ever changed: where a folder above it is closed to the servers' user, the files
go to a place of their own and the data directory remembers where.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from payflow.run.datadir import write_atomically
from payflow.run.embedded.user import ServerUser
from payflow.run.errors import StartError
from payflow.run.instance import Instance

# A Unix socket's path ends at 104 or 108 bytes; a blank or a comma in it would need quoting in three notations.
_SOCKET_PATH_MAX: Final = 100
_PLAIN: Final = re.compile(r"[A-Za-z0-9._/-]+")
_LONGEST_SOCKET: Final = ".s.PGSQL.5432.lock"
_DATA_ROOT: Final = Path("/var/lib/payflow")
_COPY_ROOT: Final = Path("/var/tmp/payflow-root")  # noqa: S108 - checked to be root's own before use


def existing_postgres_home(instance: Instance) -> Path:
    """Where the database of this instance is, or would be made if its user can reach it."""
    return _existing_home(instance, "postgres")


def postgres_home(instance: Instance, user: ServerUser | None) -> Path:
    """The folder that holds the database cluster, made and owned by the servers' user, mode 0700."""
    return _home(instance, user, name="postgres", of="the database")


def kafka_home(instance: Instance, user: ServerUser | None) -> Path:
    """The folder that holds the instance's own Kafka, made and owned by the servers' user, mode 0700."""
    return _home(instance, user, name="kafka", of="Kafka's data")


def _existing_home(instance: Instance, name: str) -> Path:
    return _recorded(instance.data_dir / f"{name}.location") or instance.data_dir / name


def _home(instance: Instance, user: ServerUser | None, *, name: str, of: str) -> Path:
    record = instance.data_dir / f"{name}.location"
    home = _existing_home(instance, name)
    if user is not None and not user.can_reach(home if home.exists() else instance.data_dir):
        if home.exists() and any(home.iterdir()):
            raise StartError(
                f"The user {user.name} cannot reach {of} in {home} (a folder above it is closed to others): "
                "open that folder, or run `payflow reset` for a new one."
            )
        key = hashlib.sha256(os.fsencode(instance.data_dir)).hexdigest()[:16]
        home = _root_owned(_DATA_ROOT) / (key if name == "postgres" else f"{key}-{name}")
        write_atomically(record, f"{home}\n")
    home.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        os.chown(home, user.uid, user.gid)
    return home


def socket_dir(instance: Instance, user: ServerUser | None) -> Path:
    """A folder of mode 0700 for the servers' sockets, with a path that is short and plain enough for one."""
    remove_socket_dir(instance)
    directory = instance.run_dir / "sockets"
    if _fits(directory) and (user is None or user.can_reach(instance.run_dir)):
        directory.mkdir(mode=0o700)
    else:
        directory = Path(tempfile.mkdtemp(prefix="payflow-", dir=_short_dir(user)))
        write_atomically(instance.run_dir / "sockets.location", f"{directory}\n")
    if user is not None:
        os.chown(directory, user.uid, user.gid)
    return directory


def remove_socket_dir(instance: Instance) -> None:
    """Remove the sockets of a run that is over, also of one that was killed."""
    record = instance.run_dir / "sockets.location"
    elsewhere = _recorded(record)
    if elsewhere is not None and elsewhere.name.startswith("payflow-"):
        shutil.rmtree(elsewhere, ignore_errors=True)
    record.unlink(missing_ok=True)
    shutil.rmtree(instance.run_dir / "sockets", ignore_errors=True)


def remove_server_homes(instance: Instance) -> None:
    """Delete the database and Kafka's data where they are outside the data directory."""
    for name in ("postgres", "kafka"):
        elsewhere = _recorded(instance.data_dir / f"{name}.location")
        if elsewhere is not None and elsewhere.parent == _DATA_ROOT:
            shutil.rmtree(elsewhere)
            with contextlib.suppress(OSError):
                _DATA_ROOT.rmdir()


def reachable_copy(site: Path, *, names: Sequence[str], probe: str, user: ServerUser | None, version: str) -> Path:
    """The folder from which `user` can run `probe`: `site` itself, or a copy of its entries `names`.

    The copy is made once per version, below a folder that only root can write, and appears complete or not at all.
    """
    if user is None or user.can_reach(site / probe):
        return site
    root = _root_owned(_COPY_ROOT)
    target = root / f"{names[0]}-{version}"
    if not (target / probe).exists():
        building = Path(tempfile.mkdtemp(prefix=f"{names[0]}.", dir=root))
        try:
            for name in names:
                _copy_for_all(site / name, building / name)
            building.chmod(0o755)
            with contextlib.suppress(OSError):  # another instance was first: its copy is as good
                building.rename(target)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    if not user.can_reach(target / probe):
        raise StartError(f"The user {user.name} cannot run {target / probe}: start Payflow as a normal user.")
    return target


def _copy_for_all(source: Path, target: Path) -> None:
    """Copy a file or a tree so that everybody can read it and only root can change it."""
    if source.is_dir():
        target.mkdir(mode=0o755)
        target.chmod(0o755)
        for entry in source.iterdir():
            _copy_for_all(entry, target / entry.name)
    elif source.exists():
        shutil.copyfile(source, target)
        target.chmod(0o755 if os.access(source, os.X_OK) and source.stat().st_mode & 0o111 else 0o644)


def _root_owned(path: Path) -> Path:
    """A folder that only root can write and others can pass through. Refuses one that somebody else prepared."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o711)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
        raise StartError(f"{path} is not a folder of root's alone: remove it and start again.")
    return path


def _short_dir(user: ServerUser | None) -> str:
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    if user is None and own and len(own) < 60 and _PLAIN.fullmatch(own) and os.access(own, os.W_OK | os.X_OK):
        return own
    return "/tmp"  # noqa: S108 - mkdtemp makes the folder inside it private


def _fits(directory: Path) -> bool:
    path = os.fsencode(directory / _LONGEST_SOCKET)
    return len(path) <= _SOCKET_PATH_MAX and _PLAIN.fullmatch(os.fsdecode(path)) is not None


def _recorded(record: Path) -> Path | None:
    try:
        text = record.read_text().strip()
    except FileNotFoundError:
        return None
    return Path(text) if text.startswith("/") else None
