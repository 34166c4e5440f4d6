"""The story of `up`: servers, migrations, services, demo data, then watching until told to stop."""

from __future__ import annotations

import asyncio
import gc
import importlib
import inspect
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from payflow.platform.migrate import MigrationError
from payflow.platform.settings import CommonSettings
from payflow.run.datadir import InstanceLock, check_version, ensure_secret, prepare, take_lock
from payflow.run.embedded.places import remove_socket_dir
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.registry import Deployable, service_names
from payflow.run.secrets import ensure_secrets, require_secrets
from payflow.run.supervisor.children import Child, Stage
from payflow.run.supervisor.console import Progress, print_table
from payflow.run.supervisor.environment import (
    Backends,
    is_production,
    service_environment,
    setting,
)
from payflow.run.supervisor.forking import die_with_parent, require_single_thread
from payflow.run.supervisor.requests import Requests
from payflow.run.supervisor.servers import PrepareBroker, Server, prepare_servers
from payflow.run.supervisor.settings import check_names, check_values, settings_class
from payflow.run.supervisor.sockets import Listeners, open_listeners
from payflow.run.supervisor.status import InstanceStatus, write_status
from payflow.run.supervisor.watch import StopRequestedError, Watch

_DATABASE_READY_S: Final = 180.0
_HEALTHY_S: Final = 60.0
_DEMO_LOADED_S: Final = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to start. The callables run in forked children.

    `serve` runs one service until SIGTERM or SIGINT, and calls `on_ready` when it takes requests. `migrate` gets the
    owner's address, the services and their password files, and returns whether the database was new. `load_demo` fills
    a new instance; None leaves it empty. `prepare_broker` makes a Kafka of the instance's own; None where events stay
    in PostgreSQL, or the user has brokers.
    """

    rows: tuple[Deployable, ...]
    serve: Callable[..., Any]
    migrate: Callable[..., Any]
    load_demo: Callable[[Instance], Any] | None
    welcome: Callable[[Instance], None] | None = None
    prepare_broker: PrepareBroker | None = None


class Supervisor:
    """One instance from its start to its stop."""

    def __init__(self, *, instance: Instance, plan: Plan, progress: Progress, lock: InstanceLock) -> None:
        self._instance = instance
        self._plan = plan
        self._progress = progress
        self._lock = lock
        self._listeners: Listeners | None = None
        self._started_at = datetime.now(UTC)
        self._state = "starting"
        self._backends: Backends | None = None
        self._secrets: dict[str, str] = {}
        self._settings: dict[str, type[CommonSettings]] = {}
        self._pid = os.getpid()
        self._requests = Requests(instance.requests_pipe)
        self._watch = Watch(tell=self._tell, on_change=self._note_change, in_child=lock.forget, requests=self._requests)

    def run(self, *, on_ready: Callable[[], None]) -> None:
        """Start everything, call `on_ready`, and watch until asked to stop; then stop everything.

        Raises StartError when the start fails; whatever had been started is stopped by then.
        """
        with self._watch:
            try:
                self._requests.open()
                self._listeners = open_listeners(instance=self._instance, rows=self._plan.rows)
                self._start()
                self._state, self._watch.is_ready = "ready", True
                status = self._write_status()
                self._welcome(status)
                on_ready()
                while True:
                    self._watch.pump(1.0)
            except StopRequestedError:
                self._progress.console.print("Stopping.")
            finally:
                self._stop()

    def _start(self) -> None:
        servers, self._backends = prepare_servers(self._instance, prepare_broker=self._plan.prepare_broker)
        find_secrets = require_secrets if is_production() else ensure_secrets
        self._secrets = find_secrets(self._instance, service_names(self._plan.rows))
        for service in service_names(self._plan.rows):
            ensure_secret(self._instance.password_file(service))
        self._import_services()
        # Made before anything is started: a wrong setting must not leave a database behind that nobody asked for.
        services = [self._service_child(row) for row in self._plan.rows]
        for server in servers:
            self._watch.start(self._server_child(server))
        is_first = self._watch.run_task(
            "The database cannot be prepared",
            partial(_prepare_database, servers, self._instance, self._plan, self._owner_url),
            log=self._instance.log_file("migrate"),
            timeout_s=_DATABASE_READY_S,
        )
        for server in servers:
            self._progress.tick(server.name, "embedded")
        marker = self._instance.data_dir / "demo.pending"
        if is_first and self._plan.load_demo is not None:
            marker.touch(mode=0o600)
        for child in services:
            self._watch.start(child)
        self._watch.wait_healthy(
            timeout_s=_HEALTHY_S, on_healthy=lambda child: self._progress.tick(child.name, child.url)
        )
        if marker.exists() and self._plan.load_demo is not None:
            self._load_demo(self._plan.load_demo)
            marker.unlink()

    @property
    def _owner_url(self) -> str:
        backends = self._backends
        return (backends.postgres_direct_url or backends.postgres_owner_url) if backends else ""

    def _import_services(self) -> None:
        """Import everything once; the forks then share the memory. A module that starts a thread is refused."""
        for row in self._plan.rows:
            try:
                module = importlib.import_module(row.module)
            except ImportError as error:
                raise StartError(f"{row.name} cannot be started: {error}.") from error
            require_single_thread(row.module)
            self._settings[row.name] = settings_class(module)
        check_names(os.environ, self._settings.values())
        self._import_telemetry()
        gc.collect()
        gc.freeze()

    def _import_telemetry(self) -> None:
        """What sends traces and metrics, where they are sent: once here rather than in each child."""
        if setting("OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
            importlib.import_module("payflow.platform.otlp")
            require_single_thread("payflow.platform.otlp")

    def _server_child(self, server: Server) -> Child:
        def run(_on_ready: Callable[[], None]) -> object:
            settle = partial(die_with_parent, server.stop_signal, parent=self._pid)
            return server.run(settle=settle)

        return Child(
            name=server.name,
            service=server.name,
            stage=Stage.SERVER,
            url=server.url,
            log=self._instance.log_file(server.name),
            run=run,
            death_signal=server.stop_signal,
            stop_signal=server.stop_signal,
        )

    def _service_child(self, row: Deployable) -> Child:
        assert self._backends is not None
        assert self._listeners is not None
        listeners, serve = self._listeners, self._plan.serve
        environ = service_environment(
            instance=self._instance,
            row=row,
            rows=self._plan.rows,
            backends=self._backends,
            secrets=self._secrets,
        )
        check_values(environ, self._settings[row.name])

        def run(on_ready: Callable[[], None]) -> object:
            listeners.keep_only(row.name)
            os.environ.clear()
            os.environ.update(environ)
            sockets = listeners.of(row.name)
            return serve(service=row.service, instance=row.name, module=row.module, sockets=sockets, on_ready=on_ready)

        return Child(
            name=row.name,
            service=row.service,
            stage=Stage.GATEWAY if row.is_gateway else Stage.SERVICE,
            url=self._instance.service_url(row),
            log=self._instance.log_file(row.name),
            run=run,
            port=self._instance.service_port(row),
            # Nobody goes on in their place: idle connections need not be waited for.
            stop_signal=signal.SIGINT,
        )

    def _load_demo(self, load: Callable[[Instance], Any]) -> None:
        def run() -> None:
            outcome = load(self._instance)
            if inspect.isawaitable(outcome):
                asyncio.run(_finish(outcome))

        log = self._instance.log_file("demo-data")
        self._watch.run_task("The demo data cannot be loaded", run, log=log, timeout_s=_DEMO_LOADED_S)
        self._progress.tick("demo data", "loaded")

    def _welcome(self, status: InstanceStatus) -> None:
        print_table(self._progress.console, status)
        if not self._instance.is_loopback and not is_production():
            self._progress.warn(
                f"Anybody who reaches {self._instance.host}:{self._instance.port} can sign in as the demo users, whose "
                "password is public. Use --host only in a network you trust."
            )
        if self._plan.welcome is not None:
            self._plan.welcome(self._instance)

    def _stop(self) -> None:
        self._state = "stopping"
        with suppress(OSError):  # a full disk must not keep us from stopping
            self._write_status()
        self._watch.stop()
        if self._listeners is not None:
            self._listeners.close()
        self._requests.close()
        remove_socket_dir(self._instance)
        self._instance.status_file.unlink(missing_ok=True)
        self._lock.release()

    def _tell(self, message: str) -> None:
        self._progress.tell(message)

    def _note_change(self) -> None:
        with suppress(OSError):  # a full disk must not end what still runs
            self._write_status()

    def _write_status(self) -> InstanceStatus:
        return write_status(
            instance=self._instance,
            state=self._state,
            started_at=self._started_at,
            children=self._watch.children.values(),
            restart=self._watch.restart,
        )


def _prepare_database(servers: list[Server], instance: Instance, plan: Plan, owner_url: str) -> bool:
    """Wait for the servers and bring the schemas up to date; whether the database was new."""
    for server in servers:
        server.wait()
    services = service_names(plan.rows)
    files = {service: instance.password_file(service) for service in services}
    try:
        return bool(asyncio.run(plan.migrate(admin_url=owner_url, services=services, password_files=files)))
    except MigrationError as error:
        raise StartError(str(error)) from error


async def _finish(outcome: Any) -> None:
    await outcome


def up(*, instance: Instance, plan: Plan, progress: Progress, on_ready: Callable[[], None]) -> None:
    """Run an instance in this process until SIGTERM, SIGINT or SIGHUP.

    Raises StartError when it cannot start: a port taken, the directory in use, a service that does not become healthy.
    """
    if not instance.data_dir.exists():
        # Where the ports are taken, no directory is left behind that nothing was started in.
        open_listeners(instance=instance, rows=plan.rows).close()
    prepare(instance)
    lock = take_lock(instance)
    try:
        check_version(instance)
        remove_socket_dir(instance)
        supervisor = Supervisor(instance=instance, plan=plan, progress=progress, lock=lock)
    except BaseException:
        lock.release()
        raise
    supervisor.run(on_ready=on_ready)
