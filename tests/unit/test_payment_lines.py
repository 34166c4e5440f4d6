"""One payment's lines out of the logs of all services."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from payflow.run.errors import StartError
from payflow.run.main import build_app
from payflow.run.payment_lines import PaymentLines

OURS, OTHERS = "01a220bd-8c52-72f3-a161-aec1d60ab3a0", "01a220bd-ffff-72f3-a161-aec1d60ab3a0"
TRACE, BATCH_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"


def line(at: int, process: str, message: str, **fields: object) -> str:
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return json.dumps({"@timestamp": f"{at:04d}", "message": message, "service.node.name": process, **named})


# As the processes write them: kyc before risk before confirm, since each writes when it has answered.
LINES = [
    line(1, "account", "call.answered", trace__id=BATCH_TRACE, payflow__operation="account.resolve", payflow__items=2),
    line(2, "kyc", "call.answered", trace__id=BATCH_TRACE, payflow__operation="kyc.check", payflow__items=2),
    line(3, "risk", "call.answered", trace__id=BATCH_TRACE, payflow__payment_ids=[OTHERS, OURS]),
    line(4, "confirm", "payment.ended", trace__id=TRACE, payflow__payment_id=OURS, payflow__transaction_id="txn_1"),
    line(
        4, "confirm", "payment.ended", trace__id=BATCH_TRACE, payflow__payment_id=OTHERS, payflow__transaction_id="t2"
    ),
    line(5, "confirm", "call.answered", trace__id=BATCH_TRACE, payflow__payment_ids=[OTHERS, OURS]),
    line(6, "otp", "call.answered", trace__id=BATCH_TRACE, payflow__payment_ids=[OTHERS]),
    line(7, "gateway-1", "call.made", trace__id=BATCH_TRACE, payflow__payment_ids=[OTHERS, OURS]),
    line(8, "audit", "events.handled", trace__id="ffff", payflow__payment_ids=[OURS]),
    line(9, "gateway-1", "request_refused", trace__id="eeee"),
    "postgres: not JSON, though it names " + OURS,
]
ITS = ["account", "kyc", "risk", "confirm", "confirm", "gateway-1", "audit"]


@pytest.mark.parametrize("id", [OURS, "txn_1", TRACE])
def test_every_service_that_had_a_part_in_it_is_told_whatever_id_is_known(id: str) -> None:
    told = PaymentLines(id).take(LINES)

    assert [one.process for one in told] == ITS
    assert not [one for one in told if OTHERS in one.line and OURS not in one.line]


@pytest.mark.parametrize("id", [OURS, "txn_1", TRACE])
def test_lines_that_come_one_by_one_are_all_told_once(id: str) -> None:
    wanted = PaymentLines(id)

    told = [one for text in LINES for one in wanted.take([text])]

    assert sorted(one.line for one in told) == sorted(one.line for one in PaymentLines(id).take(LINES))


def test_a_payment_that_nobody_knows_has_no_lines() -> None:
    assert PaymentLines("txn_unknown").take(LINES) == []


def test_the_verb_shows_them_by_time_with_the_process_in_front(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for process in {json.loads(text)["service.node.name"] for text in LINES[:-1]}:
        own = [text for text in LINES[:-1] if json.loads(text)["service.node.name"] == process]
        # Some of it is in the file that was put aside.
        (logs / f"{process}.log.1").write_text("".join(f"{text}\n" for text in own[:1]))
        (logs / f"{process}.log").write_text("".join(f"{text}\n" for text in own[1:]))
    (logs / "postgres.log").write_text(f"{LINES[-1]}\n")

    whole = CliRunner().invoke(build_app(["logs"]), ["logs", "--payment", "txn_1", "--data-dir", str(tmp_path)])
    last = CliRunner().invoke(
        build_app(["logs"]), ["logs", "--payment", "txn_1", "-n", "1", "--data-dir", str(tmp_path)]
    )

    assert [text.split("|")[0].strip() for text in whole.output.splitlines()] == ITS
    assert [text.split("|")[0].strip() for text in last.output.splitlines()] == ["audit"]


def test_the_verb_says_when_no_line_names_it(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "confirm.log").write_text("".join(f"{text}\n" for text in LINES))
    asked = ["logs", "--payment", "nosuch", "--data-dir", str(tmp_path)]

    done = CliRunner().invoke(build_app(["logs"]), asked)
    none_wanted = CliRunner().invoke(build_app(["logs"]), ["logs", "--payment", "txn_1", "-n", "0", *asked[3:]])

    assert isinstance(done.exception, StartError)
    assert done.output == ""
    assert done.exception.exit_code == 1
    assert done.exception.message.startswith("No line names nosuch")
    assert "transaction_id, a payment_id or a trace_id" in done.exception.message
    assert "refused for their rate" in done.exception.message
    assert (none_wanted.exit_code, none_wanted.output) == (0, "")
