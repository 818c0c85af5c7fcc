"""One subject without a pause for as long as asked: whether the machine holds its speed, and what a run costs.

A profile is over before a phone or a fanless board is warm. Here a subject runs in windows that follow one another at
once, its answers compared after each; clocks, heat and power are read beside it. Idle power is read before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from exporter.latency import environment as surroundings
from exporter.latency import power, schedule, stats
from exporter.latency.children import Progress, Run, Starter, started
from exporter.latency.power import Source
from exporter.latency.result import Measured, Subject, ms, rounded
from exporter.latency.sampling import Moment, Sampler
from exporter.latency.stats import Conclusion, Estimate

IDLE_SECONDS = 2.0
# Long enough to be no part of a second look at a sensor, short enough to draw a curve of.
WINDOW_SECONDS, MOST_WINDOWS = 0.25, 240
# Of the run, how much is its beginning and how much its end.
PART = 0.2
# A clock that moves by less than this is not a machine that throttles.
HOLDS = 1.03


@dataclass(frozen=True)
class Energy:
    """What one source says of a run.

    Attributes:
        source: which.
        idle_watts: with the subject asleep.
        watts: while it ran.
        joules: of one run of the model, all that the source feeds.
        above_idle: the same without what it takes when idle.
    """

    source: str
    idle_watts: float | None
    watts: float
    joules: float
    above_idle: float | None

    def as_json(self) -> dict[str, Any]:
        """The energy as ``--json`` prints it."""
        return {name: value if isinstance(value, str) else rounded(value) for name, value in self.__dict__.items()}


@dataclass(frozen=True)
class Window:
    """A stretch of the run: when it ended, nanoseconds per call, calls."""

    at: float
    ns: float
    calls: int


@dataclass(frozen=True)
class Sustained:
    """What a subject did over time.

    Attributes:
        measured: the subject, its windows as blocks.
        asked_seconds: how long it should run.
        windows: in the order they ran; ``at`` is seconds from the first call.
        moments: the machine meanwhile, on the same clock.
        energy: by source; empty where the platform reports none.
        no_energy: why it is empty.
        throttled_us: how long the CPU quota held it back.
        seed: seeds the draws of the interval.
    """

    measured: Measured
    asked_seconds: float
    windows: Sequence[Window] = ()
    moments: Sequence[Moment] = ()
    energy: Sequence[Energy] = ()
    no_energy: str = ""
    throttled_us: float = 0.0
    seed: int = 0

    @property
    def ratio(self) -> Estimate | None:
        """The end's time by the beginning's; None with too few windows for either."""
        part = round(PART * len(self.windows))
        if part < 3 or not self.measured.timed:
            return None
        first, last = ([window.ns for window in side] for side in (self.windows[:part], self.windows[-part:]))
        return stats.ratio_interval([last], [first], self.seed)

    @property
    def conclusion(self) -> Conclusion:
        """``slower`` where the end is slower than the beginning beyond doubt."""
        ratio = self.ratio
        return Conclusion.UNDECIDED if ratio is None else stats.concluded(ratio, HOLDS)

    @property
    def slows_at(self) -> float | None:
        """Seconds after which it never was as fast again as in the beginning; None where it holds."""
        if self.conclusion is not Conclusion.SLOWER:
            return None
        part = round(PART * len(self.windows))
        limit = HOLDS * median(window.ns for window in self.windows[:part])
        held = [index for index, window in enumerate(self.windows) if window.ns <= limit]
        return self.windows[min(held[-1] + 1, len(self.windows) - 1)].at if held else 0.0

    def as_json(self) -> dict[str, Any]:
        """The run as ``--json`` prints it; what this machine does not tell is null."""
        ratio = self.ratio
        return {
            "subject": self.measured.subject.name,
            "verdict": self.measured.verdict.value,
            "reason": self.measured.reason,
            "asked_seconds": self.asked_seconds,
            "seconds": rounded(self.windows[-1].at) if self.windows else 0.0,
            "runs": sum(window.calls for window in self.windows),
            "windows": [[rounded(window.at), ms(window.ns)] for window in self.windows],
            "moments": [[rounded(m.at), rounded(m.mhz), rounded(m.celsius)] for m in self.moments],
            "ratio": rounded(ratio.value) if ratio else None,
            "interval": [rounded(end) for end in ratio.interval] if ratio else None,
            "conclusion": self.conclusion.value,
            "slows_at_s": rounded(self.slows_at),
            "throttled_ms": rounded(self.throttled_us, 1e3),
            "energy": [energy.as_json() for energy in self.energy],
            "no_energy": self.no_energy or None,
        }


def sustained(
    subject: Subject,
    *,
    seconds: float,
    threads: int,
    seed: int,
    log_folder: Path,
    progress: Progress,
    starter: Starter | None = None,
    sources: Sequence[Source] | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Sustained:
    """Runs one subject for so many seconds.

    Args:
        subject: what to run.
        seconds: how long; opening and warming up come on top.
        threads: CPU threads; 0 means as many as this process may run on.
        seed: seeds the draws of the interval.
        log_folder: gets the child's log.
        progress: told in a line what happens next.
        starter: starts the child; tests fake it.
        sources: what is asked for energy; everything here unless given.
        clock: seconds, for tests.
    """
    threads = threads or surroundings.usable_cores()
    found = power.sources() if sources is None else sources
    run = Run(starter or started, threads, log_folder, seed, progress)
    try:
        run.open_all([replace(subject, baseline=True)])  # a baseline has no twin
        idle = _idle(found) if run.units[subject.name].alive else []
        windows, moments, began = _windows(run, subject.name, seconds, found, clock)
        run.learn_facts()
    finally:
        run.end()
    unit = run.units[subject.name]
    return Sustained(
        measured=unit.measured(),
        asked_seconds=seconds,
        windows=windows,
        moments=[replace(moment, at=moment.at - began) for moment in moments],
        energy=_energies(found, idle, moments, sum(window.calls for window in windows)),
        no_energy="" if found else power.missing(),
        throttled_us=unit.throttled_us,
        seed=seed,
    )


def _idle(sources: Sequence[Source]) -> list[Moment]:
    """The machine with the subject asleep; not waited for where nothing tells of power."""
    if not sources:
        return []
    with Sampler(sources) as sampler:
        time.sleep(IDLE_SECONDS)
    return sampler.moments


def _windows(
    run: Run, name: str, seconds: float, sources: Sequence[Source], clock: Callable[[], float]
) -> tuple[list[Window], list[Moment], float]:
    """The windows one after the other, the machine meanwhile, and when the first began."""
    unit, windows, began, told = run.units[name], list[Window](), clock(), 0.0
    if not unit.alive:
        return [], [], began
    length = max(WINDOW_SECONDS, seconds / MOST_WINDOWS)
    pace = replace(schedule.pace(unit.call_ns, unit.opened["tick_ns"], length * 1e9), settle=0)
    with Sampler(sources) as sampler:
        began = clock()
        while clock() - began < seconds:
            run.block(len(windows), name, pace)
            if len(unit.blocks) == len(windows):  # what went wrong voided it
                break
            block = unit.blocks[-1]
            windows.append(Window(clock() - began, block.figure, block.calls))
            if windows[-1].at - told > seconds / 10:
                told = windows[-1].at
                run.progress(f"{name} for {told:.0f} of {seconds:.0f} s, {block.figure / 1e6:.4g} ms")
    return windows, sampler.moments, began


def _energies(sources: Sequence[Source], idle: Sequence[Moment], moments: Sequence[Moment], calls: int) -> list[Energy]:
    """What every source says of one run of the model."""
    found = []
    for source in sources:
        spent, lasted = _spent(source, moments)
        before, waited = _spent(source, idle)
        if spent is None or not calls or not lasted:
            continue
        resting = before / waited if before is not None and waited else None
        above = None if resting is None else (spent - resting * lasted) / calls
        found.append(Energy(source.name, resting, spent / lasted, spent / calls, above))
    return found


def _spent(source: Source, moments: Sequence[Moment]) -> tuple[float | None, float]:
    """Joules over moments, and how long they lasted."""
    readings = [(moment.at, moment.power) for moment in moments]
    return power.joules(source, readings), moments[-1].at - moments[0].at if moments else 0.0
