"""A customer of a fault run goes on asking while nobody answers, and says so where that does not help."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from payflow_dev.chaos.wire import Wire

REFUSALS = 150


class Server:
    """Refuses so many requests, and answers the next one."""

    def __init__(self) -> None:
        self.refusals_left = REFUSALS

    async def answer(self, _: web.Request) -> web.Response:
        if self.refusals_left:
            self.refusals_left -= 1
            return web.json_response({"error": "SERVICE_UNAVAILABLE"}, status=503)
        return web.json_response({"status": "COMPLETED"})


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_get("/file", Server().answer)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


async def test_a_read_is_repeated_for_as_long_as_it_is_refused(url: str) -> None:
    wire = Wire(read_within_s=60, read_again_s=0.001)
    wire.open()
    try:
        assert await wire.read(f"{url}file", token="t") == {"status": "COMPLETED"}
        assert await wire.read(f"{url}nothing", token="t") is None
    finally:
        await wire.close()


async def test_a_read_that_is_never_answered_is_given_up_and_named(url: str) -> None:
    wire = Wire(read_within_s=0.02, read_again_s=0.01)
    wire.open()
    try:
        with pytest.raises(TimeoutError, match=r"/file was not answered within 0\.02 s"):
            await wire.read(f"{url}file", token="t")
    finally:
        await wire.close()
