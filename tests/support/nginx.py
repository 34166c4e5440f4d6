"""The real NGINX with the configuration that ships; only ports, gateways and certificate are a test's own."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from payflow_dev.deploy.nginx import upstream_conf
from tests.support.ports import free_ports, wait_for_port
from tests.support.programs import require_program
from tests.support.servers import ROOT

CONFIGURATION: Final = ROOT / "deploy" / "nginx"
_LISTEN: Final = """\
listen 127.0.0.1:{http} default_server backlog=2048;
listen 127.0.0.1:{https} ssl http2 default_server backlog=2048;
"""


class Nginx:
    """A running edge. `http` and `https` are its ports."""

    def __init__(self, folder: Path, *, servers: Sequence[str], replaced: dict[str, str]) -> None:
        self.folder = folder
        self.http, self.https = free_ports(2)
        self._configuration = folder / "conf"
        self._process: subprocess.Popen[bytes] | None = None
        shutil.copytree(CONFIGURATION, self._configuration)
        self._replace(replaced)
        self._write("payflow/listen.conf", _LISTEN.format(http=self.http, https=self.https))
        self._write("payflow/upstream.conf", upstream_conf(servers))
        self.new_certificate()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http}"

    @property
    def secure_url(self) -> str:
        return f"https://localhost:{self.https}"

    @property
    def certificate(self) -> Path:
        """The certificate that it shows, which is its own authority."""
        return self.folder / "tls" / "payflow.crt"

    def new_certificate(self) -> int:
        """Put another certificate in place; its serial number. It is shown after a reload."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_signed(key)
        folder = self.folder / "tls"
        folder.mkdir(exist_ok=True)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "payflow.key").write_bytes(private)
        (folder / "payflow.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return certificate.serial_number

    def start(self) -> None:
        """Start and wait until it takes connections. Raises AssertionError with what it said."""
        with (self.folder / "access.log").open("ab") as out, (self.folder / "error.log").open("ab") as err:
            self._process = subprocess.Popen([*self._command], stdout=out, stderr=err, stdin=subprocess.DEVNULL)
        wait_for_port(self.http, seconds=10, check=self._check_alive)

    def reload(self) -> None:
        """Read the configuration again, and wait until new workers have taken over. Raises AssertionError."""
        assert self._process is not None
        before = self.workers()
        checked = subprocess.run([*self._command, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while not self.workers() - before:
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.02)

    def workers(self) -> set[int]:
        """The worker processes, old ones that still finish requests included."""
        assert self._process is not None
        return {child.pid for child in psutil.Process(self._process.pid).children()}

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def log(self) -> list[dict[str, Any]]:
        """Every line of the access log."""
        return [json.loads(line) for line in (self.folder / "access.log").read_text(encoding="utf-8").splitlines()]

    def errors(self) -> str:
        """What it wrote to its error log."""
        return (self.folder / "error.log").read_text(encoding="utf-8")

    def _check_alive(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self.errors()

    @property
    def _command(self) -> tuple[str, ...]:
        return ("nginx", "-p", f"{self.folder}/", "-c", str(self._configuration / "nginx.conf"))

    def _write(self, name: str, text: str) -> None:
        (self._configuration / name).write_text(text, encoding="utf-8")

    def _replace(self, replaced: dict[str, str]) -> None:
        """Change lines of the shipped files, for tests that cannot wait as long as a client must."""
        files = list(self._configuration.rglob("*.conf"))
        for old, new in replaced.items():
            found = [path for path in files if old in path.read_text(encoding="utf-8")]
            assert len(found) == 1, f"{old!r} is in {len(found)} files"
            found[0].write_text(found[0].read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


@contextmanager
def running_nginx(servers: Sequence[str], **replaced: str) -> Iterator[Nginx]:
    """An edge before these gateways ("127.0.0.1:3001"). `replaced`: lines of the shipped files by what they become;
    give it as `**{"old": "new"}`. Fails where NGINX is not installed."""
    require_program("nginx", package="nginx")
    folder = Path(tempfile.mkdtemp(prefix="pf-nginx-", dir="/tmp"))
    # Its workers run as another user where the tests are root's.
    folder.chmod(0o755)
    nginx = Nginx(folder, servers=servers, replaced=replaced)
    try:
        nginx.start()
        yield nginx
    finally:
        nginx.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _self_signed(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(days=1))
    builder = builder.not_valid_after(now + dt.timedelta(days=30)).add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())
