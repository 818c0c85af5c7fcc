"""The clock and the timed loops. Everything that measures takes the clock as an argument, so tests can fake it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from exporter.target import DeviceCall


class Clock(Protocol):
    """A monotonic clock."""

    def ns(self) -> int:
        """Nanoseconds since some fixed moment; never goes back."""


class Monotonic:
    """The finest monotonic clock of this machine."""

    def ns(self) -> int:
        """Nanoseconds since some fixed moment."""
        return time.perf_counter_ns()


class Processor:
    """What this process, all its threads together, spent on a processor.

    Waiting for a processor that others hold is left out, and so is sleeping: a call of one thread takes what it would
    take where nothing else runs, however many others want its core meanwhile.
    """

    def ns(self) -> int:
        """Nanoseconds since the process began; never goes back."""
        return time.process_time_ns()


WALL, PROCESSOR = "wall", "processor"


def resolution_ns(clock: Clock, tries: int = 50) -> int:
    """The smallest step the clock was seen to make, the cost of reading it included.

    The smallest and not the typical one: an interruption between two readings only ever makes a step larger.
    """
    steps = []
    for _ in range(tries):
        start = now = clock.ns()
        while now == start:
            now = clock.ns()
        steps.append(now - start)
    return min(steps)


def time_each(call: Callable[[], Any], calls: int, clock: Clock) -> tuple[list[int], Any]:
    """Nanoseconds of every call, and what the last one returned.

    The list exists before the first reading; inside the loop there is the call, two readings and one store.
    """
    now = clock.ns
    spent = [0] * calls
    last = None
    for index in range(calls):
        start = now()
        last = call()
        spent[index] = now() - start
    return spent, last


def time_total(call: Callable[[], Any], calls: int, clock: Clock) -> tuple[list[int], Any]:
    """Nanoseconds of all calls together (a list of one), and what the last one returned.

    For calls so short that reading the clock around each would be part of the result.
    """
    repeats = range(calls)
    last = None
    start = clock.ns()
    for _ in repeats:
        last = call()
    return [clock.ns() - start], last


def time_device(call: DeviceCall, calls: int, clock: Clock) -> tuple[list[float], float]:
    """Nanoseconds of every call by the clock of the device it runs on, and those of all together by the host's."""
    spent = [0.0] * calls
    start = clock.ns()
    for index in range(calls):
        call()
        spent[index] = call.elapsed_ns()
    return spent, clock.ns() - start
