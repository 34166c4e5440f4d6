"""The listening sockets: opened once by the supervisor and inherited, so that a restarted service keeps its queue."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Sequence

import psutil

from payflow.run.errors import StartError
from payflow.run.instance import SERVICE_HOST, Instance
from payflow.run.registry import Deployable

# As many as Linux allows unless told otherwise (net.core.somaxconn). Who finds it full tries again a second later.
_BACKLOG = 4096
# The names that the supervisor gives its processes begin so.
_OUR_PROCESSES = "pf-"


class Listeners:
    """Every socket of an instance: one per service port, and one per gateway on the shared public port.

    Copies of a service have one socket in common besides, and whichever is free takes the next connection: one that is
    dead keeps none waiting.
    """

    def __init__(self, by_name: dict[str, list[socket.socket]]) -> None:
        self._by_name = by_name

    def of(self, name: str) -> list[socket.socket]:
        """The sockets of one process: its own port first, then its share of the public port."""
        return self._by_name[name]

    def keep_only(self, name: str) -> None:
        """Close the other processes' sockets; called in a forked child."""
        for other, sockets in self._by_name.items():
            if other != name:
                for entry in sockets:
                    entry.close()

    def close(self) -> None:
        """Free every port."""
        for sockets in self._by_name.values():
            for entry in sockets:
                entry.close()


def open_listeners(*, instance: Instance, rows: Sequence[Deployable]) -> Listeners:
    """Take every port, or none. Raises StartError naming the first port that is taken, and by whom."""
    opened: dict[str, list[socket.socket]] = {}
    common: dict[int, socket.socket] = {}
    try:
        _check_public_port_is_free(instance)
        for row in rows:
            port = instance.service_port(row)
            option = "--port-base" if row.port_offset else "--port"
            opened[row.name] = [listen(host=SERVICE_HOST, port=port, option=option)]
            if row.is_gateway:
                shared = listen(host=instance.host, port=instance.port, option="--port", is_shared=True)
                opened[row.name].append(shared)
            shared_port = instance.shared_port(row)
            if shared_port is not None:
                if shared_port not in common:
                    common[shared_port] = listen(host=SERVICE_HOST, port=shared_port, option="--port-base")
                # A descriptor of its own: another copy closes what is not its.
                opened[row.name].append(common[shared_port].dup())
    except BaseException:
        Listeners(opened).close()
        raise
    finally:
        for entry in common.values():
            entry.close()
    return Listeners(opened)


def _check_public_port_is_free(instance: Instance) -> None:
    """Bind once without SO_REUSEPORT: with it, a second instance of ours would silently share the port."""
    listen(host=instance.host, port=instance.port, option="--port").close()


def listen(*, host: str, port: int, option: str, is_shared: bool = False) -> socket.socket:
    """A bound, listening, non-blocking socket. Raises StartError; `option` is what the user can change about it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise StartError(f"--host {host} is no address of this machine: {error.strerror}.") from error
    listener = socket.socket(family, kind, protocol)
    try:
        # Connections of an earlier run in TIME_WAIT must not keep the port from us.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _explain(error, host=host, port=port, option=option) from error
    listener.setblocking(False)
    return listener


def _explain(error: OSError, *, host: str, port: int, option: str) -> StartError:
    if error.errno == errno.EADDRINUSE:
        holder = holder_of(port)
        by_whom = f" by {holder}" if holder else ""
        if holder and holder.startswith(_OUR_PROCESSES):
            return StartError(
                f"Port {port} is taken{by_whom}, of another Payflow: stop that with `payflow down` and its --data-dir, "
                "or run this one beside it, with --data-dir, --port-base and --port of its own."
            )
        return StartError(f"Port {port} is taken{by_whom}: stop that program, or choose other ports with {option}.")
    if error.errno == errno.EACCES:
        return StartError(f"Port {port} needs more rights than this user has: choose one above 1023 with {option}.")
    if error.errno == errno.EADDRNOTAVAIL:
        return StartError(f"--host {host} is no address of this machine.")
    return StartError(f"Port {port} cannot be opened on {host}: {error.strerror}.")


def holder_of(port: int) -> str | None:
    """Who listens on a TCP port, as "NAME (pid N)"; None where this user may not see it."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp"):
            is_listener = connection.status == psutil.CONN_LISTEN
            if is_listener and connection.laddr and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None
