"""What a session of a service is like, with PostgreSQL itself at the other end or with PgBouncer between.

In PgBouncer's transaction mode each transaction may run on another server connection: nothing that a session keeps
may be relied on. What a service's sessions need is therefore kept by its role as well (`payflow migrate` sees to it),
statements are not prepared by name, and what must keep one connection (LISTEN, the lock of the relay) goes past
PgBouncer, by an address of its own.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlunsplit

import asyncpg

from payflow.platform.addresses import split_address

Pooling: TypeAlias = Literal["session", "transaction"]

_EVERY_SESSION: Final = {
    "timezone": "UTC",
    # Every statement is prepared and runs thousands of times; planning it anew each time (which the server
    # prefers for arrays of unknown length) costs more than running it.
    "plan_cache_mode": "force_generic_plan",
    # Nor may a plan hang on statistics: one made while a table was empty reads the whole table, and stays until
    # the table is analysed, a minute and a hundred thousand payments later. Rows are found by their index.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}


def session_settings(schema: str) -> dict[str, str]:
    """The settings of a service's sessions. `schema`: its own one; empty: no search path is set."""
    path = {"search_path": f"{schema},event_log"} if schema else {}
    return _EVERY_SESSION | path


async def keep_with_role(connection: asyncpg.Connection[Any], *, role: str, schema: str) -> None:
    """Have every session of a role begin with the settings of its service, whoever opens it.

    Writes only what differs. A role that is not ours to alter stays as it is: only PgBouncer's transaction mode needs
    it, and a service then refuses to start (`check_role`).
    """
    kept = await connection.fetchval(
        "SELECT setting.setconfig FROM pg_db_role_setting AS setting JOIN pg_roles ON pg_roles.oid = setting.setrole "
        "WHERE pg_roles.rolname = $1 AND setting.setdatabase = 0",
        role,
    )
    known = dict(entry.split("=", 1) for entry in kept or ())
    for name, value in session_settings(schema).items():
        shown = ", ".join(value.split(","))
        if known.get(name, known.get("TimeZone") if name == "timezone" else None) == shown:
            continue
        try:
            await connection.execute(f"ALTER ROLE {role} SET {name} = {shown}")
        except asyncpg.InsufficientPrivilegeError:
            return


def is_kept(search_path: str, schema: str) -> bool:
    """Whether a session's search path is the one that the service of this schema needs."""
    return [part.strip(' "') for part in search_path.split(",")] == session_settings(schema)["search_path"].split(",")


def as_user_of(url: str, other: str) -> str:
    """`url` with the user of another address where it names none: one address then does for every service."""
    parts, like = split_address(url), split_address(other)
    if not url or parts.username or not like.username:
        return url
    login = like.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.netloc}"))
