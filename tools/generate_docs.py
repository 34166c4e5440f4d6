"""Writes the documents that are made from code: `python tools/generate_docs.py [--check]`."""

from __future__ import annotations

import sys
import typing
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# This checkout's code, whatever the environment has on its path.
sys.path.insert(0, str(ROOT / "src"))
sys.path.insert(0, str(ROOT))

import importlib  # noqa: E402
from functools import partial  # noqa: E402
from typing import Any  # noqa: E402

import msgspec  # noqa: E402
from tools.metrics_page import metrics_page  # noqa: E402

from payflow.contracts.problems import PROBLEMS  # noqa: E402
from payflow.contracts.topics import TOPICS  # noqa: E402
from payflow.platform.settings import CommonSettings, description_of, is_secret, setting_types  # noqa: E402
from payflow.run.registry import deployables, find, service_names  # noqa: E402
from payflow.run.supervisor.settings import settings_class  # noqa: E402
from payflow_dev.events import asyncapi, pages, published  # noqa: E402

EVENTS = ROOT / "docs" / "events"
SCHEMAS = EVENTS / "schemas"


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


SETTINGS_HEAD = """\
# Settings

A setting is an environment variable. `<NAME>_FILE` instead of `<NAME>` names a file with the value: do so for every
setting marked 🔒. `PAYFLOW_CONFIG_FILE` names a TOML file with the names in lower case and without the prefix
(`log_level = "debug"`). The environment wins over that file, and a value over a file with the value.

A setting that Payflow does not know, or whose value is malformed, stops the start with one line.
`payflow check-config` checks all of them, or those of one service, and with `--all` shows what is in force; secrets
are masked.

Under `payflow up` the addresses, ports and secrets below are filled in where they are not set; with `payflow serve`
they are all yours to set.

## Production

`PAYFLOW_ENV=production` refuses what is there for trying Payflow out, each with a line that says what to set:

- **Embedded servers**: set `PAYFLOW_POSTGRES_URL` (under `payflow up` and `payflow migrate` as the database's owner,
  with `payflow serve` as the service's role `payflow_<service>`) and `PAYFLOW_REDIS_URL`.
- **Secrets made at the first start**: set `PAYFLOW_COLUMN_KEYS_FILE`, `PAYFLOW_OTP_KEY_FILE`,
  `PAYFLOW_AUDIT_KEY_FILE`, `PAYFLOW_TOKEN_KEYS_DIR` and `PAYFLOW_SERVICE_KEYS_DIR`. `payflow secrets DIR` makes them
  once and prints the settings; keep a copy, since names and phones cannot be read without the column keys. In
  `DIR/roles` are passwords for the database roles (`payflow migrate --passwords-dir DIR/roles` sets them).
  `payflow secrets DIR --shares SHARES` fills each folder of `SHARES` that is named after a service with what that
  service needs: mount it into its container, and no other has its keys.
- **The first administrator**: no password is made up. Set `PAYFLOW_BOOTSTRAP_ADMIN_PASSWORD_FILE` for the first start.
- **The demo bank**: set `PAYFLOW_AGENTS` to the banks that can be paid (`[]` for none), each with a `url`, and
  `PAYFLOW_INBOUND_SECRET_FILE`, or a secret for each bank in `PAYFLOW_BANK_SECRETS_FILE`.
- **The demo channel**: `PAYFLOW_DEMO_CHANNEL=true` is refused, and `payflow otp` finds nothing. A channel for
  one-time codes is demanded in its place: [SMS, push or e-mail](howto/send-messages.md).
- **Demo users**: none are made, and a database that has them with their public password is refused.

In Kubernetes set `enableServiceLinks: false`: the variables that it would add for a service named payflow-* look like
mistyped settings.

Generated from the services' settings classes by `python tools/generate_docs.py`.
"""


def settings_page() -> str:
    """docs/settings.md: every setting with its default, its meaning and the services that read it."""
    common = {field.name for field in msgspec.structs.fields(CommonSettings)}
    rows: dict[str, tuple[Any, Any]] = {}
    readers: dict[str, list[str]] = {}
    for service in service_names(deployables(is_production=False)):
        row = find(service)
        cls = settings_class(importlib.import_module(row.module if row else service))
        types = setting_types(cls)
        for field in msgspec.structs.fields(cls):
            if field.name not in common:
                rows.setdefault(field.name, (field, types[field.name]))
                readers.setdefault(field.name, []).append(service)
    types = setting_types(CommonSettings)
    lines = [SETTINGS_HEAD, "## Every service", "", "| setting | default | meaning |", "|---|---|---|"]
    lines += [
        f"| {_setting_name(field.name)} | {_default(field)} | {_meaning(types[field.name])} |"
        for field in msgspec.structs.fields(CommonSettings)
    ]
    lines += ["", "## Single services", "", "| setting | default | meaning | read by |", "|---|---|---|---|"]
    lines += [
        f"| {_setting_name(name)} | {_default(field)} | {_meaning(wanted)} | {', '.join(readers[name])} |"
        for name, (field, wanted) in sorted(rows.items())
    ]
    lines += ["", "## The command line", "", "| setting | default | meaning |", "|---|---|---|"]
    lines += [
        "| `PAYFLOW_CONFIG_FILE` | | TOML file with settings |",
        "| `PAYFLOW_PYTHON` | newest found | which Python makes the virtual environment |",
        "| `PAYFLOW_VENV` | `.venv` | where the virtual environment is |",
    ]
    return "\n".join(lines) + "\n"


def _setting_name(name: str) -> str:
    return f"`PAYFLOW_{name.upper()}`{' 🔒' if is_secret(name) else ''}"


def _default(field: Any) -> str:
    if field.required:
        return "*required*"
    if field.default in ("", None):
        return ""
    text = str(field.default).replace("|", "\\|")
    return f"`{text.lower() if isinstance(field.default, bool) else text}`" if len(text) <= 60 else "the demo's"


def _meaning(wanted: Any) -> str:
    parts = [description_of(wanted).replace("|", "\\|")]
    kinds = [choice for part in (wanted, *typing.get_args(wanted)) for choice in typing.get_args(part)]
    if any(typing.get_origin(part) is typing.Literal for part in (wanted, *typing.get_args(wanted))):
        words = [kind for kind in kinds if isinstance(kind, str)]
        parts.append(f"one of {', '.join(f'`{word}`' for word in words)}")
    bounds = [meta for meta in typing.get_args(wanted)[1:] if isinstance(meta, msgspec.Meta)]
    for word, attribute in (("at least", "ge"), ("more than", "gt"), ("at most", "le")):
        parts += [f"{word} {getattr(meta, attribute)}" for meta in bounds if getattr(meta, attribute) is not None]
    return "; ".join(parts)


def _as_json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


PAGES = {
    ROOT / "docs" / "errors.md": errors_page,
    ROOT / "docs" / "metrics.md": metrics_page,
    ROOT / "docs" / "settings.md": settings_page,
    EVENTS / "README.md": pages.index_page,
    EVENTS / "asyncapi.json": lambda: _as_json(asyncapi.asyncapi_document()),
    **{EVENTS / f"{topic.name}.md": partial(pages.topic_page, topic) for topic in TOPICS},
    **{SCHEMAS / f"{name}.json": partial(_as_json, form) for name, form in sorted(published.current_forms().items())},
}


def broken_events() -> list[str]:
    """What the code would break for readers of the events that were published, a sentence each."""
    forms = [msgspec.json.decode(path.read_bytes()) for path in sorted(SCHEMAS.glob("*.json"))]
    return published.breaking_changes(
        published={form["topic"]: form for form in forms}, current=published.current_forms()
    )


def main() -> int:
    """Write the pages, or with --check say which are out of date (exit code 1).

    A change that would break a reader of the published events is refused in both cases.
    """
    broken = broken_events()
    for sentence in broken:
        print(sentence)
    stale = [path for path, page in PAGES.items() if not path.exists() or path.read_text(encoding="utf-8") != page()]
    if broken or "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: run python tools/generate_docs.py")
        return 1 if stale or broken else 0
    SCHEMAS.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(PAGES[path](), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
