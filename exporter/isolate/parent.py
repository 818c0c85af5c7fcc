"""The parent's side: starts a child, holds it to its limits, and knows how it ended."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, final

from exporter.errors import ExporterError
from exporter.isolate.failure import (
    Ending,
    broken,
    crashed,
    killed,
    out_of_memory,
    raised,
    stopped,
    timed_out,
    verdict_of,
)
from exporter.isolate.limits import Limits
from exporter.isolate.outcome import Outcome
from exporter.isolate.procfs import group, resident, state
from exporter.verdict import Verdict

ROOT = str(Path(__file__).resolve().parents[2])

# sys.path[0] is '' under -c: a folder named like one of ours where the user happens to stand must not shadow it.
ENTRY = (
    f"import sys; sys.path[:] = [{ROOT!r}] + [p for p in sys.path if p not in ('', {ROOT!r})]; "
    "from exporter.isolate.entry import child; child()"
)

GRACE_SECONDS = 0.5  # between SIGTERM and SIGKILL
CLOSE_SECONDS = 2.0  # for a child that was told that no more messages will come
EARLY_TICK, LATE_TICK = 0.02, 0.05  # memory is polled densely while a child loads, more rarely after
GROUP_TICK = 0.5  # a scan of /proc for new members of the group costs milliseconds
LONGEST_LINE = 64 << 20  # a message beyond this is a fault or an attack, not a message


class _Stopwatch:
    """Wall time that stands still while the child is paused."""

    def __init__(self) -> None:
        self._before = 0.0
        self._since: float | None = time.monotonic()

    @property
    def running(self) -> bool:
        return self._since is not None

    def read(self) -> float:
        since = self._since
        return self._before + (time.monotonic() - since if since is not None else 0.0)

    def stop(self) -> None:
        self._before, self._since = self.read(), None

    def go(self) -> None:
        if self._since is None:
            self._since = time.monotonic()


@final
class Child:
    """A running child. Use it as a context manager: leaving the block ends the child, with its group.

    Attributes:
        pid: its process id and that of its group.
        owner: the process that started it.
        thread: the thread that started it.
        peak_rss_bytes: the largest resident memory seen so far.
    """

    def __init__(
        self,
        function: str,
        request: Mapping[str, Any],
        *,
        limits: Limits,
        log: Path,
        stage: str,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.stage, self.limits, self.log = stage, limits, log
        self.owner, self.thread = os.getpid(), threading.get_ident()
        self.peak_rss_bytes = 0
        self._outcome: Outcome | None = None
        self._final: dict[str, Any] | None = None
        self._stopped_for: Ending | None = None
        self._events: deque[Any] = deque()
        self._parts: list[bytes] = []
        self._lock = threading.RLock()  # a signal must never go to a process id that was given back
        self._reaped = threading.Event()
        self._status: int | None = None
        line = json.dumps({"function": function, "request": request}).encode() + b"\n"
        self._spawn(env or {})
        _live.add(self)
        threading.Thread(target=self._watch, name=f"limits of {stage}", daemon=True).start()
        try:
            self._write(line)
        except BaseException:
            self.kill()
            raise

    # ---- talking

    def send(self, value: Any) -> None:
        """Sends one JSON value, which the function gets from ``Channel.receive``.

        Raises:
            ExporterError: the child is gone; the error says how it went.
        """
        self._write(json.dumps(value).encode() + b"\n")
        if self._outcome is not None and self._outcome.error is not None:
            raise self._outcome.error

    def receive(self, timeout: float | None = None) -> Any:
        """The next event; None once the function has returned.

        Args:
            timeout: a child that stays silent for so many seconds has hung, and is killed.

        Raises:
            ExporterError: the child ended in any other way than by returning.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            if deadline is not None and time.monotonic() >= deadline:
                self._stop(timed_out(self.stage, timeout or 0.0, "without an answer"))
                deadline = None
            if not self._fill(deadline):
                outcome = self._conclude()
                if outcome.error is not None:
                    raise outcome.error
                if not self._events:
                    return None
        return self._events.popleft()

    def result(self, on_event: Callable[[Any], None] | None = None) -> Outcome:
        """Says that no more messages will come, waits for the end, and tells how it was. Never raises for it."""
        self._close_sending()
        self.resume()
        more = self._outcome is None
        while more or self._events:
            while self._events:
                event = self._events.popleft()
                if on_event is not None:
                    on_event(event)
            more = more and self._fill(None)
        return self._conclude()

    # ---- pausing

    def pause(self) -> None:
        """Stops the whole group, and returns when it stands still; time does not count until :meth:`resume`."""
        with self._lock:
            if self._reaped.is_set() or not self._watch_time.running:
                return
            self._signal(signal.SIGSTOP)
            self._watch_time.stop()
        give_up = time.monotonic() + 1.0
        while state(self.pid) not in "TtZX" and time.monotonic() < give_up:
            time.sleep(0.0005)

    def resume(self) -> None:
        """Lets a paused child go on."""
        with self._lock:
            self._watch_time.go()
            self._signal(signal.SIGCONT)

    # ---- ending

    def close(self) -> None:
        """Ends the child: it is told that no more messages will come, and killed if it does not return soon."""
        if self._outcome is not None:
            return
        self._close_sending()
        self.resume()
        give_up = time.monotonic() + CLOSE_SECONDS
        while self._fill(give_up):
            if time.monotonic() >= give_up:
                self.kill()
                return
        self._conclude()

    def abort(self) -> None:
        """Kills the whole group from another thread than the one that waits for it, which learns how it ended."""
        self._stopped_for = self._stopped_for or killed(self.stage)
        self._signal(signal.SIGKILL)

    def kill(self) -> None:
        """Kills the whole group at once."""
        self.abort()
        self._conclude()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.close()
        finally:
            if self._outcome is None:
                self.kill()

    # ---- the process

    def _spawn(self, env: Mapping[str, str]) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        child_in, self._sending = os.pipe()
        self._receiving, child_out = os.pipe()
        try:
            with self.log.open("ab") as log:
                self._log_start = log.tell()
                self._process = subprocess.Popen(
                    [sys.executable, "-c", ENTRY, str(child_in), str(child_out), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(child_in, child_out),
                    start_new_session=True,
                    env={**os.environ, **env},
                )
        except BaseException:
            os.close(self._sending)
            os.close(self._receiving)
            raise
        finally:
            os.close(child_in)
            os.close(child_out)
        self.pid = self._process.pid
        self._watch_time = _Stopwatch()
        self._poll = select.poll()
        self._poll.register(self._receiving, select.POLLIN)

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if not self._reaped.is_set():
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)

    def _exited(self, block: bool = False) -> bool:
        """Whether the child has ended; it stays a zombie, so that its process id cannot go to another."""
        if self._reaped.is_set():
            return True
        try:
            options = os.WEXITED | os.WNOWAIT | (0 if block else os.WNOHANG)
            return os.waitid(os.P_PID, self.pid, options) is not None
        except ChildProcessError:  # someone else waited for it: it is gone and its exit status unknown
            return True

    def _reap(self) -> None:
        self._exited(block=True)
        with self._lock:
            if self._reaped.is_set():
                return
            self._signal(signal.SIGKILL)  # whatever the child started and left behind
            self._watch_time.stop()
            with suppress(ChildProcessError):
                _, status, usage = os.wait4(self.pid, 0)
                self._status = os.waitstatus_to_exitcode(status)
                self.peak_rss_bytes = self.peak_rss_bytes or usage.ru_maxrss * 1024
            self._reaped.set()
            # Popen would wait again, and warn, if it did not know.
            self._process.returncode = self._status if self._status is not None else -1
            os.close(self._receiving)
        self._close_sending()
        _live.discard(self)

    # ---- messages

    def _write(self, line: bytes) -> None:
        """Writes a line; should the child never read it, the limits end the child and thereby this call."""
        view = memoryview(line)
        try:
            while view and self._sending >= 0:
                view = view[os.write(self._sending, view) :]
        except BrokenPipeError:
            self._close_sending()
        if self._sending < 0:
            while self._fill(None):
                pass
            self._conclude()

    def _close_sending(self) -> None:
        with self._lock:
            if self._sending >= 0:
                os.close(self._sending)
                self._sending = -1

    def _fill(self, deadline: float | None) -> bool:
        """Takes in what the child has sent, waiting a little for it; False when nothing more will come."""
        if self._outcome is not None:
            return False
        gone = self._exited()  # asked first: then everything it ever sent is in the pipe by the time we look
        wait = 0.0 if gone else 0.1 if deadline is None else max(0.0, min(0.1, deadline - time.monotonic()))
        if not self._poll.poll(wait * 1000):
            return not gone
        data = os.read(self._receiving, 1 << 20)
        if data:
            self._take(data)
        return bool(data)

    def _take(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = b"".join((*self._parts, line))
            self._parts = []
            self._accept(whole)
        if rest:
            self._parts.append(rest)
        if sum(map(len, self._parts)) > LONGEST_LINE:
            self._parts = []
            self._stop(broken(self.stage, f"sent a message of more than {LONGEST_LINE} bytes"))

    def _accept(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            if "event" in message:
                self._events.append(message["event"])
            else:
                self._final = message
                self.peak_rss_bytes = max(self.peak_rss_bytes, int(message.get("peak", 0)))
        except (ValueError, TypeError, RecursionError):
            self._stop(broken(self.stage, f"sent what is no message: {line[:80]!r}"))

    # ---- limits

    def _watch(self) -> None:
        """Enforces the limits from a thread, because the parent may be busy with something else."""
        members, scanned = {self.pid}, time.monotonic()
        while not self._reaped.wait(EARLY_TICK if self._watch_time.read() < 1.0 else LATE_TICK):
            if not self._watch_time.running:
                continue
            if time.monotonic() - scanned > GROUP_TICK:
                members, scanned = group(self.pid), time.monotonic()
            ending = self._breach(members)
            if ending is not None:
                self._stop(ending)
                return

    def _breach(self, members: set[int]) -> Ending | None:
        used = sum(resident(pid) for pid in members)
        self.peak_rss_bytes = max(self.peak_rss_bytes, used)
        allowed = self.limits.memory_bytes
        if allowed is not None and used > allowed:
            return out_of_memory(self.stage, used, allowed)
        if self._watch_time.read() > self.limits.seconds:
            return timed_out(self.stage, self.limits.seconds, "")
        return None

    def _stop(self, ending: Ending) -> None:
        """Ends the group for a reason; the first reason stands."""
        self._stopped_for = self._stopped_for or ending
        if ending.verdict is Verdict.TIMED_OUT:  # one that runs out of memory gets no time to take more
            self._signal(signal.SIGTERM)
            self._signal(signal.SIGCONT)
            give_up = time.monotonic() + GRACE_SECONDS
            while time.monotonic() < give_up and not self._exited():
                time.sleep(0.01)
        self._signal(signal.SIGKILL)

    # ---- judging

    def _conclude(self) -> Outcome:
        if self._outcome is None:
            self._reap()
            value, verdict, error, reason = self._judge()
            seconds = self._watch_time.read()
            self._outcome = Outcome(value, verdict, error, seconds, self.peak_rss_bytes, self.log, reason)
        return self._outcome

    def _judge(self) -> tuple[Any, Verdict, ExporterError | None, str | None]:
        said = self._final or {}
        if self._stopped_for is None and "error" in said:
            error = raised(self.stage, said["error"], self.log, self._log_start)
            return None, verdict_of(error), error, error.what
        if self._stopped_for is None and "value" in said and self._status == 0:
            return said["value"], Verdict.PASS, None, None
        ending = self._stopped_for or crashed(self.stage, self._status)
        return None, ending.verdict, stopped(ending, self.log, self._log_start), ending.reason


def call(
    function: str,
    request: Mapping[str, Any],
    *,
    limits: Limits,
    log: Path,
    stage: str,
    on_event: Callable[[Any], None] | None = None,
    env: Mapping[str, str] | None = None,
) -> Outcome:
    """Runs a function in a child and waits for it.

    Args:
        function: ``"package.module:function"``; it is called with ``(request, channel)`` and returns a JSON value.
        request: a JSON object.
        limits: what it may use.
        log: gets its standard output and error, appended.
        stage: what it is called in errors, such as ``"trace gtcrn"``.
        on_event: called with everything the function sends.
        env: variables added to the environment.

    Returns:
        How it ended. Only what the caller's side raises (``KeyboardInterrupt``, an error in ``on_event``) is raised,
        after the child was killed.
    """
    with start(function, request, limits=limits, log=log, stage=stage, env=env) as running:
        return running.result(on_event)


def start(
    function: str,
    request: Mapping[str, Any],
    *,
    limits: Limits,
    log: Path,
    stage: str,
    env: Mapping[str, str] | None = None,
) -> Child:
    """Starts a function in a child to talk with; the arguments are those of :func:`call`."""
    return Child(function, request, limits=limits, log=log, stage=stage, env=env)


_live: set[Child] = set()


def live() -> tuple[Child, ...]:
    """The children that have not ended."""
    return tuple(_live)


@atexit.register
def kill_all() -> None:
    """Kills every child that has not ended."""
    for running in live():
        if running.owner == os.getpid():  # a fork of the parent inherits this list, not the children
            running.kill()
