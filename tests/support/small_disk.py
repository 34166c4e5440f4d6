"""A file system of a test's own on a loop mount, to be filled or halted without doing so to anybody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest

_SIZE_BYTES: Final = 32 * 2**20
# Debian keeps mkfs where only root looks for it.
_PATH: Final = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_RIGHTS: Final = (
    "A disk of the test's own needs the right to mount (root, or sudo without a password; in a container "
    "CAP_SYS_ADMIN) and a free loop device (/dev/loop-control)."
)


class SmallDisk(NamedTuple):
    """A mounted one."""

    mountpoint: Path

    def fill(self, share: float) -> None:
        """Take so much of what is free."""
        free_bytes = os.statvfs(self.mountpoint).f_bavail * os.statvfs(self.mountpoint).f_frsize
        with self._ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, int(free_bytes * share))

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink(missing_ok=True)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Meanwhile whoever writes to it waits, as on a disk that does not answer."""
        _as_root("fsfreeze", "--freeze", str(self.mountpoint), wanted=_RIGHTS)
        try:
            yield
        finally:
            _as_root("fsfreeze", "--unfreeze", str(self.mountpoint))

    @property
    def _ballast(self) -> Path:
        return self.mountpoint / "ballast"


@contextmanager
def small_disk(folder: Path, *, size_bytes: int = _SIZE_BYTES) -> Iterator[SmallDisk]:
    """An ext4 of some megabytes, mounted in this folder until the end. Needs root, or sudo without a password."""
    image, mountpoint = folder / "image", folder / "disk"
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(size_bytes)
    for program, package in (
        ("mkfs.ext4", "e2fsprogs"),
        ("mount", "mount"),
        ("umount", "mount"),
        ("fsfreeze", "util-linux"),
    ):
        if shutil.which(program, path=_PATH) is None:
            pytest.fail(f"{program} is not installed (Debian, Ubuntu: apt-get install {package}).", pytrace=False)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", f"root_owner={os.getuid()}:{os.getgid()}", str(image))
    try:
        _as_root("mount", "-o", "loop", str(image), str(mountpoint), wanted=_RIGHTS)
        try:
            yield SmallDisk(mountpoint)
        finally:
            # Lazily: whoever still looks at it must not keep it here.
            _as_root("umount", "--lazy", str(mountpoint))
    finally:
        image.unlink()


def _as_root(*command: str, wanted: str = "") -> None:
    if os.geteuid() != 0:
        if shutil.which("sudo") is None:
            pytest.fail(f"{' '.join(command)}: you are not root, and there is no sudo. {wanted}", pytrace=False)
        command = ("sudo", "-n", *command)
    _run(*command, wanted=wanted)


def _run(*command: str, wanted: str = "") -> None:
    done = subprocess.run(
        command, env={**os.environ, "PATH": _PATH}, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}: {done.stderr.strip()} {wanted}", pytrace=False)
