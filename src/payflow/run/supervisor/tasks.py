"""Work that needs an event loop or a connection, done in a short-lived child so that the supervisor keeps neither."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from payflow.run.errors import StartError, explain_os_error


@dataclass(frozen=True, slots=True)
class Channel:
    """A pipe on which a child tells its result, or why there is none. Results are small and of JSON's types."""

    reader: int
    writer: int

    @classmethod
    def open(cls) -> Channel:
        return cls(*os.pipe())

    def work(self, what: str, function: Callable[[], Any]) -> Callable[[], None]:
        """What the child runs: `function`, with its outcome written to the pipe. `what` begins an error's line."""

        def run() -> None:
            os.close(self.reader)
            try:
                outcome = {"result": function()}
            except StartError as error:
                outcome = {"error": error.message}
            except Exception as error:
                traceback.print_exc(file=sys.stderr)
                explained = explain_os_error(error) if isinstance(error, OSError) else None
                outcome = {"error": explained.message if explained else f"{what}: {_one_line(error)}"}
            os.write(self.writer, json.dumps(outcome).encode())
            os.close(self.writer)

        return run

    def close_writer(self) -> None:
        """In the parent, after the fork: else the end of the pipe is never seen."""
        os.close(self.writer)

    def read_result(self, what: str) -> Any:
        """The result, once the child has ended. Raises StartError with the child's reason."""
        with os.fdopen(self.reader, "rb") as pipe:
            text = pipe.read()
        if not text:
            raise StartError(f"{what}: the process was ended before it was done.")
        outcome = json.loads(text)
        if "error" in outcome:
            raise StartError(outcome["error"])
        return outcome["result"]

    def discard(self) -> None:
        """Close what is left after an interruption."""
        for end in (self.reader, self.writer):
            with contextlib.suppress(OSError):
                os.close(end)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:400] if text else type(error).__name__
