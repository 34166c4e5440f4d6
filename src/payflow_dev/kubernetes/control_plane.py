"""A real API server with its controllers and scheduler on this machine, and nodes that only say that pods run.

What a kubelet, a network and a volume driver would do does not happen: no container is started. Everything that the API
server, the controllers and the scheduler decide is theirs. Needs etcd (Debian: etcd-server) and the programs of
`programs.kubernetes`.
"""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from payflow_dev.kubernetes.hollow_nodes import hollow_nodes
from payflow_dev.kubernetes.programs import ProgramMissing, kubernetes

_START_S: Final = 120.0
_STOP_S: Final = 20.0
# Below the range from which the system takes ports for outgoing connections.
_PORTS: Final = range(21000, 32000)


class ApiError(Exception):
    """The API server refused; `status` is HTTP's, `message` its own words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """Requests to the API server, as its administrator."""

    def __init__(self, *, url: str, token: str, authority: Path) -> None:
        self.url = url
        self._token = token
        self._tls = ssl.create_default_context(cafile=str(authority))

    def send(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Any:
        """The answer's document. Raises ApiError, OSError."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": kind, "Accept": "application/json"}
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30, context=self._tls) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            text = error.read()
            try:
                message = str(json.loads(text)["message"])
            except (ValueError, KeyError):
                message = text.decode(errors="replace")[:500]
            raise ApiError(error.code, message) from None
        return json.loads(text) if text.startswith((b"{", b"[")) else text.decode()

    def get(self, path: str) -> Any:
        """Read. Raises ApiError."""
        return self.send("GET", path)

    def create(self, path: str, body: Any) -> Any:
        """Create. Raises ApiError."""
        return self.send("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """Change what is named, as a merge patch. Raises ApiError."""
        return self.send("PATCH", path, body, kind="application/merge-patch+json")


class Cluster:
    """A running control plane: its API, a kubeconfig for programs, and where its programs are."""

    def __init__(self, *, api: Api, kubeconfig: Path, programs: Path) -> None:
        self.api = api
        self.kubeconfig = kubeconfig
        self.programs = programs

    def kubectl(
        self, *arguments: str, text: str | None = None, folder: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl to its end, with a text on its input, in a folder."""
        command = [str(self.programs / "kubectl"), "--kubeconfig", str(self.kubeconfig), *arguments]
        return subprocess.run(command, input=text, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def wait_until(what: str, is_so: Callable[[], object], *, seconds: float = _START_S) -> None:
    """Look again and again. Raises TimeoutError naming what did not come."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not so after {seconds:.0f} s")
        time.sleep(0.2)


@contextmanager
def control_plane(*, zones: Sequence[str] = ("zone-a", "zone-b", "zone-c")) -> Iterator[Cluster]:
    """A cluster with a hollow node in each zone; all of it ends with the block. Raises ProgramMissing, TimeoutError."""
    etcd = shutil.which("etcd")
    if etcd is None:
        raise ProgramMissing("etcd is not installed (Debian, Ubuntu: apt-get install etcd-server).")
    programs = kubernetes()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="payflow-k8s-")))
        etcd_port, peer_port, api_port, manager_port, scheduler_port = _free_ports(5)
        storage = f"http://127.0.0.1:{etcd_port}"
        options = _etcd_options(folder, client=storage, peer=f"http://127.0.0.1:{peer_port}")
        stack.enter_context(_process(folder / "etcd.log", [etcd, *options]))
        token = _write_keys(folder)
        server = [str(programs / "kube-apiserver"), *_api_server_options(folder, storage, api_port)]
        stack.enter_context(_process(folder / "apiserver.log", server))
        cluster = _connect(folder, api_port, token, programs)
        for name, port in (("kube-controller-manager", manager_port), ("kube-scheduler", scheduler_port)):
            stack.enter_context(_process(folder / f"{name}.log", _controller(programs / name, folder, port)))
        stack.enter_context(hollow_nodes(cluster.api, zones))
        wait_until("the default service account", lambda: _is_there(cluster.api, "default/serviceaccounts/default"))
        yield cluster


def _etcd_options(folder: Path, *, client: str, peer: str) -> list[str]:
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
    ]


def _write_keys(folder: Path) -> str:
    """The key of service accounts, and the administrator's token, which is returned."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (folder / "accounts.key").write_bytes(private)
    token = secrets.token_urlsafe(24)
    (folder / "tokens.csv").write_text(f'{token},admin,1,"system:masters"\n', encoding="utf-8")
    return token


def _api_server_options(folder: Path, storage: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={storage}",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-account-key-file={folder / 'accounts.key'}",
        f"--service-account-signing-key-file={folder / 'accounts.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--bind-address=127.0.0.1",
        # Loopback is no address that could be advertised to nodes; nobody asks for it here.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--service-cluster-ip-range=10.250.0.0/24",
        "--authorization-mode=RBAC",
    ]


def _controller(program: Path, folder: Path, port: int) -> list[str]:
    common = [str(program), f"--kubeconfig={folder / 'kubeconfig'}", "--leader-elect=false", "--bind-address=127.0.0.1"]
    common += [f"--secure-port={port}", f"--cert-dir={folder / program.name}"]
    if program.name == "kube-controller-manager":
        common += [f"--service-account-private-key-file={folder / 'accounts.key'}"]
        common += [f"--root-ca-file={folder / 'certificates' / 'apiserver.crt'}"]
    return common


def _connect(folder: Path, port: int, token: str, programs: Path) -> Cluster:
    """Wait for the API server, and write the kubeconfig."""
    authority = folder / "certificates" / "apiserver.crt"
    url = f"https://127.0.0.1:{port}"
    wait_until("the API server's certificate", authority.exists)
    api = Api(url=url, token=token, authority=authority)
    wait_until("the API server", lambda: _is_healthy(api))
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "payflow",
        "clusters": [{"name": "payflow", "cluster": {"server": url, "certificate-authority": str(authority)}}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "payflow", "context": {"cluster": "payflow", "user": "admin"}}],
    }
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(document), encoding="utf-8")
    kubeconfig.chmod(0o600)
    return Cluster(api=api, kubeconfig=kubeconfig, programs=programs)


def _is_healthy(api: Api) -> bool:
    try:
        return bool(api.get("/readyz") == "ok")
    except (OSError, ApiError):
        return False


def _is_there(api: Api, path: str) -> bool:
    try:
        api.get(f"/api/v1/namespaces/{path}")
    except ApiError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in _PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise OSError("no port is free")


@contextmanager
def _process(log: Path, command: Sequence[str]) -> Iterator[None]:
    """A program that runs as long as the block; what it says goes to a file, whose end an early death shows."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        try:
            time.sleep(0.5)
            if process.poll() is not None:
                raise ProgramMissing(f"{command[0]} ended at once: {log.read_text(errors='replace')[-1500:]}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_STOP_S)
