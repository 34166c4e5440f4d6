"""One fault run: start, load, faults in turn, heal, wait for quiet, read, judge."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import time
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from payflow.run import control
from payflow.run.inspection import owner_url
from payflow.run.instance import Instance
from payflow.run.invariants.check import Finding, check_database
from payflow.run.invariants.stuck import find_stuck
from payflow.run.local_rpc import local_services
from payflow_dev.bench.machine import machine_facts
from payflow_dev.bench.population import CURRENCY, OPENING_BALANCE_MINOR, make_customers
from payflow_dev.bench.records import make_records, new_password, sign_in
from payflow_dev.bench.target import LOOPBACK, Target, ended_by_sigterm, new_instance, remove, settings_for_ours
from payflow_dev.chaos.clients import Clients
from payflow_dev.chaos.final import final_read
from payflow_dev.chaos.history import Fault, History, Opening, now_ns
from payflow_dev.chaos.instance import Processes, start_proxies
from payflow_dev.chaos.judge import Verdict, judge
from payflow_dev.chaos.plan import Planned, fencing_freezes, one_round
from payflow_dev.chaos.proxy import Deed, Director

STRIKE_WITHIN_S: Final = 20.0
PAYING_WITHIN_S: Final = 20.0
QUIET_WITHIN_S: Final = 120.0


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to. Seconds are from the kill to the process's health, and to the next payment made."""

    machine: Any
    seed: int
    seconds: float
    kills: int
    faults: dict[str, int]
    coverage: dict[str, dict[str, int]]
    back_p95_s: float
    paying_p95_s: float
    postgres_back_s: list[float]
    quiet_after_s: float
    verdict: Verdict
    broken_rules: list[Finding]
    stuck: int

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or broken, every promised fault struck, and nothing is stuck."""
        return self.verdict.is_good and not self.broken_rules and self.stuck == 0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for: faults until both numbers are reached."""

    seed: int
    kills: int
    payments: int
    customers: int = 64
    pause_s: float = 0.15
    faults_max: int | None = None
    history: Path | None = None
    tell: Any = print


def run_chaos(options: Options) -> Summary:
    """Start an instance of its own, run, and remove it. The history file stays."""
    instance = new_instance()
    path = options.history or Path.cwd() / f"chaos-{options.seed}.jsonl"
    with ended_by_sigterm():
        try:
            return asyncio.run(_Run(options, instance, path).play())
        finally:
            remove(instance)


class _Run:
    def __init__(self, options: Options, instance: Instance, path: Path) -> None:
        self._options = options
        self._instance = instance
        self._random = random.Random(options.seed)
        self._history = History(path)
        self._director = Director()
        self._processes = Processes(instance)
        self._faults: list[Fault] = []
        self._kills = 0
        self._clients: Clients | None = None

    async def play(self) -> Summary:
        began_at = time.monotonic()
        proxies, settings = await start_proxies(self._instance, self._director)
        try:
            with settings_for_ours(**settings):
                status = await asyncio.to_thread(control.start, self._instance)
            async with local_services(self._instance) as services:
                customers, tokens = await self._people()
                self._clients = Clients(
                    url=f"http://{LOOPBACK}:{self._instance.port}",
                    customers=customers,
                    tokens=tokens,
                    history=self._history,
                    services=services,
                    seed=self._options.seed,
                    pause_s=self._options.pause_s,
                )
                self._clients.start()
                await asyncio.sleep(2)
                await self._do_faults()
                quiet_after_s = await self._heal()
                bank_url = next(process.url for process in status.processes if process.name == "other-bank")
                await final_read(
                    clients=self._clients,
                    customers=customers,
                    history=self._history,
                    bank_url=bank_url,
                    seconds_to_quiet=quiet_after_s,
                )
                await self._clients.close()
            self._history.close()
            return await self._summary(time.monotonic() - began_at, quiet_after_s)
        finally:
            for proxy in proxies:
                await proxy.close()

    async def _people(self) -> tuple[list[Any], list[str]]:
        customers = make_customers(count=self._options.customers, run_id=secrets.token_hex(3), seed=self._options.seed)
        password = new_password()
        await make_records(instance=self._instance, customers=customers, password=password)
        target = Target(host=LOOPBACK, port=self._instance.port, status=None)
        tokens = await sign_in(
            target=target,
            usernames=[customer.username for customer in customers],
            password=password,
            on_each=lambda: None,
        )
        for customer in customers:
            for account in customer.accounts:
                self._history.write(
                    Opening(
                        account=account,
                        customer=customer.customer_id,
                        currency=CURRENCY,
                        balance_minor=OPENING_BALANCE_MINOR,
                    )
                )
        return customers, tokens.values

    # --- faults ---------------------------------------------------------------------------------------------------

    async def _do_faults(self) -> None:
        assert self._clients is not None
        queue: list[Planned] = []
        while not self._is_enough():
            if not queue:
                queue = one_round(self._random) + (fencing_freezes() if self._options.faults_max is None else [])
            await self._do(queue.pop(0))
            self._tell_progress()

    def _is_enough(self) -> bool:
        assert self._clients is not None
        if self._options.faults_max is not None:
            return len(self._faults) >= self._options.faults_max
        return self._kills >= self._options.kills and self._clients.acknowledged >= self._options.payments

    def _tell_progress(self) -> None:
        assert self._clients is not None
        fault = self._faults[-1]
        where = f"{fault.edge} {fault.position}" if fault.edge else fault.victim
        outcome = "struck" if fault.is_hit else "NEVER STRUCK"
        self._options.tell(
            f"{len(self._faults):4d} faults, {self._kills:4d} kills, {self._clients.acknowledged:6d} payments: "
            f"{fault.name} {where}: {outcome}, back {_s(fault.back_after_s)}, paying {_s(fault.paying_after_s)}"
        )

    async def _do(self, planned: Planned) -> None:
        began_ns, started = now_ns(), time.monotonic()
        hit: dict[str, Any] = {"pid": None, "at": None, "victim": None}

        def strike(caller_port: int) -> None:
            hit["at"] = time.monotonic()
            if planned.name in ("kill", "kill-caller", "kill-callee") and planned.victim is not None:
                hit["victim"] = self._processes.caller(planned.victim, caller_port)
                hit["pid"] = self._processes.signal(hit["victim"], signal.SIGKILL)

        is_hit = await self._strike(planned, strike)
        since = hit["at"] or started
        back = None
        if hit["pid"] is not None:
            self._kills += 1
            back = await self._processes.wait_back(hit["victim"], former_pid=hit["pid"], since=since)
        paying = await self._paying_again(since)
        fault = Fault(
            name=planned.name,
            victim=hit.get("victim") or planned.victim,
            edge=planned.edge.name if planned.edge else None,
            position=planned.position.value if planned.position else None,
            began_ns=began_ns,
            is_hit=is_hit,
            back_after_s=back,
            paying_after_s=paying,
        )
        self._faults.append(fault)
        self._history.write(fault)

    async def _strike(self, planned: Planned, strike: Any) -> bool:
        if planned.edge is not None and planned.position is not None:
            deed = Deed(
                service=planned.edge.callee,
                operation=planned.edge.operation,
                position=planned.position,
                strike=strike,
                delay_s=planned.seconds,
            )
            self._director.arm(deed)
            try:
                await asyncio.wait_for(deed.struck.wait(), STRIKE_WITHIN_S)
            except TimeoutError:
                self._director.disarm()
                return False
            await asyncio.sleep(planned.seconds)
            return True
        if planned.name == "freeze":
            pid = self._processes.signal(planned.victim or "", signal.SIGSTOP)
            await asyncio.sleep(planned.seconds)
            with suppress(ProcessLookupError):
                if pid is not None:
                    self._processes.signal(planned.victim or "", signal.SIGCONT)
            strike(0)
            return pid is not None
        if planned.name == "flush":
            await self._processes.flush_valkey()
        strike(0)
        return True

    async def _paying_again(self, since: float) -> float | None:
        """Seconds from the fault to the first payment made after it."""
        assert self._clients is not None
        since_ns = int(since * 1e9)
        while time.monotonic() - since < PAYING_WITHIN_S:
            if self._clients.last_success_ns > since_ns + 20_000_000:
                return (self._clients.last_success_ns - since_ns) / 1e9
            await asyncio.sleep(0.02)
        return None

    # --- the end --------------------------------------------------------------------------------------------------

    async def _heal(self) -> float:
        """Let every customer come to an end, and everything else too; seconds since the last fault."""
        assert self._clients is not None
        self._director.disarm()
        since = time.monotonic()
        await asyncio.wait_for(self._clients.settle(), QUIET_WITHIN_S)
        self._options.tell(f"every customer has a final answer {time.monotonic() - since:.1f} s after the last fault")
        url = owner_url(self._instance.data_dir)
        while time.monotonic() - since < QUIET_WITHIN_S:
            findings = await check_database(url, quiet_within=timedelta(0))
            waiting = [finding for finding in findings if finding.broken or finding.waiting]
            if not waiting:
                return time.monotonic() - since
            self._options.tell(f"waiting: {', '.join(f'{one.words} ({one.broken + one.waiting})' for one in waiting)}")
            await asyncio.sleep(1)
        return time.monotonic() - since

    async def _summary(self, seconds: float, quiet_after_s: float) -> Summary:
        url = owner_url(self._instance.data_dir)
        findings = await check_database(url, quiet_within=timedelta(seconds=1))
        stuck = await find_stuck(url, overdue_after=timedelta(seconds=1))
        coverage: dict[str, Counter[str]] = {}
        for fault in self._faults:
            if fault.edge and fault.is_hit:
                coverage.setdefault(fault.edge, Counter())[f"{fault.name} {fault.position}"] += 1
        killed = [fault for fault in self._faults if fault.name.startswith("kill")]
        return Summary(
            machine=machine_facts(data_dir=self._instance.data_dir),
            seed=self._options.seed,
            seconds=round(seconds, 1),
            kills=self._kills,
            faults=dict(Counter(fault.name for fault in self._faults)),
            coverage={edge: dict(counts) for edge, counts in sorted(coverage.items())},
            back_p95_s=_p95([fault.back_after_s for fault in killed if fault.is_hit]),
            paying_p95_s=_p95([fault.paying_after_s for fault in killed]),
            postgres_back_s=[
                round(fault.paying_after_s or PAYING_WITHIN_S, 2) for fault in killed if fault.victim == "postgres"
            ],
            quiet_after_s=round(quiet_after_s, 1),
            verdict=judge(self._history.path),
            broken_rules=[finding for finding in findings if not finding.is_kept],
            stuck=len(stuck),
        )


def _p95(values: list[float | None]) -> float:
    known = sorted(PAYING_WITHIN_S if value is None else value for value in values)
    return round(known[min(len(known) - 1, int(len(known) * 0.95))], 2) if known else 0.0


def _s(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
