"""Writes a new service after the model of src/payflow/services/account: `python tools/new_service.py NAME`.

The service is complete: contract, domain, ports, use cases, store, migration, wiring, page, fake, and tests. It keeps
records of one kind, which are there to be replaced. The tool also adds it to the registry, the settings, the import
rules and the error codes, at the lines that name this tool; it changes nothing when one of them is missing.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
TEMPLATES: Final = Path(__file__).resolve().parent / "templates"
NAME_MAX: Final = 32
# instance.py leaves room for so many ports above --port-base.
OFFSET_MAX: Final = 100
# 12 is the simulated other bank, which stands beside the registry's rows.
FIRST_OFFSET: Final = 13

FILES: Final = {
    "contract.py.tmpl": "src/payflow/contracts/@name@.py",
    "init.py.tmpl": "src/payflow/services/@name@/__init__.py",
    "README.md.tmpl": "src/payflow/services/@name@/README.md",
    "domain.py.tmpl": "src/payflow/services/@name@/domain.py",
    "ports.py.tmpl": "src/payflow/services/@name@/ports.py",
    "usecases.py.tmpl": "src/payflow/services/@name@/usecases.py",
    "store.py.tmpl": "src/payflow/services/@name@/store.py",
    "queries.sql.tmpl": "src/payflow/services/@name@/queries.sql",
    "migration.sql.tmpl": "src/payflow/services/@name@/migrations/0001_initial.sql",
    "api.py.tmpl": "src/payflow/services/@name@/api.py",
    "app.py.tmpl": "src/payflow/services/@name@/app.py",
    "fakes.py.tmpl": "tests/fakes_@name@.py",
    "test_store.py.tmpl": "tests/ports/test_@name@_store.py",
    "test_domain.py.tmpl": "tests/unit/test_@name@_domain.py",
}

# Each line or lines to add, and the comment above which they go; the comment stays for the next service.
ADDITIONS: Final = (
    (
        "src/payflow/run/registry.py",
        "# tools/new_service.py adds rows above this line.",
        '_row("@dashed@", @offset@),',
    ),
    (
        "src/payflow/platform/settings.py",
        "# tools/new_service.py adds settings above this line.",
        '@name@_url: Annotated[str, describe("where @name@ is")] = "http://127.0.0.1:@port@"',
    ),
    (
        "src/payflow/contracts/problems.py",
        "# tools/new_service.py adds rows above this line.",
        '("@NAME@_NOT_FOUND", 404, "Record not found", "No such record of @name@.", None),\n'
        '("@NAME@_EXISTS", 409, "Record exists", "A record of @name@ with this id has other contents.", None),\n'
        '("INVALID_@NAME@", 422, "Invalid record", "The record\'s id or text is empty or too long.", None),',
    ),
    (".importlinter", "# tools/new_service.py adds modules above this line.", "payflow.services.@name@"),
    (".importlinter", "# tools/new_service.py adds containers above this line.", "payflow.services.@name@"),
)

# Names that would be another thing: PostgreSQL's reserved words (roles and schemas carry the name unquoted), its own
# schemas, ours, and parts that have a PAYFLOW_<NAME>_URL or an identity already.
RESERVED: Final = frozenset(
    """
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
    column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
    from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
    localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
    returning right select session_user similar some symmetric system_user table tablesample then to trailing true
    union unique user using variadic verbose when where window with
    information_schema public event_log event_consumer payflow_migration
    bench cli migrate other_bank payflow postgres redis server supervisor valkey
    """.split()  # noqa: SIM905 - a list of words reads better than a list of quotes
)


class CannotWriteError(Exception):
    """Why no service was written, in one line."""


@dataclass(frozen=True)
class NewService:
    """A name in the forms that the templates use, and its port."""

    name: str
    offset: int

    def fill(self, text: str) -> str:
        """Put the name and the port into a template."""
        values = {
            "name": self.name,
            "NAME": self.name.upper(),
            "Name": "".join(part.capitalize() for part in self.name.split("_")),
            "dashed": self.name.replace("_", "-"),
            "offset": str(self.offset),
            "port": str(3000 + self.offset),
        }
        return re.sub(r"@(\w+)@", lambda match: values[match.group(1)], text)


def check_name(name: str) -> None:
    """Raises CannotWriteError for a name that cannot be a package, a schema and a role, or that is taken."""
    if re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) is None:
        hint = re.sub(r"[^a-z0-9]+", "_", name.lower()).lstrip("_0123456789").rstrip("_")
        suggestion = f" such as {hint}" if hint else " such as limits"
        raise CannotWriteError(f"{name!r} is no name of a service: use lower-case letters, digits and _,{suggestion}.")
    if len(name) > NAME_MAX:
        raise CannotWriteError(f"{name} is too long: {len(name)} characters, {NAME_MAX} are allowed.")
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name in RESERVED or name.startswith("pg_"):
        raise CannotWriteError(f"{name} is reserved (by Python, PostgreSQL or Payflow): choose another name.")
    setting = re.compile(rf"^    {name}_url: ", re.MULTILINE)
    if setting.search((ROOT / "src/payflow/platform/settings.py").read_text(encoding="utf-8")):
        raise CannotWriteError(f"There is a service {name} already.")


def next_offset() -> int:
    """The first free number above --port-base, read from the registry as text: the tool imports nothing of Payflow."""
    registry = (ROOT / "src/payflow/run/registry.py").read_text(encoding="utf-8")
    rows = re.findall(r"\b_row\(\s*\"[a-z0-9-]+\",\s*(\d+)", registry)
    offset = max([FIRST_OFFSET - 1, *map(int, rows)]) + 1
    if offset > OFFSET_MAX:
        raise CannotWriteError(f"No port is left: offsets above {OFFSET_MAX} are not used.")
    return offset


def new_files(service: NewService) -> dict[Path, str]:
    """The service's own files. Raises CannotWriteError when one of them exists."""
    files = {
        ROOT / service.fill(target): service.fill((TEMPLATES / template).read_text(encoding="utf-8"))
        for template, target in FILES.items()
    }
    taken = [path for path in (*files, ROOT / f"src/payflow/services/{service.name}") if path.exists()]
    if taken:
        raise CannotWriteError(f"{taken[0].relative_to(ROOT)} exists already: choose another name, or remove it.")
    return files


def changed_files(service: NewService) -> dict[Path, str]:
    """The files that name every service, with the new one added. Raises CannotWriteError without the comment."""
    files: dict[Path, str] = {}
    for target, anchor, addition in ADDITIONS:
        path = ROOT / target
        text = files.get(path) or path.read_text(encoding="utf-8")
        lines = re.findall(rf"^([ \t]*){re.escape(anchor)}$", text, re.MULTILINE)
        if len(lines) != 1:
            raise CannotWriteError(f"{target} needs one line `{anchor}`, above which the service is added.")
        added = "".join(f"{lines[0]}{line}\n" for line in service.fill(addition).splitlines())
        files[path] = text.replace(f"{lines[0]}{anchor}", f"{added}{lines[0]}{anchor}")
    return files


def write(files: dict[Path, str]) -> None:
    """Write the files, then bring them into the house's format: imports sort differently with every name."""
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    python = [str(path) for path in files if path.suffix == ".py"]
    for command in (
        ["-m", "ruff", "check", "--quiet", "--fix", "--select", "I", *python],
        ["-m", "ruff", "format", "--quiet", *python],
        [str(ROOT / "tools" / "generate_docs.py")],
        [str(ROOT / "tools" / "generate_deploy.py")],
        ["-m", "payflow_dev.deploy.helm"],
    ):
        done = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise CannotWriteError(f"The service is written, but `{' '.join(command[:3])}` failed: {said}")


def main(arguments: list[str]) -> int:
    """Write the service that the only argument names; 0 when it is there, else 1 with one line about why not."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print(f"{__doc__ or ''}", file=sys.stderr)
        return 2
    name = arguments[0]
    try:
        check_name(name)
        service = NewService(name=name, offset=next_offset())
        created, changed = new_files(service), changed_files(service)
        write({**created, **changed})
    except CannotWriteError as error:
        print(error, file=sys.stderr)
        return 1
    for path in created:
        print(f"  new      {path.relative_to(ROOT)}")
    for path in changed:
        print(f"  changed  {path.relative_to(ROOT)}")
    print(f"\n{name} listens on --port-base + {service.offset}. `./payflow up` starts it; `make check` and")
    print(f"`./payflow test -k {name}` hold as it is. docs/howto/add-a-service.md says what comes next.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
