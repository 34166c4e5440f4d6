"""A picture of Prometheus' own page of alerts, by Chromium: only what fires is left on it, and one alert is opened."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.ports import free_ports

_OPTIONS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
_WIDTH: Final = 1000
# What a person would do with the page: hide what is quiet, which it remembers, and click on the alert.
_HIDE: Final = "localStorage.hideInactiveAlerts = localStorage.hidePendingAlerts = 'true'; location.reload()"
_IS_THERE: Final = "document.readyState === 'complete' && !!window.$ && !$('#inactiveAlerts').parent().is('.active')"
_OPEN: Final = """
$('tr.alert_header:visible').filter((_, row) => row.innerText.includes('%s')).click();
$('#alertsTable > tbody > tr').not('.alert, .alert_details').filter(
  (_, row) => !$(row).nextUntil('tr:not(.alert, .alert_details)').filter('.alert:visible').length).hide();
Math.ceil(document.querySelector('#alertsTable').getBoundingClientRect().bottom) + 16
"""


def take(url: str, path: Path, *, alert: str) -> None:
    """Write the picture as PNG. Raises AssertionError where Chromium is not installed or does not get there."""
    chromium = shutil.which("chromium")
    assert chromium is not None, "Chromium is not installed (Debian: apt-get install chromium)"
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        options = (*_OPTIONS, f"--user-data-dir={folder}", f"--remote-debugging-port={port}")
        browser = subprocess.Popen([chromium, *options, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            path.write_bytes(asyncio.run(_screenshot(port, alert)))
        finally:
            browser.terminate()
            browser.wait(20)


async def _screenshot(port: int, alert: str) -> bytes:
    address = await asyncio.to_thread(_page, port)
    async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
        numbers = iter(range(1, 100))

        async def call(method: str, **parameters: Any) -> Any:
            number = next(numbers)
            await socket.send_json({"id": number, "method": method, "params": parameters})
            while True:
                answer = await socket.receive_json(timeout=60)
                if answer.get("id") == number:
                    return answer["result"]

        shape = {"width": _WIDTH, "deviceScaleFactor": 1, "mobile": False}
        await call("Emulation.setDeviceMetricsOverride", height=800, **shape)
        await call("Runtime.evaluate", expression=_HIDE)
        for _ in range(60):
            await asyncio.sleep(0.5)
            found = await call("Runtime.evaluate", expression=_IS_THERE)
            if found["result"].get("value"):
                break
        found = await call("Runtime.evaluate", expression=_OPEN % alert)
        assert "value" in found["result"], found
        await call("Emulation.setDeviceMetricsOverride", height=int(found["result"]["value"]), **shape)
        await asyncio.sleep(1)  # what was clicked is moved into its place
        return base64.b64decode((await call("Page.captureScreenshot", format="png"))["data"])


def _page(port: int) -> str:
    """Where the one page is spoken to, once it is loaded."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as response:
                pages = [one for one in json.loads(response.read()) if one["type"] == "page"]
        except OSError:
            pages = []
        if pages and pages[0]["title"]:
            time.sleep(1)
            return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.3)
    raise AssertionError("Chromium did not open the page")
