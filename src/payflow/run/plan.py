"""What `up` starts when it starts the real thing: the registry's services, their migrations and the demo data."""

from __future__ import annotations

import importlib
import importlib.util
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from payflow.contracts.topics import TOPIC_BY_TYPE, consumers_of
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.registry import Deployable, deployables, find, service_names, with_copies
from payflow.run.supervisor.environment import is_production
from payflow.run.supervisor.servers import MakesBroker
from payflow.run.supervisor.start import Plan


def payflow_plan(
    *, prepare_broker: MakesBroker | None = None, copies: Sequence[str] = (), is_detached: bool = False
) -> Plan:
    """The eleven services, and the simulated other bank and demo data unless this is production.

    `copies`: "confirm=3" for three processes of confirm. `is_detached`: it will run in the background.
    Raises StartError for copies that are none.
    """
    production = is_production()
    rows = _rows(copies, is_production=production)
    has_demo = not production and importlib.util.find_spec("payflow.run.demo_data") is not None
    return Plan(
        rows=rows,
        serve=_serve,
        migrate=_migrate,
        load_demo=_load_demo if has_demo else None,
        welcome=partial(_welcome, is_detached=is_detached) if has_demo else None,
        prepare_broker=None if prepare_broker is None else partial(prepare_broker, readers=_readers(rows)),
    )


def _rows(copies: Sequence[str], *, is_production: bool) -> tuple[Deployable, ...]:
    wanted: dict[str, int] = {}
    for text in copies:
        name, _, count = text.partition("=")
        row = find(name)
        if not name or not count.isdecimal():
            raise StartError(f"--copies {text}: expected SERVICE=COUNT, such as confirm=3.")
        if row is None:
            names = ", ".join(service_names())
            raise StartError(f"--copies {text}: there is no service {name}: choose one of {names}.")
        wanted[row.service] = int(count)
    try:
        return with_copies(deployables(is_production=is_production), wanted)
    except ValueError as error:
        raise StartError(f"--copies: {error}.") from error


def _readers(rows: Sequence[Deployable]) -> int:
    """How many processes at most share the events of one consumer."""
    consumers = {name for type_ in TOPIC_BY_TYPE for name in consumers_of(type_)}
    return max(Counter(row.service for row in rows if row.service in consumers).values())


def _serve(
    *, service: str, instance: str, module: str, sockets: Sequence[socket.socket], on_ready: Callable[[], None]
) -> None:
    from payflow.platform.process import run

    run(service=service, instance=instance, module=module, sockets=sockets, on_ready=on_ready)


async def _migrate(**arguments: Any) -> bool:
    from payflow.platform.migrate import migrate

    return await migrate(**arguments)


def _load_demo(instance: Instance) -> Any:
    return importlib.import_module("payflow.run.demo_data").load(instance)


def _welcome(instance: Instance, *, is_detached: bool) -> None:
    from payflow.run.welcome import print_welcome

    print_welcome(instance, is_detached=is_detached)
