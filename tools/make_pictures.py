"""Draws docs/pictures/*.svg from what the commands really print: `python tools/make_pictures.py`."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURES: Final = ROOT / "docs" / "pictures"
COLUMNS: Final = 110


def run_on_a_terminal(command: list[str], *, environ: dict[str, str], timeout_s: float = 120) -> str:
    """What a command prints on a terminal, colours included. Raises SystemExit when it fails."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    printed, ends_at = b"", time.monotonic() + timeout_s
    while time.monotonic() < ends_at:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                part = os.read(leader, 65536)
            except OSError:
                break
            if not part:
                break
            printed += part
        elif process.poll() is not None:
            break
    os.close(leader)
    if process.wait(timeout=10) != 0:
        sys.exit(f"{' '.join(command)} failed:\n{printed.decode(errors='replace')}")
    return printed.decode(errors="replace").replace("\r\n", "\n")


def draw(text: str, path: Path, *, title: str) -> None:
    """Draw terminal output as an SVG."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        console.print(Text.from_ansi(text))
    svg = console.export_svg(title=title, unique_id=path.stem)
    # The fonts of a content network are not asked for: the reader's own will do.
    path.write_text(re.sub(r"@font-face\s*{.*?}", "", svg, flags=re.DOTALL), encoding="utf-8")


def main() -> None:
    """Start an instance, play the story on it, and draw both."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    # A short path of the same length every time: the table's columns depend on it.
    folder = Path(tempfile.gettempdir()) / "payflow"
    if folder.exists():
        sys.exit(f"{folder} exists: remove it first.")
    environ = {**os.environ, "PAYFLOW_DATA_DIR": str(folder), "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    try:
        up = run_on_a_terminal(["./payflow", "up", "-d"], environ=environ)
        demo = run_on_a_terminal(["./payflow", "demo"], environ=environ)
    finally:
        subprocess.run(["./payflow", "down"], cwd=ROOT, env=environ, check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)
    shown = up.split("Sign in, pay")[0].rstrip()
    draw(f"$ ./payflow up --data-dir {folder}\n{shown}", PICTURES / "up.svg", title="./payflow up")
    draw(f"$ ./payflow demo\n{demo}", PICTURES / "demo.svg", title="./payflow demo")


if __name__ == "__main__":
    main()
