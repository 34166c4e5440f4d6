"""The other bank of a fault run: every payment in is sent until its end is known, and every word of it is noted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from payflow_dev.chaos import incoming
from payflow_dev.chaos.history import History, IncomingCall, read_history
from payflow_dev.chaos.incoming import NOBODYS, OtherBank


@asynccontextmanager
async def a_bank(answers: list[str], asked: list[dict[str, Any]]) -> AsyncIterator[str]:
    """A bank that answers so, one after the other, and then ACCEPTED; at GONE it answers 503."""

    async def pay(request: web.Request) -> web.Response:
        asked.append(await request.json())
        status = answers.pop(0) if answers else "ACCEPTED"
        return web.Response(status=503) if status == "GONE" else web.json_response({"status": status})

    app = web.Application()
    app.router.add_post("/pay", pay)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield site.name
    finally:
        await runner.cleanup()


async def paid(url: str, path: Path, *, seconds: float) -> OtherBank:
    bank = OtherBank(url=url, history=History(path), seed=3)
    tasks = bank.start(["A1", "A2"])
    await asyncio.sleep(seconds)
    bank.is_over = True
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    await bank.close()
    bank._history.close()
    return bank


async def test_what_has_no_end_yet_is_sent_again_under_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incoming, "RETRY_S", 0.01)
    monkeypatch.setattr(incoming, "PAUSE_S", 0.01)
    monkeypatch.setattr(incoming, "PAYERS", 1)
    asked: list[dict[str, Any]] = []

    async with a_bank(["UNKNOWN", "GONE", "UNKNOWN", "GONE", "REJECTED"], asked) as url:
        bank = await paid(url, tmp_path / "history", seconds=0.3)

    calls = [record for record in read_history(tmp_path / "history") if isinstance(record, IncomingCall)]
    assert bank.unsettled() == []
    assert len(calls) == len(asked) > len(bank.payments) > 5
    first = [call.told for call in calls if call.end_to_end_id == bank.payments[0].end_to_end_id]
    assert set(first[:-1]) <= {None, "REJECTED"}
    assert first.count(None) >= 4
    contents = {(call["end_to_end_id"], call["to_account"], call["amount"]) for call in asked}
    assert len(contents) == len({id for id, _, _ in contents}) == len(bank.payments)
    assert {payment.creditor for payment in bank.payments} == {"A1", "A2", NOBODYS}
    assert any(
        len([call for call in calls if call.end_to_end_id == one.end_to_end_id]) == 2 for one in bank.payments[1:]
    )


async def test_what_nobody_has_told_the_end_of_is_not_settled(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    async with a_bank(["UNKNOWN"] * 1000, asked) as url:
        bank = OtherBank(url=url, history=History(tmp_path / "history"), seed=3)
        tasks = bank.start(["A1"])
        await asyncio.sleep(0.3)
        unsettled = bank.unsettled()
        for task in tasks:
            task.cancel()
        await bank.close()

    assert unsettled == [payment.end_to_end_id for payment in bank.payments]
    assert len(unsettled) == incoming.PAYERS
