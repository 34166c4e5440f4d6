"""Builds our image, starts what ships on stand-ins for the official images, and looks at all of it.

    python tests/stack/full/run.py build FOLDER     # programs, stand-ins (stand_ins.py), our image: needs a network
    python tests/stack/full/run.py check [PART]     # start, look, break, repair, stop: needs none
    python tests/stack/full/run.py pictures         # start, pay, draw docs/pictures/compose-*, stop: needs none

PART is `core` (the profile without what watches it) or `watched` (with it); both where none is named. Docker is found
by DOCKER_HOST, Compose by COMPOSE, as `docker compose`, or built. `make test-stack-full` does both commands.
docs/howto/run-with-compose.md tells how a daemon is started that touches nothing of its machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import core
import rig
import watched

PARTS: Final = {"core": core.CHECKS, "watched": watched.CHECKS}


def main(arguments: list[str]) -> int:
    """Do what was asked for; 0 when every check held."""
    if arguments[:1] == ["build"]:
        build(Path(arguments[1]))
        return 0
    if arguments == ["pictures"]:
        import pictures

        try:
            pictures.main()
        finally:
            rig.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
        return 0
    chosen = arguments[1:] or list(PARTS)
    if arguments[:1] != ["check"] or not set(chosen) <= set(PARTS):
        print(__doc__, file=sys.stderr)
        return 2
    checks = [check for part in chosen for check in PARTS[part]]
    try:
        for check in checks:
            began_at = time.monotonic()
            print(f"{check.__name__.replace('_', ' ')} ...", flush=True)
            check()
            print(f"    held, {time.monotonic() - began_at:.1f} s", flush=True)
    finally:
        rig.compose("--profile", "*", "down", "--volumes", "--timeout", "20")
    print(f"{len(checks)} checks held ({', '.join(chosen)}).")
    return 0


def build(folder: Path) -> None:
    """The stand-ins, and our image as Compose builds it."""
    import stand_ins

    stand_ins.main(folder)
    rig.compose("-f", str(rig.HERE / "override.yaml"), "build", "secrets", BASE_IMAGE=stand_ins.PYTHON)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
