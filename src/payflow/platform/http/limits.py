"""What one connection may cost a server."""

from __future__ import annotations

import msgspec


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may cost. A bound in seconds is kept to within half a second."""

    head_bytes_max: int = 32 * 1024
    header_fields_max: int = 100
    target_bytes_max: int = 8 * 1024
    # Bytes on the wire, chunk sizes, extensions and trailers included; the body's own limit is the application's.
    body_wire_bytes_max: int = 32 * 1024 * 1024
    head_s: float = 10.0
    body_s: float = 30.0
    # A body for which more was allowed may take longer, as long as so much of it arrives in each `body_s`.
    body_pace_bytes: int = 64 * 1024
    idle_s: float = 75.0
    # For a client that does not read its answer.
    write_s: float = 30.0
    # For a client that still sends while the connection ends.
    linger_s: float = 2.0
    # For an idle client of a server that drains gently: a request sent in the moment in which the connection was closed
    # would be lost, and who sends within this time is answered and told to come back on another connection.
    farewell_s: float = 0.5
    connections_max: int = 8192
