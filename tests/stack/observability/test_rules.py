"""Prometheus's own tool checks what ships: the configuration, the rules, and what must raise each alert."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml

from tests.support.programs import require_program
from tests.support.prometheus import FOLDER
from tests.support.servers import ROOT

TESTS = ("alerts_test.yml", "alerts_days_test.yml")


def promtool(*arguments: str) -> str:
    """What the tool says; it must be content."""
    program = require_program("promtool", package="prometheus")
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> dict[str, dict[str, object]]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"] if "alert" in rule}


def records() -> list[str]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    return [rule["record"] for group in document["groups"] for rule in group["rules"] if "record" in rule]


def test_the_configuration_and_the_rules_are_what_prometheus_reads() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert f"{len(alerts()) + len(records())} rules found" in promtool("check", "rules", "alerts.yml")


@pytest.mark.parametrize("tests", TESTS)
def test_each_alert_is_raised_by_what_should_raise_it(tests: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", tests)


def test_every_alert_has_a_test_that_raises_it() -> None:
    documents = [yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in TESTS]
    raised = {
        expected["alertname"]
        for document in documents
        for test in document["tests"]
        for expected in test["alert_rule_test"]
        if expected["exp_alerts"]
    }

    assert raised == set(alerts())


def test_every_alert_says_where_it_is_written_what_to_do() -> None:
    for name, rule in alerts().items():
        page, _, anchor = str(rule["annotations"]["runbook"]).partition("#")  # type: ignore[index]
        text = (ROOT / page).read_text(encoding="utf-8")
        headings = {
            re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert anchor in headings, (name, headings)
        assert rule["labels"]["severity"] in ("page", "ticket")  # type: ignore[index]
