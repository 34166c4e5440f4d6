"""Which faults, where and in which order: every edge of a payment's way at every position, then whole processes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from payflow_dev.chaos.proxy import Position

CLIENT: Final = "client"
POSTGRES: Final = "postgres"


@dataclass(frozen=True, slots=True)
class Edge:
    """A call that a payment makes on its way: who calls which operation of whom (process names).

    Where the callee is PostgreSQL, `operation` is the table that the transaction writes.
    """

    caller: str
    callee: str
    operation: str

    @property
    def name(self) -> str:
        """`confirm -> account.transfer`."""
        return f"{self.caller} -> {self.callee}.{self.operation}"

    @property
    def is_write(self) -> bool:
        """Whether this is a transaction in PostgreSQL and not a call of a service."""
        return self.callee == POSTGRES


_GATEWAY_CALLS: Final = ("confirm", "confirm_with_otp", "send_codes", "cancel", "await_end")
EDGES: Final = (
    *(Edge(CLIENT, gateway, "confirm") for gateway in ("gateway-1", "gateway-2")),
    *(Edge(gateway, "confirm", call) for gateway in ("gateway-1", "gateway-2") for call in _GATEWAY_CALLS),
    Edge("confirm", "account", "resolve"),
    Edge("confirm", "risk", "assess"),
    Edge("confirm", "risk", "reassess"),
    Edge("risk", "ofac", "screen"),
    Edge("risk", "kyc", "check"),
    Edge("confirm", "account", "transfer"),
    Edge("confirm", "account", "place_hold"),
    Edge("confirm", "partner-bank", "submit"),
    Edge("partner-bank", "other-bank", "iso20022"),
    Edge("partner-bank", "confirm", "record_bank_answer"),
    Edge("confirm", "account", "keep_hold"),
    Edge("confirm", "account", "capture_hold"),
    Edge("confirm", "account", "release_hold"),
    Edge("confirm", "otp", "issue"),
    Edge("confirm", "otp", "verify"),
    Edge("otp", "notification", "send_otp_codes"),
)
# What money that comes in goes through.
INCOMING_EDGES: Final = (
    Edge("other-bank", "partner-bank", "iso20022"),
    Edge("partner-bank", "ofac", "screen"),
    Edge("partner-bank", "account", "credit_incoming"),
)
# What officers and senders of files ask for beside; whoever has none of them in the load leaves these out.
OFFICE_EDGES: Final = (
    Edge("gateway-1", "confirm", "request_return"),
    Edge("gateway-2", "confirm", "decide_return"),
    Edge("gateway-2", "confirm", "open_bulk"),
    Edge("gateway-1", "confirm", "store_bulk_lines"),
    Edge("gateway-1", "confirm", "close_bulk"),
    Edge("gateway-2", "ofac", "decide"),
    Edge("ofac", "confirm", "decide_review"),
)
# Files are few, and so are payments to other banks that an officer has cleared: what waits for one has somebody ask.
FILE_OPERATIONS: Final = frozenset({"open_bulk", "store_bulk_lines", "close_bulk"})
REVIEWED_ABROAD_OPERATIONS: Final = frozenset({"keep_hold"})
# What a payment's steps commit, by the process and the table that only this step writes.
WRITES: Final = (
    Edge("confirm", POSTGRES, "transactions"),
    Edge("account", POSTGRES, "account_balance"),
    Edge("account", POSTGRES, "fund_reservations"),
    Edge("risk", POSTGRES, "assessment"),
    Edge("otp", POSTGRES, "challenge"),
    Edge("partner-bank", POSTGRES, "instruction"),
    Edge("notification", POSTGRES, "demo_outbox"),
    Edge("audit", POSTGRES, "audit_logs"),
)
MONEY_WRITES: Final = WRITES[:2]
PROCESSES: Final = (
    "gateway-1", "gateway-2", "confirm", "risk", "otp", "account", "notification", "audit", "ofac", "kyc",
    "partner-bank",
)  # fmt: skip
# The world outside is neither ours nor to be killed.
NEVER_KILLED: Final = (CLIENT, "other-bank")
# Whose clocks decide something: deadlines, leases, tokens, windows.
CLOCKS: Final = ("gateway-1", "confirm", "risk", "otp", "account", "partner-bank")
SHIFTS_S: Final = (-3600.0, -30.0, -2.0, 2.0, 30.0, 3600.0)
# PAYFLOW_PAYMENT_LEASE_S as it comes: after so long another process takes a payment over.
LEASE_S: Final = 10.0
LONG_FREEZE_S: Final = 3 * LEASE_S + 1
# Who is stopped for so long in each round, among these of its faults: a run of sixty has them all.
LONG_FROZEN: Final = ("confirm", "partner-bank", "account")
LONG_FREEZES_AMONG: Final = range(40, 57)
# Shorter than a call's deadline, longer than the pause between two looks for what was left behind.
OVERTAKEN_S: Final = 4.0
OVERTAKEN_AT: Final = ("assess", "transfer", "place_hold", "submit", "capture_hold")
DISK_FULL: Final = "disk-full"
CLOCK_SHIFT: Final = "clock-shift"
OPTIONAL: Final = (DISK_FULL, CLOCK_SHIFT)


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault to come.

    At an edge: kill-caller, kill-callee, cut, reset, truncate, delay, overtaken, reply-lost. Of `victim`: kill, freeze,
    hang, flush, connections-exhausted, disk-full, clock-shift. By many at once: same-request-50, crossing, last-cent.
    `seconds`: how long; `shift_s`: by how much a clock is wrong.
    """

    name: str
    victim: str | None = None
    edge: Edge | None = None
    position: Position | None = None
    seconds: float = 0.0
    shift_s: float = 0.0

    @property
    def is_kill(self) -> bool:
        """Whether a process is killed."""
        return self.name in ("kill", "kill-caller", "kill-callee")

    @property
    def place(self) -> str:
        """Where it strikes, as the coverage of a summary names it."""
        return self.edge.name if self.edge is not None else self.victim or "everybody"

    @property
    def needs(self) -> tuple[str, ...]:
        """The optional means without which it cannot be done."""
        return (DISK_FULL,) if self.name == DISK_FULL else (CLOCK_SHIFT,) if self.shift_s else ()


def in_turn(source: random.Random, *, without: Sequence[str] = ()) -> Iterator[Planned]:
    """Round after round, without an end; each with its long freezes."""
    while True:
        faults = one_round(source, without=without)
        for process in LONG_FROZEN:
            faults.insert(source.choice(LONG_FREEZES_AMONG), Planned("freeze", process, seconds=LONG_FREEZE_S))
        yield from faults


def until_kills(faults: Iterable[Planned], kills: int) -> Iterator[Planned]:
    """The faults up to the one that is so many kills: what a run of so many kills does at the least."""
    killed = 0
    for planned in faults:
        if killed >= kills:
            return
        killed += planned.is_kill
        yield planned


def one_round(source: random.Random, *, without: Sequence[str] = ()) -> list[Planned]:
    """Everything once, in an order of chance: each edge at each position, each write, each process, each server."""
    faults = [
        *(planned for edge in (*EDGES, *INCOMING_EDGES, *OFFICE_EDGES) for planned in at_edge(edge)),
        *(planned for edge in WRITES for planned in at_write(edge)),
    ]
    faults += [Planned("kill", process) for process in PROCESSES]
    faults += [Planned("freeze", process, seconds=1.0) for process in PROCESSES]
    faults += [Planned("hang", process) for process in ("confirm", "account")]
    faults += [Planned("kill", POSTGRES), Planned("kill", "valkey"), Planned("flush", "valkey")]
    faults += [Planned("freeze", "valkey", seconds=3.0), Planned("connections-exhausted", POSTGRES, seconds=4.0)]
    faults += [Planned("same-request-50") for _ in range(5)] + [Planned("crossing") for _ in range(5)]
    faults += [Planned("last-cent") for _ in range(3)]
    if CLOCK_SHIFT not in without:
        faults += [Planned(CLOCK_SHIFT, process, seconds=4.0, shift_s=source.choice(SHIFTS_S)) for process in CLOCKS]
    if DISK_FULL not in without:
        faults.append(Planned(DISK_FULL, POSTGRES, seconds=4.0))
    source.shuffle(faults)
    return faults


def at_edge(edge: Edge) -> list[Planned]:
    """Every fault of one edge: killed, cut, reset, truncated and delayed, at each position where that can be."""
    around = (Position.BEFORE_DELIVERY, Position.AFTER_DELIVERY, Position.AFTER_ANSWER)
    faults = [
        Planned(name, victim, edge, position)
        for position in around
        for name, victim in (("kill-caller", edge.caller), ("kill-callee", edge.callee))
        if victim not in NEVER_KILLED
    ]
    faults += [Planned("cut", None, edge, position) for position in around[:2]]
    faults += [Planned("reset", None, edge, position) for position in around]
    faults += [Planned("truncate", None, edge, where) for where in (Position.HALF_A_REQUEST, Position.HALF_AN_ANSWER)]
    return [*faults, Planned("delay", None, edge, Position.LATE_DELIVERY, seconds=1.5)]


def at_write(edge: Edge) -> list[Planned]:
    """Every fault of one write: its commit lost, its reply lost, and the writer or PostgreSQL killed after it."""
    lost = (Position.BEFORE_DELIVERY, Position.AFTER_DELIVERY)
    done = (Position.AFTER_DELIVERY, Position.AFTER_ANSWER)
    faults = [Planned("reply-lost", None, edge, position) for position in lost]
    faults += [Planned("kill-caller", edge.caller, edge, position) for position in done]
    if edge in MONEY_WRITES:
        faults += [Planned("kill-callee", POSTGRES, edge, position) for position in done]
    return faults


def overtaken() -> list[Planned]:
    """Confirm waits for a call that comes late, and meanwhile takes the payment over itself: its lease has ended.

    For an instance whose lease is shorter than OVERTAKEN_S.
    """
    return [
        Planned("overtaken", edge.caller, edge, Position.LATE_DELIVERY, seconds=OVERTAKEN_S)
        for edge in EDGES
        if edge.caller == "confirm" and edge.operation in OVERTAKEN_AT
    ]
