"""Becomes a broker that dies with its parent: `python -m payflow_dev.kafka.broker_process PARENT_PID COMMAND...`."""

from __future__ import annotations

import os
import signal
import sys

from payflow.run.supervisor.forking import die_with_parent


def main() -> None:
    """Replace this process by the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    die_with_parent(signal.SIGKILL, parent=parent)
    os.execve(command[0], command, dict(os.environ))  # noqa: S606


main()
