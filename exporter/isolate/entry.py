"""The child's side: runs the one function that it is asked for, and reports."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import json
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from exporter.errors import KINDS, ExporterError
from exporter.isolate.procfs import high_water


class Channel:
    """The child's end of the pipes."""

    def __init__(self, reading: int, writing: int) -> None:
        self._lines = os.fdopen(reading, "rb")
        self._out = os.fdopen(writing, "wb")
        self._lock = threading.Lock()

    def send(self, value: Any) -> None:
        """Sends one JSON value to the parent as an event."""
        self.write({"event": value})

    def receive(self) -> Any:
        """The next JSON value from the parent; None when no more will come."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def write(self, message: Mapping[str, Any]) -> None:
        """Writes one message whole, even if several threads of the child send."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            self._out.write(line)
            self._out.flush()


def child() -> None:
    """The entry of a spawned child: runs the one function it is asked for, reports, and is gone."""
    reading, writing, parent = (int(text) for text in sys.argv[1:4])
    _die_with(parent)
    _prepare(reading, writing)
    channel = Channel(reading, writing)
    asked = channel.receive()
    if asked is not None:
        message = _answer(asked, channel)
        channel.write(message | {"peak": _peak_of_self()})
    with suppress(AttributeError, OSError, ValueError):  # a stranger's code may have closed them, or put others there
        sys.stdout.flush()
        sys.stderr.flush()
    # No interpreter teardown: destructors of native runtimes are known to crash there, after the work is done.
    os._exit(0 if asked is not None else 1)


def _die_with(parent: int) -> None:
    """Ties this process's life to its parent's, which may be killed without a chance to clean up."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)


def _prepare(*pipes: int) -> None:
    for pipe in pipes:
        os.set_inheritable(pipe, False)  # a grandchild that outlives us must not keep the parent waiting
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    faulthandler.enable()  # the log then shows where a segfault happened
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file of a loaded model is gigabytes
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # if the machine runs out, we go and not the parent


def _answer(asked: Mapping[str, Any], channel: Channel) -> dict[str, Any]:
    """Runs the function; every way in which Python can end it becomes a message."""
    try:
        module, _, name = asked["function"].partition(":")
        value = getattr(importlib.import_module(module), name)(asked["request"], channel)
        json.dumps(value)  # a value that cannot travel is the function's fault, to be reported like any other
        return {"value": value}
    except ExporterError as error:
        kind = next((base.__name__ for base in type(error).__mro__ if base.__name__ in KINDS), "Defect")
        return {"error": error.as_json() | {"kind": kind}}
    except BaseException as error:
        with suppress(Exception):
            traceback.print_exc()
        memory = isinstance(error, MemoryError)
        kind = "MemoryError" if memory else "Exception"
        return {"error": {"kind": kind, "type": type(error).__name__, "message": str(error)[:2000]}}


def _peak_of_self() -> int:
    """The high-water mark of this process's own memory.

    ``ru_maxrss`` will not do: between fork and exec it takes over the mark of the parent, however large that is.
    """
    with suppress(OSError):
        return high_water(os.getpid())
    return 0
