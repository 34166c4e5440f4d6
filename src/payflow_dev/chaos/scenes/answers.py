"""Killed right after the answer: whatever a process has said, it is dead before it can do anything more."""

from __future__ import annotations

import asyncio
from typing import Final

from payflow_dev.chaos.faults import Striker, told
from payflow_dev.chaos.plan import EDGES, NEVER_KILLED, POSTGRES, WRITES, Planned
from payflow_dev.chaos.proxy import Position
from payflow_dev.chaos.scenes.stage import Act, Scene
from payflow_dev.chaos.world import World

AGAIN: Final = 2
# Each process that answers on a payment's way, by the call that matters most; PostgreSQL by what it commits.
_CALLS: Final = (
    "client -> gateway-1.confirm",
    "client -> gateway-2.confirm",
    "gateway-1 -> confirm.confirm",
    "confirm -> account.transfer",
    "confirm -> account.place_hold",
    "confirm -> risk.assess",
    "risk -> ofac.screen",
    "risk -> kyc.check",
    "confirm -> otp.verify",
    "otp -> notification.send_otp_codes",
    "confirm -> partner-bank.submit",
    "confirm -> postgres.transactions",
    "account -> postgres.account_balance",
)


async def _act(world: World) -> Act:
    striker = Striker(world.tools)
    edges = {edge.name: edge for edge in (*EDGES, *WRITES)}
    script = [
        Planned("kill-callee", edges[name].callee, edges[name], Position.AFTER_ANSWER)
        for name in _CALLS * AGAIN
        if edges[name].callee not in NEVER_KILLED
    ]
    script += [Planned("kill", name) for name in ("audit", "valkey")]
    await asyncio.sleep(2)
    problems, slowest_s = [], 0.0
    for planned in script:
        fault = await striker.do(planned)
        world.history.write(fault)
        world.setup.tell(f"    {told(fault)}")
        slowest_s = max(slowest_s, fault.paying_after_s or 99.0)
        if fault.back_after_s is None:
            problems.append(f"{fault.victim} did not come back")
    killed = {planned.victim for planned in script}
    return Act(
        figure=f"{striker.kills} kills right after an answer ({len(killed)} processes, {POSTGRES} among them), "
        f"paying again within {slowest_s:.1f} s",
        figures={"kills": striker.kills, "processes": len(killed), "paying_again_s_max": round(slowest_s, 2)},
        problems=problems,
        faults=striker.done,
    )


killed_after_answer: Final = Scene(
    words="every process is killed with SIGKILL right after an answer of its own; nothing that was said is lost",
    act=_act,
    pause_s=0.1,
)
