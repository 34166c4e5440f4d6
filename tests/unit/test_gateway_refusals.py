"""A refusal tells its trace id, and the log has a line by that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes_gateway import GatewayWorld


@pytest.fixture
def world(tmp_path: Path) -> GatewayWorld:
    return GatewayWorld(tmp_path / "keys")


@pytest.mark.parametrize(
    ("method", "path", "error"),
    [
        ("GET", "/nowhere", "NOT_FOUND"),
        ("GET", "/accounts?foo=1", "MALFORMED_REQUEST"),
        ("PUT", "/accounts", "METHOD_NOT_ALLOWED"),
    ],
)
async def test_the_trace_id_of_a_refusal_finds_it_in_the_log(
    world: GatewayWorld, capsys: pytest.CaptureFixture[str], method: str, path: str, error: str
) -> None:
    reply = await world.client.send(method, path, token=await world.token())

    lines = [line for line in capsys.readouterr().out.splitlines() if reply.json["trace_id"] in line]
    assert reply.json["error"] == error
    assert len(lines) == 1
    assert "request_refused" in lines[0]
    assert error in lines[0]


async def test_what_was_refused_without_a_token_is_found_too(
    world: GatewayWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    reply = await world.client.send("GET", "/accounts")

    assert (reply.status, reply.json["error"]) == (401, "ACCESS_TOKEN_REQUIRED")
    assert reply.json["trace_id"] in capsys.readouterr().out
