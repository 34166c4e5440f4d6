"""A small disk for PostgreSQL: a file with a file system of its own, so that it can be filled without filling ours."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from payflow.run.datadir import check_version, prepare
from payflow.run.instance import Instance

SIZE_BYTES: Final = 3 * 2**30
_SMALLEST_BYTES: Final = 4096


class SmallDisk:
    """PostgreSQL's data on a loop mount below /var/tmp. Only root can make one."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._place: Path | None = None

    def mount(self) -> str | None:
        """Make and mount it, and have the instance's database made there; why it cannot be done here, or None."""
        if sys.platform != "linux" or os.geteuid() != 0:
            return "a disk is filled as root on Linux, on a loop mount"
        if shutil.which("mkfs.ext4") is None or shutil.which("mount") is None:
            return "a disk is filled with mkfs.ext4 and mount, which are not here"
        place = Path(tempfile.mkdtemp(prefix="payflow-chaos-disk-", dir=self._instance.data_dir.parent))
        place.chmod(0o755)
        image, home = place / "image", place / "data"
        home.mkdir()
        with image.open("wb") as file:
            file.truncate(SIZE_BYTES)
        for command in (
            ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)],
            ["mount", "-o", "loop", str(image), str(home)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                shutil.rmtree(place)
                return f"{command[0]} failed: {done.stderr.strip()[:200]}"
        home.chmod(0o711)
        self._place = place
        # Where an instance's database is, if not in its data directory, stands in a file of its own.
        prepare(self._instance)
        check_version(self._instance)
        (self._instance.data_dir / "postgres.location").write_text(f"{home}\n", encoding="utf-8")
        return None

    @property
    def _ballast(self) -> Path:
        assert self._place is not None
        return self._place / "data" / "ballast"

    def fill(self) -> None:
        """Take every free block."""
        with self._ballast.open("ab") as file:
            size = free = os.statvfs(self._ballast.parent).f_bavail * os.statvfs(self._ballast.parent).f_frsize
            while size >= _SMALLEST_BYTES:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
                    free = os.statvfs(self._ballast.parent).f_bavail * os.statvfs(self._ballast.parent).f_frsize
                    size = min(size, free)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Give the blocks back."""
        self._ballast.unlink(missing_ok=True)

    def remove(self) -> None:
        """Unmount and delete it, once the instance is over."""
        if self._place is None:
            return
        home = self._place / "data"
        for command in (["umount", str(home)], ["umount", "-l", str(home)]):
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                break
        if not os.path.ismount(home):
            with suppress(OSError):
                shutil.rmtree(self._place)
        self._place = None
