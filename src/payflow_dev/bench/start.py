"""A bench run from its options to its exit code."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import msgspec

from payflow.run.supervisor.console import make_console
from payflow_dev.bench.display import Display, print_report
from payflow_dev.bench.options import Options, check
from payflow_dev.bench.planned import START_S, planned_s
from payflow_dev.bench.report import Report
from payflow_dev.bench.run import Run
from payflow_dev.bench.stack import play_stack
from payflow_dev.bench.target import Target, own_target, running_target


def run_bench(options: Options) -> int:
    """Run it all and print the report; returns the exit code: 1 when money is wrong or nothing was acknowledged.

    Raises StartError for what the user can mend.
    """
    check(options)
    with Display(make_console()) as display:
        display.plan(planned_s(options))
        report = play_stack(options, display) if options.mode == "stack" else _play_one(options, display)
    print_report(display.console, report)
    if options.json_file is not None:
        options.json_file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    is_money_right = report.money is None or report.money.is_right
    return 0 if is_money_right and report.has_acknowledged else 1


def _play_one(options: Options, display: Display) -> Report:
    with _target(options, display) as target:
        report = Run(options, target, display).play()
        if options.keeps_instance and target.status:
            display.tell(f"The instance goes on at {target.status.public_url}, data in {target.status.data_dir}.")
        return report


def _target(options: Options, display: Display) -> AbstractContextManager[Target]:
    if not options.starts_own:
        return nullcontext(running_target(data_dir=options.data_dir, url=options.url))
    display.phase("starting an instance", START_S)
    return own_target(keeps=options.keeps_instance)
