"""The timed loops on a clock that stands still unless told."""

from __future__ import annotations

import time

import pytest

from exporter.latency import clock


class FakeClock:
    """Each reading advances by ``tick``; work advances it by hand."""

    def __init__(self, tick: int = 0) -> None:
        self.now, self.tick, self.readings = 0, tick, 0

    def ns(self) -> int:
        self.readings += 1
        self.now += self.tick
        return self.now


def test_each_call_is_timed_alone_and_the_last_answer_kept() -> None:
    fake, costs = FakeClock(), iter([5, 7, 100])

    def call() -> int:
        cost = next(costs)
        fake.now += cost
        return cost

    assert clock.time_each(call, 3, fake) == ([5, 7, 100], 100)
    assert fake.readings == 6


def test_calls_timed_together_read_the_clock_twice() -> None:
    fake = FakeClock()

    def call() -> str:
        fake.now += 3
        return "answer"

    assert clock.time_total(call, 1000, fake) == ([3000], "answer")
    assert fake.readings == 2


@pytest.mark.parametrize("tick", [1, 50, 15_600_000])
def test_the_step_of_a_clock_is_seen(tick: int) -> None:
    assert clock.resolution_ns(FakeClock(tick)) == tick


def test_the_real_clock_is_fine_enough() -> None:
    assert 0 < clock.resolution_ns(clock.Monotonic()) < 100_000


def test_the_processors_clock_stands_still_while_the_process_waits() -> None:
    processor, wall = clock.Processor(), clock.Monotonic()
    before = processor.ns(), wall.ns()
    time.sleep(0.05)
    asleep = processor.ns() - before[0], wall.ns() - before[1]
    assert asleep[0] < 0.5 * asleep[1]
    start = processor.ns()
    while processor.ns() - start < 5_000_000:  # it goes on with work, or this never ends
        pass
