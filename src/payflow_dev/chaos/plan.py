"""Which faults, where and in which order: every edge of a payment's way at every position, then whole processes."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from payflow_dev.chaos.proxy import Position


@dataclass(frozen=True, slots=True)
class Edge:
    """A call that a payment makes on its way: who calls which operation of whom (process names)."""

    caller: str
    callee: str
    operation: str

    @property
    def name(self) -> str:
        """`confirm -> account.transfer`."""
        return f"{self.caller} -> {self.callee}.{self.operation}"


EDGES: Final = (
    Edge("gateway-1", "confirm", "confirm"),
    Edge("gateway-1", "confirm", "confirm_with_otp"),
    Edge("gateway-1", "confirm", "send_codes"),
    Edge("gateway-1", "confirm", "cancel"),
    Edge("gateway-1", "confirm", "await_end"),
    Edge("confirm", "account", "resolve"),
    Edge("confirm", "risk", "assess"),
    Edge("risk", "ofac", "screen"),
    Edge("risk", "kyc", "check"),
    Edge("confirm", "account", "transfer"),
    Edge("confirm", "account", "place_hold"),
    Edge("confirm", "partner-bank", "submit"),
    Edge("confirm", "account", "capture_hold"),
    Edge("confirm", "account", "release_hold"),
    Edge("confirm", "otp", "issue"),
    Edge("confirm", "otp", "verify"),
    Edge("otp", "notification", "send_otp_codes"),
)
PROCESSES: Final = (
    "gateway-1", "gateway-2", "confirm", "risk", "otp", "account", "notification", "audit", "ofac", "kyc",
    "partner-bank",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come. `name`: kill-caller, kill-callee, cut (at an edge); kill, freeze, flush (of `victim`)."""

    name: str
    victim: str | None = None
    edge: Edge | None = None
    position: Position | None = None
    seconds: float = 0.0


def one_round(source: random.Random) -> list[Planned]:
    """Every edge at every position, with its caller killed, its callee killed, and the connection cut; then every
    process killed and frozen, PostgreSQL killed, Valkey killed and flushed; in an order of chance."""
    faults = [
        Planned(name, _victim(name, edge), edge, position)
        for edge in EDGES
        for position in (Position.BEFORE_DELIVERY, Position.AFTER_DELIVERY, Position.AFTER_ANSWER)
        for name in ("kill-caller", "kill-callee")
    ]
    faults += [
        Planned("cut", None, edge, source.choice([Position.BEFORE_DELIVERY, Position.AFTER_DELIVERY])) for edge in EDGES
    ]
    faults += [Planned("cut", None, edge, Position.HALF_AN_ANSWER) for edge in EDGES]
    faults += [Planned("delay", None, edge, Position.LATE_DELIVERY, seconds=1.5) for edge in EDGES]
    faults += [Planned("kill", process) for process in PROCESSES]
    faults += [Planned("freeze", process, seconds=1.0) for process in PROCESSES]
    faults += [Planned("kill", "postgres"), Planned("kill", "valkey"), Planned("flush", "valkey")]
    source.shuffle(faults)
    return faults


def fencing_freezes() -> list[Planned]:
    """Confirm and account stopped for longer than a lease, and continued: they must write nothing any more."""
    return [Planned("freeze", "confirm", seconds=13.0), Planned("freeze", "account", seconds=13.0)]


def _victim(name: str, edge: Edge) -> str:
    return edge.caller if name == "kill-caller" else edge.callee
