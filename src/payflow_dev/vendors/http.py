"""A stand-in that is called over HTTP: its moods, and the addresses with which its play is directed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web

from payflow_dev.vendors.desk import Control, Desk, Mood

SILENCE_S: Final = 60.0
_CALLBACK_TIMEOUT_S: Final = 10.0
_encode: Final = msgspec.json.Encoder().encode
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpVendorServer(ABC):
    """A vendor's API on a port of this machine. `undisturbed`: addresses that no mood touches."""

    undisturbed: frozenset[str] = frozenset({"/control", "/messages"})

    def __init__(self) -> None:
        self.desk = Desk()
        self.port = 0
        self.callback_answers: list[int] = []
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        """Its base address."""
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def routes(self) -> list[web.RouteDef]:
        """The vendor's own addresses."""

    @abstractmethod
    def refusal(self, mood: Mood) -> web.Response:
        """The vendor's words for BUSY, OUT and LOCKED."""

    async def start(self, port: int = 0) -> None:
        """Listen; the system chooses the port where none is given."""

        @web.middleware
        async def behave(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._behave(request, handler)

        app = web.Application(middlewares=[behave])
        app.add_routes(
            [
                *self.routes(),
                web.get("/control", self._get_control),
                web.put("/control", self._put_control),
                web.get("/messages", self._get_messages),
            ]
        )
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_CALLBACK_TIMEOUT_S))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port or self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening, and every callback that is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def callbacks_done(self) -> None:
        """Wait until all that is to be called back has been."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something after the answer."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def call_back(self, url: str, *, body: bytes, headers: dict[str, str]) -> None:
        """POST to a customer of the vendor's; what it answered is noted, and nothing is tried again."""
        assert self._session is not None
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                self.callback_answers.append(response.status)
        except (aiohttp.ClientError, TimeoutError):
            self.callback_answers.append(0)

    async def _behave(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in self.undisturbed:
            return await handler(request)
        mood = self.desk.mood()
        if mood is Mood.SILENT:
            await asyncio.sleep(SILENCE_S)
        if mood in (Mood.BUSY, Mood.OUT, Mood.LOCKED):
            response: web.StreamResponse = self.refusal(mood)
        else:
            response = await handler(request)
        await asyncio.sleep(self.desk.control.delay_s)
        if mood is Mood.GARBAGE:
            return web.Response(status=200, body=b"<html>we will call you", content_type="text/html")
        if mood is Mood.CUT and request.transport is not None:
            request.transport.abort()
        return response

    def retry_headers(self) -> dict[str, str]:
        """Retry-After, where the play asks for it."""
        wait_s = self.desk.control.retry_after_s
        return {} if wait_s is None else {"Retry-After": str(wait_s)}

    async def _get_control(self, request: web.Request) -> web.Response:
        return json_answer(200, self.desk.control)

    async def _put_control(self, request: web.Request) -> web.Response:
        try:
            self.desk.control = msgspec.json.decode(await request.read(), type=Control)
        except msgspec.DecodeError as error:
            return json_answer(400, {"message": str(error)})
        return json_answer(200, self.desk.control)

    async def _get_messages(self, request: web.Request) -> web.Response:
        return json_answer(200, self.desk.taken)


def json_answer(status: int, content: Any, headers: dict[str, str] | None = None) -> web.Response:
    """An answer of JSON."""
    return web.Response(status=status, body=_encode(content), content_type="application/json", headers=headers)
