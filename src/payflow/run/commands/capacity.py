"""`payflow capacity`: what a rate of payments needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from payflow.run.capacity import Capacity


def capacity(
    payments_per_second: Annotated[
        float, typer.Option("--payments-per-second", "-n", help="In the busiest second.", min=0.01, max=1_000_000)
    ],
    utilization: Annotated[
        float, typer.Option(help="The share of a core that is planned for at the peak.", min=0.05, max=1.0)
    ] = 0.6,
    peak_factor: Annotated[float, typer.Option(help="The busiest second over the day's mean.", min=1.0)] = 3.0,
    database_cores: Annotated[int, typer.Option(help="Cores of one PostgreSQL primary.", min=1)] = 16,
    wal_mb_per_s: Annotated[
        float, typer.Option("--wal-mb-per-s", help="Write-ahead log that one primary and its standby take.", min=1.0)
    ] = 200.0,
    copies_min: Annotated[int, typer.Option(help="Processes of each service at least.", min=1)] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Compute processes, cores, database, brokers and cost drivers from the measured cost of a payment."""
    import msgspec

    from payflow.run.capacity import Wanted, capacity_for, measured_costs

    wanted = Wanted(
        payments_per_s=payments_per_second,
        utilization=utilization,
        peak_factor=peak_factor,
        database_cores=database_cores,
        wal_mb_per_s=wal_mb_per_s,
        copies_min=copies_min,
    )
    costs = measured_costs()
    found = capacity_for(wanted, costs)
    if as_json:
        print(msgspec.json.encode(found).decode())
        return
    _print(found, f"{costs.measured_on}, at {costs.payments_per_s:,.0f} payments/s ({costs.measured_by})")


def _print(found: Capacity, origin: str) -> None:
    from rich.table import Table

    from payflow.run.supervisor.console import make_console

    console = make_console()
    table = Table(title=f"{found.wanted.payments_per_s:,.0f} payments a second", header_style="bold")
    table.add_column("service")
    for name in ("CPU us/payment", "cores used", "processes"):
        table.add_column(name, justify="right")
    for service in found.services:
        table.add_row(service.name, f"{service.cpu_us:,.1f}", f"{service.cores:,.2f}", f"{service.processes:,}")
    console.print(table)
    database, events, drivers = found.database, found.events, found.drivers[:5]
    shards = "primary" if database.shards == 1 else "primaries (shards)"
    lines = (
        ("PostgreSQL", f"{database.shards:,} {shards}, each with a standby; what decides is {database.because}"),
        ("", f"{database.cores:,.1f} cores, {database.rows_per_s:,} rows/s, {database.wal_mb_per_s:,.1f} MB/s of WAL"),
        ("", f"{database.disk_gb_per_day:,.1f} GB a day (mean day: the peak over {found.wanted.peak_factor:g})"),
        ("Kafka", f"{events.brokers:,} brokers, {events.partitions:,} partitions a topic"),
        ("", f"{events.messages_per_s:,} messages/s, {events.mb_per_s:,.1f} MB/s, three copies of each"),
        ("cores in all", f"{found.cores:,.1f} used, {found.cores / found.wanted.utilization:,.0f} to plan for"),
        ("cost drivers", ", ".join(f"{name} {share:.0%}" for name, share in drivers)),
    )
    for name, words in lines:
        console.print(f"{name:>14}  {words}", markup=False, highlight=False)
    console.print(f"Measured on {origin}. What this leaves out: docs/scaling.md.", markup=False, highlight=False)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(capacity)
