"""Writes the documents that are made from code: `python tools/generate_docs.py [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# This checkout's code, whatever the environment has on its path.
sys.path.insert(0, str(ROOT / "src"))

from payflow.contracts.problems import PROBLEMS  # noqa: E402


def errors_page() -> str:
    """docs/errors.md: every error code with its status, meaning and ISO 20022 reason."""
    lines = [
        "# Errors",
        "",
        "Every refusal is `application/problem+json` (RFC 9457) with `type`, `title`, `status`, `detail`, `instance`,",
        "`error` (the code) and `trace_id`. 400 means not readable, 422 readable and refused. 429 and 503 carry",
        "`Retry-After`; repeat with the same `Idempotency-Key`.",
        "",
        "Generated from `src/payflow/contracts/problems.py` by `python tools/generate_docs.py`.",
        "",
        "| code | status | meaning | ISO 20022 reason |",
        "|---|---|---|---|",
    ]
    for problem in sorted(PROBLEMS.values(), key=lambda problem: (problem.status, problem.code)):
        lines.append(f"| `{problem.code}` | {problem.status} | {problem.detail} | {problem.iso_reason or ''} |")
    return "\n".join(lines) + "\n"


PAGES = {ROOT / "docs" / "errors.md": errors_page}


def main() -> int:
    """Write the pages, or with --check say which are out of date (exit code 1)."""
    stale = [path for path, page in PAGES.items() if not path.exists() or path.read_text(encoding="utf-8") != page()]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run python tools/generate_docs.py")
        return 1 if stale else 0
    for path in stale:
        path.write_text(PAGES[path](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
