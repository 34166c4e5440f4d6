"""Writes the files of `deploy/` that are made from code: `python tools/generate_deploy.py [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# This checkout's code, whatever the environment has on its path.
sys.path.insert(0, str(ROOT / "src"))

from payflow_dev.deploy.files import contents  # noqa: E402


def main() -> int:
    """Write the files, or with --check say which are out of date (exit code 1)."""
    wanted = contents()
    stale = [name for name, text in wanted.items() if not _holds(ROOT / name, text)]
    if "--check" in sys.argv:
        for name in stale:
            print(f"{name} is out of date: run python tools/generate_deploy.py")
        return 1 if stale else 0
    for name in stale:
        (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / name).write_text(wanted[name], encoding="utf-8")
    return 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
