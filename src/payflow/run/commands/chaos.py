"""`payflow chaos`: payments under faults, and a judge of what is left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from payflow.run.errors import StartError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from payflow_dev.chaos.judge import Verdict
    from payflow_dev.chaos.summary import Summary


OTHERS = ("cut", "reset", "truncate", "delay", "overtaken", "reply-lost")
POSITIONS = (
    "before_delivery",
    "half_a_request",
    "after_delivery",
    "half_an_answer",
    "after_answer",
    "late_delivery",
)
MODEL = "model"
SCENES = "killed-after-answer, clients-gone, more-requests-than-connections, overload, crossing-bulks"


def chaos(
    seed: Annotated[int, typer.Option(help="Of the faults and payments.")] = 1,
    kills: Annotated[int, typer.Option(help="Go on until so many processes were killed ...", min=0)] = 100,
    payments: Annotated[int, typer.Option(help="... and so many payments were acknowledged.", min=0)] = 5000,
    faults: Annotated[int | None, typer.Option(help="Instead: so many faults.", min=1)] = None,
    customers: Annotated[int, typer.Option(help="How many customers pay.", min=8)] = 64,
    without: Annotated[
        list[str] | None, typer.Option(help="Excuse what cannot be done here: disk-full, clock-shift, model.")
    ] = None,
    scene: Annotated[str | None, typer.Option(help=f"Instead: one scene ({SCENES}), or all.")] = None,
    self_test: Annotated[bool, typer.Option("--self-test", help="Instead: plant bugs, and find each.")] = False,
    bug: Annotated[str | None, typer.Option(help="With --self-test: only this one.")] = None,
    history: Annotated[
        Path | None, typer.Option(help="Where the history goes; default: chaos-SEED.jsonl here.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary to this file.")] = None,
    only_judge: Annotated[bool, typer.Option("--judge", help="Only judge the file that --history names.")] = False,
    shown: Annotated[Path | None, typer.Option("--show", help="Only show a summary that was kept with --json.")] = None,
) -> None:
    """Run payments under faults on an instance of its own: kills and lost answers on every edge of a payment's way."""
    try:
        import payflow_dev.chaos.plan as plan
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("payflow_dev"):
            raise
        raise StartError("Fault runs are part of the repository: run them from a clone of it.") from None
    excused = tuple(without or ())
    if unknown := [name for name in excused if name not in (*plan.OPTIONAL, MODEL)]:
        raise StartError(f"--without {unknown[0]}: choose of {', '.join((*plan.OPTIONAL, MODEL))}.")
    if only_judge:
        is_good = _judge(history)
    elif shown is not None:
        is_good = _show(shown)
    elif scene is not None:
        is_good = _play_scenes(scene, seed=seed, json_file=json_file)
    elif self_test:
        is_good = _test_the_judge(bug, seed=seed, json_file=json_file)
    else:
        from payflow_dev.chaos.run import Options, run_chaos

        options = Options(
            seed=seed,
            kills=kills,
            payments=payments,
            faults_max=faults,
            customers=customers,
            without=tuple(name for name in excused if name != MODEL),
            is_held_against_model=MODEL not in excused,
            history=history,
        )
        summary = run_chaos(options)
        _write(summary, json_file)
        _print(summary)
        is_good = summary.is_good
    raise typer.Exit(0 if is_good else 1)


def _judge(history: Path | None) -> bool:
    import msgspec

    from payflow_dev.chaos.judge import judge

    if history is None:
        raise StartError("--judge needs --history FILE.")
    verdict = judge(history)
    print(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode())
    return verdict.is_good


def _show(kept: Path) -> bool:
    import msgspec

    from payflow_dev.chaos.summary import Summary

    try:
        summary = msgspec.json.decode(kept.read_bytes(), type=Summary)
    except (OSError, msgspec.DecodeError) as error:
        raise StartError(f"--show {kept}: {error}") from None
    _print(summary)
    return summary.is_good


def _play_scenes(name: str, *, seed: int, json_file: Path | None) -> bool:
    from payflow_dev.chaos.scenes import SCENES, play

    if name != "all" and name not in SCENES:
        raise StartError(f"There is no scene {name}: choose of {', '.join(SCENES)}, or all.")
    results = play(list(SCENES) if name == "all" else [name], seed=seed)
    _write(results, json_file)
    table = _table("scenes", ("scene", "figure", "payments", "outcome"))
    for result in results:
        outcome = "passed" if result.is_good else "FAILED: " + "; ".join(result.problems)
        table.add_row(result.scene, result.figure, f"{result.acknowledged:,}", outcome)
    _console().print(table)
    return all(result.is_good for result in results)


def _test_the_judge(bug: str | None, *, seed: int, json_file: Path | None) -> bool:
    from payflow_dev.chaos.bugs import BUGS
    from payflow_dev.chaos.selftest import find_bugs

    if bug is not None and bug not in BUGS:
        raise StartError(f"There is no bug {bug}: choose of {', '.join(BUGS)}.")
    results = find_bugs([bug] if bug else [*BUGS], seed=seed)
    _write(results, json_file)
    table = _table("planted bugs", ("bug", "outcome", "found by", "seconds"))
    for result in results:
        outcome = "as expected" if result.is_as_expected else "NOT AS EXPECTED"
        table.add_row(result.bug, outcome, ", ".join(result.objections) or "-", f"{result.seconds:.0f}")
    _console().print(table)
    return all(result.is_as_expected for result in results)


def _write(outcome: Any, json_file: Path | None) -> None:
    import msgspec

    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(outcome), indent=2) + b"\n")


def _console() -> Console:
    from payflow.run.supervisor.console import make_console

    return make_console()


def _table(title: str, columns: Sequence[str]) -> Table:
    from rich.table import Table

    table = Table(header_style="bold", title=title)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == columns[0])
    return table


def _print(summary: Summary) -> None:
    console = _console()
    table = _table(
        "coverage: caller killed / callee killed / cut, reset, truncated, delayed, reply lost",
        ("edge", *(position.replace("_", " ") for position in POSITIONS)),
    )
    whole = []
    for edge, counts in summary.coverage.items():
        if "->" in edge:
            table.add_row(edge, *(_cell(counts, position) for position in POSITIONS))
        else:
            whole.append(f"{edge}: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    console.print(table)
    console.print("; ".join(whole))
    verdict = summary.verdict
    console.print(_kinds(verdict))
    console.print(
        f"{summary.kills} kills, {sum(summary.faults.values())} faults, {verdict.acknowledged:,} payments acknowledged,"
        f" {verdict.refused:,} refused, {verdict.unknown:,} calls without a word; in {summary.seconds:.0f} s"
    )
    for limit in summary.limits:
        console.print(limit.words, style=None if limit.is_met else "red")
    for violation in verdict.violations:
        console.print(violation, style="red")
    for finding in summary.broken_rules:
        console.print(f"broken: {finding.words}: {', '.join(finding.examples)}", style="red")
    for refused in summary.model.violations:
        console.print(f"{refused.count} x {refused.what}: {', '.join(refused.payment_ids)}", style="red")
    console.print(summary.model.words, style="yellow" if summary.model.not_checked else None)
    problems = [*(f"{rule} ({count})" for rule, count in verdict.by_rule.items()), *summary.problems]
    problems += [f"{len(summary.broken_rules)} rules broken"] if summary.broken_rules else []
    console.print(
        "Nothing was lost, doubled, made up or left open, and all was well again in time."
        if summary.is_good
        else f"The run failed: {'; '.join(problems)}.",
        style="green" if summary.is_good else "bold red",
    )


def _kinds(verdict: Verdict) -> Table:
    columns = ("kind", "invoked", "acknowledged", "refused", "without a word")
    table = _table("what was asked: a payment is invoked again until it has its final answer", columns)
    for kind, tally in verdict.kinds.items():
        counts = (tally.invoked, tally.acknowledged, tally.refused, tally.unknown)
        table.add_row(kind, *(f"{count:,}" for count in counts))
    return table


def _cell(counts: dict[str, int], position: str) -> str:
    def of(*names: str) -> int:
        return sum(counts.get(f"{name} {position}", 0) for name in names)

    return f"{of('kill-caller')} / {of('kill-callee')} / {of(*OTHERS)}"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(chaos)
