"""Histories of payments read out of a real database, as the fault runs hold them against the model."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import msgspec

from payflow_dev.chaos.model import hold_against_model
from payflow_dev.spec.histories import History
from payflow_dev.spec.recording import record_histories
from tests.builders import new_id
from tests.builders_invariants import A_HOLD, AN_INSTRUCTION, PAYMENT, RETURN, RETURNED, WHOLE


def read(file: Path) -> dict[str, History]:
    histories = [msgspec.json.decode(line, type=History) for line in file.read_bytes().splitlines()]
    return {history.payment_id: history for history in histories}


async def test_what_three_services_know_of_a_payment_is_one_history_and_what_has_another_protocol_is_left_out(
    database_url: str, tmp_path: Path, monkeypatch
) -> None:
    file, stray, incoming = tmp_path / "payments.jsonl", new_id(), new_id()
    owner = await asyncpg.connect(database_url)
    await owner.execute(WHOLE)
    await owner.execute(A_HOLD % ("CAPTURED", "now()"))
    await owner.execute(AN_INSTRUCTION % ("OUTGOING", "UNKNOWN"))
    await owner.execute((AN_INSTRUCTION % ("INCOMING", "REJECTED")).replace(str(PAYMENT), str(incoming)))
    await owner.execute(RETURNED)
    for payment_id in (stray, RETURN, incoming):
        await owner.execute(
            "INSERT INTO account.refused_command (payment_id, step, code, detail, fencing_token, refused_at) "
            "VALUES ($1, 'hold', 'X', '', 1, now())",
            payment_id,
        )
    await owner.close()

    count = await record_histories(database_url=database_url, path=file)

    found = read(file)
    paid, unknown = found[str(PAYMENT)], found[str(stray)]
    assert count == len(found) == 2, (
        "returns and incoming money have protocols of their own, which the model does not have"
    )
    assert [(move.version, move.source, move.target) for move in paid.moves] == [
        (1, None, "RECEIVED"),
        (2, "RECEIVED", "APPROVED"),
        (3, "APPROVED", "COMPLETED"),
    ]
    assert (paid.is_on_us, paid.is_for_later, paid.effects, paid.fencing_token) == (True, False, 1, 1)
    assert (paid.hold, paid.instruction, paid.refused) == ("CAPTURED", "UNKNOWN", [])
    assert (unknown.moves, unknown.refused, unknown.fencing_token) == ([], ["hold"], None)

    monkeypatch.setenv("PATH", str(tmp_path))
    verdict = await hold_against_model(database_url=database_url, path=file)

    assert verdict.words.startswith("not checked: 2 recorded payments against the model (java is not installed")
