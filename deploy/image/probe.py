"""Whether a service in this container is alive: exit code 0 when `GET /live` is 200, else 1.

Standard library only and as little of it as can be: it runs every few seconds in every container.
"""

import os
import socket
import sys

TIMEOUT_S = 3.0


def main() -> int:
    """Ask the port of the first argument, else of PAYFLOW_PORT."""
    port = int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PAYFLOW_PORT", "0"))
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            return 0 if b" 200 " in connection.recv(64).split(b"\r\n")[0] else 1
    except OSError as error:
        print(f"port {port}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
