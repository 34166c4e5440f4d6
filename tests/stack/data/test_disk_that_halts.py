"""A disk that does not answer for some seconds: nobody is killed for waiting, and nobody's request is cut off."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.support.api import Answer, Api
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.system import RELAXED, System, running_system

# Longer than a process may be silent that could answer.
HALTED_S = 9


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    # Not pytest's own folder: where the tests are root's, the database server runs as a user who may not look into it.
    folder = Path(tempfile.mkdtemp(prefix="pf-disk-", dir="/var/tmp"))
    folder.chmod(0o755)
    with small_disk(folder, size_bytes=2 * 2**30) as disk:
        yield disk
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def system(disk: SmallDisk) -> Iterator[System]:
    with running_system(inside=disk.mountpoint, **RELAXED) as system:
        yield system


async def sign_in_on(api: Api, is_over: asyncio.Event) -> list[Answer]:
    """Sign in again and again as somebody who is nobody, each refused and told of in the log."""
    answers = []
    while not is_over.is_set():
        answers.append(await api.login("nobody", "Not-a-password-1"))
        await asyncio.sleep(0.1)
    return answers


async def test_a_disk_that_stands_still_gets_nobody_killed_and_cuts_no_request_off(
    system: System, disk: SmallDisk
) -> None:
    is_over = asyncio.Event()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        apis = [Api(session, url) for url in system.gateway_urls for _ in range(4)]
        work = [asyncio.create_task(sign_in_on(api, is_over)) for api in apis]
        await asyncio.sleep(1)
        with disk.standing_still():
            await asyncio.sleep(HALTED_S)
        await asyncio.sleep(2)
        is_over.set()
        answers = [answer for answers in await asyncio.gather(*work) for answer in answers]
        last = await apis[0].login("nobody", "Not-a-password-1")

    assert {answer.status for answer in answers} <= {401, 429, 503}
    assert last.status in (401, 429)
    assert "did not answer" not in (system.instance.logs_dir / "supervisor.log").read_text(encoding="utf-8")
    assert all(process["restarts"] == 0 for process in system.processes().values())
