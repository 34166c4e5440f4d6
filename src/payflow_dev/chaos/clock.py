"""A wrong clock for one process: a tiny library, loaded before libc into the instance's parent and so into every fork.

It adds to the wall clock of the process whose pid stands in a shared page; the run writes that page. Monotonic clocks
stay as they are, as they do where a machine's clock is set. PostgreSQL and Valkey are started without it.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = 4096
_SOURCE: Final = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Two words: the pid whose clock is wrong, and by how many nanoseconds. */
static volatile int64_t *page;
static int (*real_clock)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK_PAGE");
    real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *found = mmap(0, 4096, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (found != MAP_FAILED) page = found;
}

static int64_t shift_ns(void) {
    return page && page[1] && page[0] == getpid() ? page[1] : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int outcome = real_clock(clock, now);
    if (outcome == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + shift_ns();
        now->tv_sec = ns / 1000000000;
        now->tv_nsec = ns % 1000000000;
    }
    return outcome;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Clocks:
    """Shifts the clock of one process at a time."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "clock.so"
        self._page_file = folder / "clock.page"
        self._page: mmap.mmap | None = None

    def build(self) -> str | None:
        """Compile the library; why it cannot be used here, or None."""
        compiler = shutil.which("cc") or shutil.which("gcc")
        if sys.platform != "linux" or compiler is None:
            return "a clock is shifted on Linux with a C compiler (cc)"
        source = self._library.with_suffix(".c")
        source.write_text(_SOURCE, encoding="utf-8")
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(self._library), str(source), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return f"the clock's library cannot be compiled: {done.stderr.strip()[:200]}"
        self._page_file.write_bytes(bytes(PAGE_BYTES))
        with self._page_file.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), PAGE_BYTES)
        return None

    def environment(self) -> dict[str, str]:
        """What the instance must be started with; nothing where no library was built."""
        if self._page is None:
            return {}
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK_PAGE": str(self._page_file)}

    def shift(self, pid: int, seconds: float) -> None:
        """From now on this process's wall clock is wrong by so much."""
        self._write(pid, round(seconds * 1e9))

    def heal(self) -> None:
        """Every clock is right again."""
        self._write(0, 0)

    def _write(self, pid: int, shift_ns: int) -> None:
        assert self._page is not None
        # The shift first and last 0: no process ever sees another's.
        self._page[8:16] = struct.pack("=q", 0)
        self._page[0:8] = struct.pack("=q", pid)
        self._page[8:16] = struct.pack("=q", shift_ns)

    def close(self) -> None:
        """Let go of the page."""
        if self._page is not None:
            self._page.close()
            self._page = None
