"""`payflow bench`: how many payments a second, at what CPU, and is the money right afterwards?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from payflow.run.errors import StartError


def bench(
    seconds: Annotated[float, typer.Option(help="How long each step lasts.")] = 10.0,
    connections: Annotated[
        str | None,
        typer.Option(
            help="The steps: connections, each with one payment under way (1,16,64,256); files at once (1,2,4)."
        ),
    ] = None,
    history: Annotated[
        str | None,
        typer.Option(help="Fill the ledger up to so many entries and repeat the steps, such as 1000000,10000000."),
    ] = None,
    bulk: Annotated[bool, typer.Option("--bulk", help="Payments in files by POST /payments/bulk.")] = False,
    overload: Annotated[bool, typer.Option("--overload", help="Then offer 4 times the best rate.")] = False,
    memory: Annotated[
        int | None, typer.Option(min=1, help="Make so many payments (500000) and see whether any process grows.")
    ] = None,
    velocity: Annotated[
        int | None,
        typer.Option(min=1, help="Customers with so many payments in the last 24 h (100000) beside ones with none."),
    ] = None,
    stack: Annotated[
        bool,
        typer.Option("--stack", help="Beside each other: events in PostgreSQL or Kafka, telemetry on or off."),
    ] = False,
    hot: Annotated[bool, typer.Option("--hot", help="One account pays for everything.")] = False,
    inter_bank: Annotated[float, typer.Option(help="The share that goes to other banks, 0 to 1.")] = 0.0,
    customers: Annotated[int, typer.Option(help="How many customers, each with two accounts.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the payments: the same seed, the same payments.")] = 1,
    loader: Annotated[
        Literal["auto", "own", "wrk"], typer.Option(help="What makes the load; auto: wrk where it is installed.")
    ] = "auto",
    pgbench: Annotated[bool, typer.Option("--pgbench/--no-pgbench", help="Compare with pgbench TPC-B.")] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the bench's own instance running.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Drive the instance that runs on this directory; customers are added to it.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Drive this address on loopback; without --data-dir the ledger is not checked.")
    ] = None,
    username: Annotated[str | None, typer.Option(help="With --url alone: the customer's user name.")] = None,
    password: Annotated[str | None, typer.Option(help="With --url alone: its password.")] = None,
    from_account: Annotated[str | None, typer.Option(help="With --url alone: the account that pays.")] = None,
    to_account: Annotated[str | None, typer.Option(help="With --url alone: the account that is paid.")] = None,
) -> None:
    """Measure payments on an instance of its own, beside pgbench on the same PostgreSQL, and check the money."""
    try:
        from payflow_dev.bench.options import (
            Options,
            choose_loader,
            default_connections,
            parse_connections,
            parse_history,
            payer_from,
        )
        from payflow_dev.bench.start import run_bench
        from payflow_dev.bench.wrk import find_wrk
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("payflow_dev"):
            raise
        raise StartError("The bench is part of the repository: run it from a clone of it.") from None
    steps = connections or default_connections(
        is_bulk=bulk, is_overload=overload, memory=memory, velocity=velocity, is_stack=stack
    )
    options = Options(
        seconds=seconds,
        connections=parse_connections(steps),
        history=parse_history(history),
        customers=customers,
        is_hot=hot,
        is_bulk=bulk,
        is_overload=overload,
        memory_payments=memory or 0,
        velocity_payments=velocity or 0,
        is_stack=stack,
        inter_bank_share=inter_bank,
        seed=seed,
        loader=choose_loader("own" if (overload or stack) and loader == "auto" else loader, wrk=find_wrk()),
        with_pgbench=pgbench,
        keeps_instance=keep,
        json_file=json_file,
        url=url,
        data_dir=data_dir,
        payer=payer_from(username=username, password=password, from_account=from_account, to_account=to_account),
    )
    raise typer.Exit(run_bench(options))


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(bench)
