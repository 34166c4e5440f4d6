"""Files of payments as a load: `python -m payflow_dev.bench.bulk_loader JOB RESULT`.

As many files at once as the job has connections; each is uploaded, then asked about until it has ended. What counts is
the whole way: the clock stops when the last file has ended.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import signal
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any, Final

import aiohttp

from payflow_dev.bench.job import Job, Load, read_file, write_file
from payflow_dev.bench.population import FILE_PAYMENTS
from payflow_dev.bench.stats import latencies_of
from payflow_dev.bench.wire import Outcome, token_of, transaction_id

PATH: Final = "/payments/bulk"
# A file that takes longer has failed: its payments stay unknown.
FILE_WITHIN_S: Final = 60.0
_LOOK_S: Final = 0.1
_ENDED: Final = frozenset({"COMPLETED", "CANCELLED", "EXPIRED"})
_OUTCOMES: Final = {
    "SUCCESS": Outcome.SUCCESS,
    "PENDING": Outcome.PENDING,
    "REJECTED": Outcome.REFUSED,
    "INVALID": Outcome.REFUSED,
    "OTP_REQUIRED": Outcome.REFUSED,
}


class BulkLoader:
    """Keeps so many files under way for the job's time, then waits for the last ones."""

    def __init__(self, job: Job, session: aiohttp.ClientSession) -> None:
        self._job = job
        self._session = session
        self._files = itertools.count()
        self._outcomes = bytearray()
        self._took = array("q")
        self._errors: Counter[str] = Counter()

    async def run(self) -> Load:
        """Drive the whole step. Prints the number of payments done so far whenever a file has ended."""
        cpu_before, began_at = _cpu_s(), time.monotonic()
        ends_at = began_at + self._job.seconds
        await asyncio.gather(*(self._files_until(ends_at) for _ in range(self._job.connections)))
        done = self._outcomes.count(Outcome.SUCCESS) + self._outcomes.count(Outcome.PENDING)
        return Load(
            outcomes=bytes(self._outcomes),
            acknowledged=done,
            pending=self._outcomes.count(Outcome.PENDING),
            window_s=time.monotonic() - began_at,
            latencies=latencies_of(self._took),
            errors=dict(self._errors),
            cpu_s=_cpu_s() - cpu_before,
        )

    async def _files_until(self, ends_at: float) -> None:
        while time.monotonic() < ends_at:
            first = next(self._files) * FILE_PAYMENTS
            self._outcomes += bytes([Outcome.UNKNOWN]) * max(0, first + FILE_PAYMENTS - len(self._outcomes))
            began_ns = time.perf_counter_ns()
            try:
                async with asyncio.timeout(FILE_WITHIN_S):
                    await self._one_file(first)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._errors[f"file: {type(error).__name__}"] += 1
                await asyncio.sleep(_LOOK_S)
                continue
            self._took.append(time.perf_counter_ns() - began_ns)
            print(len(self._outcomes) - self._outcomes.count(Outcome.UNKNOWN), flush=True)

    async def _one_file(self, first: int) -> None:
        """Send the file of the payments from `first` on (counted from the job's own first), and see it end."""
        job = self._job
        numbers = range(job.first + first, job.first + first + FILE_PAYMENTS)
        templates = [job.templates[number % len(job.templates)] for number in numbers]
        names = [transaction_id(run_id=job.run_id, number=number) for number in numbers]
        file = b"\n".join(template.body(name) for template, name in zip(templates, names, strict=True))
        headers = {"Authorization": f"Bearer {token_of(job.heads[templates[0].head])}"}
        upload = {**headers, "Idempotency-Key": f"file-{names[0]}", "Content-Type": "application/x-ndjson"}
        async with self._session.post(PATH, data=file, headers=upload) as response:
            order: dict[str, Any] = await response.json(content_type=None)
            if response.status not in (200, 202):
                self._errors[f"file: {response.status} {order.get('error', '')}"] += 1
                return
        place = f"{PATH}/{order['bulk_id']}"
        while order.get("status") not in _ENDED:
            await asyncio.sleep(_LOOK_S)
            async with self._session.get(place, headers=headers) as response:
                order = await response.json(content_type=None)
        await self._take_results(place, headers, order, first)

    async def _take_results(self, place: str, headers: dict[str, str], order: dict[str, Any], first: int) -> None:
        if order["counts"] == {"SUCCESS": FILE_PAYMENTS}:
            self._outcomes[first : first + FILE_PAYMENTS] = bytes([Outcome.SUCCESS]) * FILE_PAYMENTS
            return
        cursor: str | None = "0"
        while cursor is not None:
            async with self._session.get(f"{place}/items?limit=1000&cursor={cursor}", headers=headers) as response:
                page = await response.json(content_type=None)
            for item in page["data"]:
                outcome = _OUTCOMES.get(item["status"], Outcome.UNKNOWN)
                self._outcomes[first + item["line"] - 1] = outcome
                if not outcome.is_acknowledged:
                    self._errors[f"{item['status']} {item['error'] or ''}".rstrip()] += 1
            cursor = page["next_cursor"]


async def _drive(job: Job) -> Load:
    timeout = aiohttp.ClientTimeout(total=FILE_WITHIN_S)
    async with aiohttp.ClientSession(f"http://{job.host}:{job.port}", timeout=timeout) as session:
        return await BulkLoader(job, session).run()


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Read the job, run it, write the result."""
    # Ctrl-C is the parent's to handle; here it only ends the process, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    write_file(Path(sys.argv[2]), asyncio.run(_drive(read_file(Path(sys.argv[1]), Job))))


if __name__ == "__main__":
    main()
