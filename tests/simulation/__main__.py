"""`python -m tests.simulation`: run fresh seeds for a while, or replay one and tell its story."""

from __future__ import annotations

import argparse
import os
import sys

from tests.simulation.run import PAYMENTS, simulate
from tests.simulation.session import Session, fresh_seed


def main() -> int:
    """0: every rule held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to run fresh seeds")
    parser.add_argument("--seed", type=int, help="replay this one seed instead")
    parser.add_argument("--payments", type=int, default=PAYMENTS, help="payments in each run; a part of the replay")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="how many run at once")
    parser.add_argument("--digest", action="store_true", help="print a hash over every step of the replayed run")
    arguments = parser.parse_args()
    if arguments.seed is None:
        session = Session(first_seed=fresh_seed(), payments=arguments.payments)
        session.run(seconds=arguments.seconds, processes=arguments.processes)
    else:
        result = simulate(arguments.seed, payments=arguments.payments)
        session = Session(first_seed=arguments.seed, payments=arguments.payments)
        session.add(result)
        if arguments.digest:
            print(f"digest {result.trace.digest()}")
    print(session.report())
    return 1 if session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
