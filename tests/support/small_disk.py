"""A file system of a test's own on a loop mount, to be filled without filling anybody else's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

_SIZE_BYTES: Final = 32 * 2**20


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

    @property
    def _ballast(self) -> Path:
        return self.mountpoint / "ballast"


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """An ext4 of some megabytes, mounted in this folder until the end. Needs root, or sudo without a password."""
    image, mountpoint = folder / "image", folder / "disk"
    mountpoint.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZE_BYTES)
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", f"root_owner={os.getuid()}:{os.getgid()}", str(image))
    _as_root("mount", "-o", "loop", str(image), str(mountpoint))
    try:
        yield SmallDisk(mountpoint)
    finally:
        # Lazily: whoever still looks at it must not keep it here.
        _as_root("umount", "--lazy", str(mountpoint))
        image.unlink()


def _as_root(*command: str) -> None:
    _run(*(() if os.geteuid() == 0 else ("sudo", "-n")), *command)


def _run(*command: str) -> None:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
