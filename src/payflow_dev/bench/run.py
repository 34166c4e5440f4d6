"""The story of a bench run: records, pgbench and load in turns, then the money."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Final

import msgspec

from payflow.run.embedded.binaries import postgres_tree
from payflow.run.errors import StartError
from payflow.run.inspection import heap_kb_by_process, pss_kb_by_process
from payflow.run.supervisor.status import InstanceStatus
from payflow_dev.bench import cpu, planned
from payflow_dev.bench.beside import needs_singles, singles_plan
from payflow_dev.bench.database import (
    FLUSHED_AFTER_S,
    Reading,
    TableFigures,
    TablesFigures,
    read_counters,
    read_tables,
    switch_on,
    tables_between,
)
from payflow_dev.bench.display import Display
from payflow_dev.bench.drive import Driven, drive
from payflow_dev.bench.history import grow_history
from payflow_dev.bench.job import Job
from payflow_dev.bench.machine import machine_facts
from payflow_dev.bench.memory import play_memory
from payflow_dev.bench.meter import Meter
from payflow_dev.bench.modes import Plan
from payflow_dev.bench.money import MoneyReport
from payflow_dev.bench.options import Options
from payflow_dev.bench.overload import play_overload
from payflow_dev.bench.pgbench import CLIENTS, Pgbench, PgbenchRun
from payflow_dev.bench.population import FILE_PAYMENTS, Customer, Payment, in_whole_files, make_customers, make_payments
from payflow_dev.bench.records import Tokens, make_records, new_password, sign_in
from payflow_dev.bench.report import Report
from payflow_dev.bench.results import Settings, Step
from payflow_dev.bench.single import payer_of, payments_of_one
from payflow_dev.bench.stats import ratio_to_neighbours
from payflow_dev.bench.steps import step_of, ticker
from payflow_dev.bench.target import Target, owner_url
from payflow_dev.bench.velocity import customers_needed, give_past, groups_of, play_velocity
from payflow_dev.bench.verify import check_money
from payflow_dev.bench.wire import render_heads, render_templates, transaction_id

_PAYMENTS_IN_STREAM: Final = 20_000
_WARM_UP_CONNECTIONS: Final = 16
_SETTLE_S: Final = 20.0
_RESOLVE_S: Final = 30.0
_USUAL: Final = Plan()


class Run:
    """One run on one target."""

    def __init__(self, options: Options, target: Target, display: Display) -> None:
        self._options = options
        self._target = target
        self._display = display
        self._run_id = secrets.token_hex(3)
        self._password = options.payer.password if options.payer else new_password()
        self._customers: list[Customer] = []
        self._stream: list[Payment] = []
        self._tokens = Tokens(values=[], ends_at=0.0)
        self._outcomes = bytearray()
        self._payments: list[Payment] = []
        self._meter: Meter | None = None
        self._history_entries = 0
        self._loader = "bulk" if options.is_bulk else options.loader
        self._read_counters: Callable[[], Reading] | None = None
        self._tables: dict[str, TableFigures] = {}

    def play(self) -> Report:
        """Records, warm-up, the turns, the money."""
        status = self._target.status
        facts = machine_facts(data_dir=status.instance.data_dir if status else None)
        self.prepare()
        self.warm_up()
        report = Report(
            machine=facts,
            settings=self.settings(),
            idle_load=round(self._meter.idle_load, 3) if self._meter else None,
            pgbench_choice=[],
            pgbench=[],
            steps=[],
            money=None,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        report = self._play_mode(report)
        money = self.check_money()
        return msgspec.structs.replace(report, money=money, tables=self._rows_written(money))

    def _play_mode(self, report: Report) -> Report:
        """The turns, or what a further mode does instead."""
        options = self._options
        if options.mode == "memory":
            memory = play_memory(
                self, payments=options.memory_payments, connections=options.connections[0], seconds=options.seconds
            )
            return msgspec.structs.replace(report, memory=memory)
        if options.mode == "velocity":
            steps, velocity = play_velocity(
                self,
                customers=self._customers,
                connections=options.connections,
                payments=options.velocity_payments,
                seed=options.seed,
            )
            return msgspec.structs.replace(report, steps=steps, velocity=velocity)
        choice, runs, steps = self._take_turns(self._pgbench())
        report = msgspec.structs.replace(report, pgbench_choice=choice, pgbench=runs, steps=steps)
        if options.mode == "overload":
            further, overload = play_overload(self, steps)
            return msgspec.structs.replace(report, steps=[*steps, *further], overload=overload)
        return report

    def prepare(self) -> None:
        """Make the records, or take what the user named, sign in, and draw the stream of payments."""
        options, status = self._options, self._target.status
        if status is None:
            assert options.payer is not None
            self._display.phase("signing in")
            self._customers = [Customer("", options.payer.username, "", (options.payer.from_account,))]
            self._sign_in()
            self._customers = [payer_of(options.payer, token=self._tokens.values[0])]
            self._stream = payments_of_one(payer=options.payer, count=_PAYMENTS_IN_STREAM, seed=options.seed)
            return
        pairs = len(options.connections) if options.mode == "velocity" else 0
        count = options.customers + (customers_needed(pairs) if pairs else 0)
        self._customers = make_customers(count=count, run_id=self._run_id, seed=options.seed)
        self._stream = make_payments(
            customers=self._customers,
            count=_PAYMENTS_IN_STREAM,
            seed=options.seed,
            is_hot=options.is_hot,
            inter_bank_share=options.inter_bank_share,
            in_a_row=FILE_PAYMENTS if options.is_bulk else 1,
            payers=range(options.customers),
        )
        self._display.phase("making customers and accounts", planned.RECORDS_S)
        asyncio.run(make_records(instance=status.instance, customers=self._customers, password=self._password))
        self._sign_in()
        if pairs:
            self._give_past(status)
        self._watch_database(status)

    def _give_past(self, status: InstanceStatus) -> None:
        options = self._options
        busy, _ = groups_of(self._customers, pairs=len(options.connections))
        payments = options.velocity_payments
        self._display.phase(f"{payments:,} payments for each of {len(busy)} customers", payments * planned.PAST_S)
        giving = give_past(
            url=owner_url(status),
            customers=[self._customers[place] for place in busy],
            payments=payments,
            tick=self._display.tick,
        )
        asyncio.run(giving)

    def _watch_database(self, status: InstanceStatus) -> None:
        """Make the database's counters readable, and read them for the first time."""
        url = owner_url(status)
        has_statements = asyncio.run(switch_on(url, may_create=self._options.starts_own))
        self._read_counters = lambda: asyncio.run(read_counters(url, with_statements=has_statements))
        self._tables = asyncio.run(read_tables(url, flushed=False))

    def _rows_written(self, money: MoneyReport | None) -> TablesFigures | None:
        status = self._target.status
        # Rows that made a long past are none of the payments'.
        if status is None or money is None or self._options.history:
            return None
        self._display.phase("waiting for the counts of rows", FLUSHED_AFTER_S)
        tables = asyncio.run(read_tables(owner_url(status), flushed=True))
        return tables_between(self._tables, tables, payments=money.acknowledged + money.late_successes)

    def _sign_in(self) -> None:
        usernames = [customer.username for customer in self._customers]
        signed_in = 0

        def on_each() -> None:
            nonlocal signed_in
            signed_in += 1
            self._display.tick(f"{signed_in} of {len(usernames)} signed in")

        signing_in = sign_in(target=self._target, usernames=usernames, password=self._password, on_each=on_each)
        self._tokens = asyncio.run(signing_in)

    def warm_up(self) -> None:
        """Fill caches and pools; these payments count for the money and for nothing else."""
        status = self._target.status
        if status is not None:
            self._meter = Meter(
                target=self._target,
                idle_load=cpu.idle_load(status),
                settle_max_s=_SETTLE_S,
                on_settle=partial(self._display.phase, "letting the events settle", planned.SETTLE_S),
                read_counters=self._read_counters,
            )
        self._display.phase("warming up", planned.WARM_UP_S)
        connections = 1 if self._options.is_bulk else _WARM_UP_CONNECTIONS
        self.load(connections, Plan(seconds=planned.WARM_UP_S))
        if self._singles is not None:
            singles, plan = self._singles
            self.load(singles, replace(plan, seconds=planned.WARM_UP_S))
        if self._meter is not None:
            self._meter.settle()

    def _take_turns(self, pgbench: Pgbench | None) -> tuple[list[PgbenchRun], list[PgbenchRun], list[Step]]:
        """pgbench, load, pgbench, load, pgbench: the choice of clients, the runs between the steps, the steps."""
        if pgbench is None:
            return [], [], [self.step(*planned_step) for _ in self._grow() for planned_step in self._plans()]
        try:
            choice = self._choose_clients(pgbench)
            all_runs: list[PgbenchRun] = []
            all_steps: list[Step] = []
            for _ in self._grow():
                runs, steps = [self._pgbench_run(pgbench, choice[0].clients)], []
                for connections, plan in self._plans():
                    steps.append(self.step(connections, plan))
                    runs.append(self._pgbench_run(pgbench, choice[0].clients))
                all_runs += runs
                all_steps += [_with_ratio(step, runs[place : place + 2]) for place, step in enumerate(steps)]
        finally:
            if not self._options.starts_own:
                asyncio.run(pgbench.drop_database())
        return choice, all_runs, all_steps

    def _plans(self) -> list[tuple[int, Plan]]:
        """The steps, with those around them that they are compared with."""
        plans = [(connections, _USUAL) for connections in self._options.connections]
        return plans if self._singles is None else [self._singles, *plans, self._singles]

    @cached_property
    def _singles(self) -> tuple[int, Plan] | None:
        if not needs_singles(self._options):
            return None
        return singles_plan(self._options, customers=self._customers, count=_PAYMENTS_IN_STREAM)

    def _grow(self) -> Iterator[None]:
        """Come by once for each length that the ledger is to have, and at least once."""
        status = self._target.status
        if not self._options.history or status is None:
            yield
            return
        for entries in self._options.history:
            self._display.phase(f"filling the ledger up to {entries:,} entries", planned.fill_s(entries))
            filling = grow_history(url=owner_url(status), entries=entries, tick=self._display.tick)
            self._history_entries = asyncio.run(filling)
            yield

    def _pgbench(self) -> Pgbench | None:
        status = self._target.status
        if status is None or not self._options.compares:
            return None
        program = postgres_tree() / "pginstall/bin/pgbench"
        if not program.is_file():
            raise StartError("There is no pgbench beside the embedded PostgreSQL: run with --no-pgbench.")
        return Pgbench(program=program, owner_url=owner_url(status), tick=self._display.tick)

    def _choose_clients(self, pgbench: Pgbench) -> list[PgbenchRun]:
        self._display.phase("making pgbench's tables", planned.INITIALISE_S)
        asyncio.run(pgbench.create_database())
        pgbench.initialise()
        self._display.phase("pgbench with 8, 16, 32 clients", len(CLIENTS) * planned.choice_s(self._options))
        return pgbench.best(seconds=planned.choice_s(self._options))

    def _pgbench_run(self, pgbench: Pgbench, clients: int) -> PgbenchRun:
        self._display.phase("pgbench", self._options.seconds)
        return pgbench.run(clients=clients, seconds=self._options.seconds)

    def load(self, connections: int, plan: Plan) -> Driven:
        """Drive payments; remembers what was sent for the check at the end."""
        seconds = self._options.seconds if plan.seconds is None else plan.seconds
        stream = self._stream if plan.stream is None else plan.stream
        loader = plan.loader or self._loader
        if loader == "bulk":
            stream = in_whole_files(stream, first=len(self._outcomes))
        if not self._tokens.are_good_for(seconds):
            self._sign_in()
        id_length = len(transaction_id(run_id=self._run_id, number=0))
        job = Job(
            host=self._target.host,
            port=self._target.port,
            connections=connections,
            seconds=seconds,
            run_id=self._run_id,
            first=len(self._outcomes),
            heads=render_heads(authority=self._target.authority, tokens=self._tokens.values),
            templates=render_templates(payments=stream, customers=self._customers, id_length=id_length),
            offered_per_s=plan.offered_per_s,
            normal_ms=plan.normal_ms,
        )
        driven = drive(job=job, loader=loader, tick=ticker(plan, self._display.tick))
        numbers = range(job.first, job.first + len(driven.load.outcomes))
        self._payments += [stream[number % len(stream)] for number in numbers]
        self._outcomes += driven.load.outcomes
        return driven

    def step(self, connections: int, plan: Plan) -> Step:
        """Drive and measure one step (see Bench)."""
        seconds = self._options.seconds if plan.seconds is None else plan.seconds
        what = "files at once" if (plan.loader or self._loader) == "bulk" else "connections"
        self._display.phase(f"load, {connections} {what} {plan.group}".rstrip(), seconds)
        work = partial(self.load, connections, plan)
        if self._meter is None:
            return step_of(connections, work(), None)
        measured = self._meter.measure(work)
        step = step_of(connections, measured.driven, measured)
        return msgspec.structs.replace(step, history_entries=self._history_entries, group=plan.group)

    def memory(self) -> dict[str, int]:
        """Memory of each process now, in KiB (see Bench)."""
        status = self._target.refreshed()
        return pss_kb_by_process(status) if status else {}

    def heap(self) -> dict[str, int]:
        """What each process has written itself, in KiB (see Bench)."""
        status = self._target.refreshed()
        return heap_kb_by_process(status) if status else {}

    def say(self, what: str, seconds: float) -> None:
        """A phase for the display (see Bench)."""
        self._display.phase(what, seconds)

    def check_money(self) -> MoneyReport | None:
        status = self._target.refreshed()
        if status is None:
            return None
        self._display.phase("checking the money")
        return check_money(
            status=status,
            run_id=self._run_id,
            customers=self._customers,
            payments=self._payments,
            outcomes=bytes(self._outcomes),
            seconds_max=_RESOLVE_S,
            tick=self._display.tick,
        )

    def settings(self) -> Settings:
        options = self._options
        return Settings(
            seconds=options.seconds,
            connections=options.connections,
            history=options.history,
            customers=len(self._customers),
            accounts=sum(len(customer.accounts) for customer in self._customers),
            is_hot=options.is_hot,
            inter_bank_share=options.inter_bank_share,
            seed=options.seed,
            loader=self._loader,
            run_id=self._run_id,
            mode=options.mode,
        )


def _with_ratio(step: Step, neighbours: list[PgbenchRun]) -> Step:
    tps = [run.tps for run in neighbours]
    ratio = ratio_to_neighbours(payments_per_s=step.payments_per_s, neighbours_tps=tps)
    return msgspec.structs.replace(step, neighbours_tps=tps, ratio=ratio)
