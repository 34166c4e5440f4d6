"""The supervisor's loop: signals, dead children, restarts, and health, in one place and one thread."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

from payflow.run.errors import StartError, last_line
from payflow.run.instance import SERVICE_HOST
from payflow.run.supervisor.children import Child, Stage, reap
from payflow.run.supervisor.forking import spawn
from payflow.run.supervisor.handover import Handover, ReadyPipe
from payflow.run.supervisor.health import HealthWatch
from payflow.run.supervisor.liveness import LiveWatch
from payflow.run.supervisor.requests import Requests, RestartProgress
from payflow.run.supervisor.tasks import Channel

# Together 4.6 s, so that a stop with everybody at their slowest still ends within five seconds. A service that has not
# ended by then is told a second time first: it then cancels what it is at, and says so to whoever waits for it.
_STOP_WITHIN_S: Final = {Stage.GATEWAY: 2.0, Stage.SERVICE: 1.3, Stage.SERVER: 1.3}
_LAST_WORDS_S: Final = 0.6
_IDLE_S: Final = 1.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopRequestedError(Exception):
    """The user or the system asked the supervisor to stop."""


class Watch:
    """Starts, watches, restarts and stops child processes. One per process; use as a context manager.

    `tell` shows a line to the user; `on_change` is called whenever a child's state changed; `in_child` closes, in
    every forked child, what belongs to the supervisor alone. `requests`: where other processes ask for restarts.
    """

    def __init__(
        self,
        *,
        tell: Callable[[str], None],
        on_change: Callable[[], None],
        in_child: Callable[[], None],
        requests: Requests,
    ) -> None:
        self.children: dict[str, Child] = {}
        self.is_ready = False
        self._tell = tell
        self._on_change = on_change
        self._in_child = in_child
        self._requests = requests
        self._wanted: deque[RestartProgress] = deque()
        self._handover: Handover | None = None
        self.restart: RestartProgress | None = None
        self._health = HealthWatch(host=SERVICE_HOST)
        self._live = LiveWatch(host=SERVICE_HOST)
        self._task_pid: int | None = None
        self._stop_signals = 0
        self._wakeup: tuple[int, int] = (-1, -1)
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Watch:
        self._wakeup = os.pipe()
        for end in self._wakeup:
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            self._former[number] = signal.signal(number, self._note_stop)
        self._former[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        for end in self._wakeup:
            os.close(end)

    def start(self, child: Child) -> None:
        """Fork a child and watch it from now on."""
        self.children[child.name] = child
        self._fork(child)

    def pump(self, timeout_s: float) -> None:
        """Wait for news at most so long, and deal with them. Raises StopRequestedError when asked to stop.

        Before `is_ready` the death of a child raises StartError; afterwards the child is started again, and one that
        hangs is killed and started again.
        """
        self._wait(timeout_s)
        if self._stop_signals:
            raise StopRequestedError
        now = time.monotonic()
        self._go_on_restarting(now)
        for child in list(self.children.values()):
            if child.pid is not None:
                self._bury(child, now=now)
            elif child.restart_at is not None and now >= child.restart_at and not self._has_successor(child):
                self._fork(child)
        for name in self._health.healthy_now(now=now):
            child = self.children[name]
            child.healthy_at = now
            if child.port is not None and child.pid is not None:
                self._live.watch(name=name, pid=child.pid, port=child.port, now=now)
            if child.restarts:
                self._tell(f"{name} is healthy again.")
            self._on_change()
        # Not before: during the start a machine may be too busy to tell a slow process from a hung one.
        for name, silent_since in self._live.hung_now(now=now) if self.is_ready else ():
            self.children[name].kill_as_hung(silent_since=silent_since)

    def run_task(self, what: str, function: Callable[[], Any], *, log: Path, timeout_s: float) -> Any:
        """Do `function` in a child of its own and return its result, watching the others meanwhile.

        Raises StartError with the function's own reason, or when it takes too long.
        """
        channel = Channel.open()
        pid = spawn(channel.work(what, function), log=log, death_signal=signal.SIGKILL, in_child=self._close_in_child)
        self._task_pid = pid
        channel.close_writer()
        deadline = time.monotonic() + timeout_s
        try:
            while reap(pid) is None:
                if time.monotonic() >= deadline:
                    raise StartError(f"{what}: not done within {timeout_s:.0f} s; see {log}.")
                self.pump(0.25)
            self._task_pid = None
            return channel.read_result(what)
        finally:
            if self._task_pid is not None:
                channel.discard()
                self._kill_task()

    def wait_healthy(self, *, timeout_s: float, on_healthy: Callable[[Child], None]) -> None:
        """Return when every child answers /health, telling each as it does. Raises StartError when one does not."""
        told: set[str] = set()
        deadline = time.monotonic() + timeout_s
        while True:
            for child in self.children.values():
                if child.state == "healthy" and child.name not in told and child.port is not None:
                    told.add(child.name)
                    on_healthy(child)
            if not self._health.is_waiting:
                return
            if time.monotonic() >= deadline:
                name = self._health.awaited[0]
                raise StartError(
                    f"{name} is not healthy after {timeout_s:.0f} s ({last_line(self.children[name].log)}); "
                    f"see {self.children[name].log}."
                )
            self.pump(0.05)

    def stop(self) -> None:
        """Stop everybody: gateways, then the other services, then the servers; whoever is too slow is killed.

        A further Ctrl-C or SIGTERM kills at once.
        """
        self._stop_signals = 0
        self._health.close()
        self._live.close()
        self._kill_task()
        if self._handover is not None:
            self._handover.abort()
            self._handover = None
        for stage in Stage:
            group = [child for child in self.children.values() if child.stage is stage and child.pid is not None]
            for child in group:
                child.send(child.stop_signal)
            has_ended = self._await_end(group, seconds=_STOP_WITHIN_S[stage] - _LAST_WORDS_S)
            if not has_ended and stage is not Stage.SERVER:
                for child in group:
                    child.send(child.stop_signal)
            if not has_ended and not self._await_end(group, seconds=_LAST_WORDS_S):
                slow = [child.name for child in group if child.pid is not None]
                self._tell(f"{', '.join(slow)} did not stop in time and was killed.")
                for child in group:
                    child.send(signal.SIGKILL, to_group=True)
                self._await_end(group, seconds=0.3)

    def _fork(self, child: Child) -> None:
        now = time.monotonic()
        run = partial(child.run, lambda: None)
        pid = spawn(run, log=child.log, death_signal=child.death_signal, in_child=self._close_in_child)
        child.began(pid=pid, now=now)
        if child.port is not None:
            self._health.await_health(name=child.name, port=child.port)
        self._on_change()

    def _go_on_restarting(self, now: float) -> None:
        """Take what is asked for, and bring the restart that is under way a step further: one process at a time."""
        if not self.is_ready:
            return
        for request in self._requests.take():
            names = [name for name in request.get("names", ()) if name in self.children]
            if request.get("do") == "restart" and names:
                self._wanted.append(RestartProgress(id=str(request.get("id", "")), names=names))
        if self._handover is not None:
            self._advance(self._handover, now)
        if self._handover is None and (self.restart is None or self.restart.state != "running") and self._wanted:
            self.restart = self._wanted.popleft()
            self._on_change()
        if self._handover is None and self.restart is not None and self.restart.state == "running":
            self._begin_handover(self.restart, now)

    def _advance(self, handover: Handover, now: float) -> None:
        had_taken_over = handover.has_taken_over
        is_over = handover.advance(now=now)
        if is_over:
            self._end_handover(handover)
        elif handover.has_taken_over and not had_taken_over:
            self._on_change()

    def _has_successor(self, child: Child) -> bool:
        handover = self._handover
        return handover is not None and handover.child is child and not handover.has_taken_over

    def _begin_handover(self, restart: RestartProgress, now: float) -> None:
        left = [name for name in restart.names if name not in restart.done]
        if not left:
            restart.state = "done"
            self._tell(f"Restarted: {', '.join(restart.done)}.")
            self._on_change()
            return
        child, ready = self.children[left[0]], ReadyPipe()
        run = partial(self._run_successor, child, ready)
        pid = spawn(run, log=child.log, death_signal=child.death_signal, in_child=self._close_in_child)
        ready.close_in_parent()
        self._handover = Handover(child=child, successor=pid, ready=ready, began_at=now)

    def _run_successor(self, child: Child, ready: ReadyPipe) -> object:
        ready.close_in_child()
        return child.run(ready.say_ready)

    def _end_handover(self, handover: Handover) -> None:
        self._handover = None
        if self.restart is not None:
            if handover.error:
                self.restart.state, self.restart.error = "failed", handover.error
                self._tell(f"{handover.error} The one that was there goes on.")
            else:
                self.restart.done.append(handover.child.name)
        self._on_change()

    def _bury(self, child: Child, *, now: float) -> None:
        if self._has_successor(child):
            return  # Whoever comes takes its place, however it ends.
        how = reap(child.pid) if child.pid is not None else None
        if how is None:
            return
        self._health.forget(child.name)
        self._live.forget(child.name)
        if not self.is_ready:
            child.pid = None
            raise StartError(f"{child.name} ended during the start with {how}: {last_line(child.log)}")
        story = f"ended with {how}"
        if child.silent_since is not None:
            story = f"did not answer for {now - child.silent_since:.1f} s and was killed"
        wait_s = child.ended(now=now)
        self._tell(f"{child.name} {story}; it is started again in {wait_s:.1f} s.")
        self._on_change()

    def _wait(self, timeout_s: float) -> None:
        readers: list[Any] = [self._wakeup[0], self._requests]
        if self._handover is not None and self._handover.ready.reader >= 0:
            readers.append(self._handover.ready.reader)
        writers: list[Any] = []
        for connection, waits_to_write in (*self._health.waits_for(), *self._live.waits_for()):
            (writers if waits_to_write else readers).append(connection)
        select.select(readers, writers, [], max(0.0, min(timeout_s, self._seconds_to_next_event())))
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wakeup[0], 512):
                pass

    def _seconds_to_next_event(self) -> float:
        if self._health.is_waiting or self._handover is not None:
            return 0.02
        now = time.monotonic()
        due = [child.restart_at - now for child in self.children.values() if child.restart_at is not None]
        next_question = self._live.next_at()
        if next_question is not None and self.is_ready:
            due.append(next_question - now)
        return min([_IDLE_S, *due])

    def _await_end(self, group: Iterable[Child], *, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while True:
            alive = False
            for child in group:
                if child.pid is not None and reap(child.pid) is not None:
                    child.pid = None
                alive = alive or child.pid is not None
            if not alive:
                return True
            if time.monotonic() >= deadline or self._stop_signals:
                return False
            self._wait(min(0.05, max(0.0, deadline - time.monotonic())))

    def _kill_task(self) -> None:
        if self._task_pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._task_pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._task_pid, 0)
            self._task_pid = None

    def _close_in_child(self) -> None:
        for end in self._wakeup:
            os.close(end)
        self._health.close()
        self._live.close()
        self._requests.forget()
        if self._handover is not None:
            self._handover.ready.close()
        self._in_child()

    def _note_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_signals += 1
