"""Runs a function in a spawned child under limits of time and memory: a crash there is a verdict here.

A stage loads code that may crash, hang or eat the machine. :func:`call` runs it in a fresh process and always comes
back with an :class:`Outcome`; :func:`start` gives a :class:`Child` to talk with, to pause and to resume. What a child
did not say is never success: exit code 0 without a result is a crash.

The child leads a process group of its own, so that whatever it starts dies with it, and asks the kernel to be killed
when its parent dies. The kernel means the *thread* that started it: start children from a thread that outlives them.

Requests, events and results travel as JSON lines over two pipes of their own. Standard output and error belong to the
log file, so that no print of a library can garble a message.
"""

from __future__ import annotations

from exporter.isolate.entry import Channel, child
from exporter.isolate.limits import Limits, default_memory
from exporter.isolate.outcome import Outcome
from exporter.isolate.parent import ROOT, Child, call, kill_all, live, start

__all__ = [
    "ROOT",
    "Channel",
    "Child",
    "Limits",
    "Outcome",
    "call",
    "child",
    "default_memory",
    "kill_all",
    "live",
    "start",
]
