"""Becomes one embedded server: `python -m tests.support.server_process postgres|valkey DATA_DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from payflow.run.embedded.places import existing_postgres_home, socket_dir
from payflow.run.embedded.postgres import EmbeddedPostgres
from payflow.run.embedded.user import server_user
from payflow.run.embedded.valkey import EmbeddedValkey
from payflow.run.instance import Instance
from payflow.run.supervisor.forking import die_with_parent


def main() -> None:
    kind, data_dir, parent = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    instance = Instance(data_dir=data_dir)
    user = server_user(owned=existing_postgres_home(instance))
    sockets = socket_dir(instance, user)
    settle = lambda: die_with_parent(__import__("signal").SIGINT, parent=parent)  # noqa: E731
    if kind == "postgres":
        database = EmbeddedPostgres.prepare(instance=instance, sockets=sockets, user=user)
        print(database.owner_url(database="postgres"), flush=True)
        database.run(settle=settle)
    cache = EmbeddedValkey.prepare(sockets=sockets, user=user)
    print(cache.url(), flush=True)
    cache.run(settle=settle)


main()
