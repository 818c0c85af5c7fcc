"""Times an artifact of both sides here, side by side, in pairs of fresh processes.

The children, their conversation and the order of blocks are those of a profile (:mod:`exporter.latency`); what comes of
the timings is in :mod:`exporter.comparison.timing`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter import registry
from exporter.bundle import Bundle
from exporter.comparison import timing
from exporter.comparison.difference import judged
from exporter.comparison.side import Side
from exporter.comparison.values import Bounds, Timed
from exporter.errors import ExporterError
from exporter.latency import schedule
from exporter.latency.children import Run, Starter, started
from exporter.latency.clock import PROCESSOR, WALL
from exporter.latency.environment import usable_cores
from exporter.latency.result import Measured, Subject, rounded
from exporter.latency.stats import MIN_FLOOR, Estimate
from exporter.latency.subjects import artifact_subject, subject_name, timed_case
from exporter.manifest import CaseInfo
from exporter.preflight import Opening
from exporter.stages import Stages
from exporter.verdict import Verdict

SECONDS = 60.0
# Rounds of a pair: more of them were seen to narrow nothing, since what is left is the processes' own offset.
ROUNDS = 6
# Of a slow model only as many rounds as fit into this, so that there are pairs enough.
PAIR_SECONDS = 10.0
# A process warms up for 20 runs and this long: the lower quartile is not pulled up by what warms up after it.
WARM_SECONDS = 0.2
A, B = "A", "B"

Told = Callable[[str], None]


@dataclass(frozen=True)
class Measuring:
    """How to measure.

    Attributes:
        seconds: time for each artifact; the first look may take longer.
        threads: CPU threads of every process; 0 is all cores. One is timed by the processor's clock, which leaves out
            the waiting for a core that others hold; several only by the clock on the wall.
        seed: seeds the orders.
        opening: how artifacts are opened.
        starter: starts a child; tests fake it.
    """

    seconds: float = SECONDS
    threads: int = 1
    seed: int = 0
    opening: Opening = field(default_factory=Opening)
    starter: Starter | None = None

    @property
    def clock(self) -> str:
        """By which clock calls are timed."""
        return PROCESSOR if self.threads == 1 else WALL


@dataclass(frozen=True)
class Pair:
    """One process of each side: nanoseconds per call."""

    a: float
    b: float
    calls: int

    @property
    def ratio(self) -> float:
        """How long B takes as a part of A."""
        return self.b / self.a


def runnable(a: Side, b: Side) -> dict[str, str]:
    """The artifacts that both sides hold, each with why it cannot be timed here; nothing where it can."""
    if a.bundle is None or b.bundle is None:
        return {}
    held = b.bundle.manifest.targets
    return {key: _absence(a, b, key) for key in a.bundle.manifest.targets if key in held and key in a.sizes}


def _absence(a: Side, b: Side, key: str) -> str:
    for name, side in ((A, a), (B, b)):
        assert side.bundle is not None
        info = side.bundle.manifest.targets[key]
        try:
            available = registry.target(info.target).available()
        except ExporterError as error:
            return error.what
        if not available.present:
            return f"runtime absent: {available.reason}"
        if info.status != "compiled":
            return f"not compiled yet in {name}"
    return ""


def live(a: Side, b: Side, key: str, bounds: Bounds, measuring: Measuring, stages: Stages) -> Timed:
    """Times one artifact of both sides."""
    assert a.bundle is not None and b.bundle is not None
    first, second = a.bundle.manifest, b.bundle.manifest
    name = subject_name(first.targets[key].target, first.targets[key].precision)
    cases = [timed_case(manifest, [manifest.targets[key]]) for manifest in (first, second)]
    if cases[0].sizes != cases[1].sizes:
        why = f"{name} is timed at {cases[0].sizes or 'fixed sizes'} in A and at {cases[1].sizes or 'fixed sizes'} in B"
        return Timed(name, reason=why, verdict=Verdict.SKIPPED)
    subject_a = _subject(A, a.bundle, key, cases[0], measuring, stages)
    subject_b = _subject(B, b.bundle, key, cases[1], measuring, stages)

    def told(line: str) -> None:
        stages.progress("compare", {"what": f"{name}, {line}"})

    return compared(name, subject_a, subject_b, bounds, measuring, stages.folder, told)


def _subject(label: str, bundle: Bundle, key: str, case: CaseInfo, measuring: Measuring, stages: Stages) -> Subject:
    """An artifact as a subject; where it has to be compiled again, in a folder of this side's own."""
    own = stages.folder / f"{label}-{key.replace('/', '-')}"
    own.mkdir()
    made = artifact_subject(bundle.file, bundle.manifest, key, case, replace(stages, folder=own), measuring.opening)
    return replace(made, name=label)


def compared(
    name: str, a: Subject, b: Subject, bounds: Bounds, measuring: Measuring, folder: Path, told: Told
) -> Timed:
    """Times pair after pair until there is an answer, or the time is spent.

    Args:
        name: what to call the artifact.
        a, b: subjects called ``A`` and ``B``.
        bounds: what the answer is about.
        measuring: how.
        folder: gets the logs of the children.
        told: told which pair is timed.
    """
    pairs, start, facts = list[Pair](), time.monotonic(), dict[str, Any]()
    while not timing.enough([p.ratio for p in pairs], bounds.slowdown, time.monotonic() - start, measuring.seconds):
        told(f"pair {len(pairs) + 1}")
        measured = _pair(a, b, len(pairs), measuring, folder)
        broken = next((one for one in measured if not one.timed), None)
        if broken is not None:
            return _broken(name, broken)
        first, second = (_figure(one) for one in measured)
        pairs.append(Pair(first, second, sum(block.calls for one in measured for block in one.blocks)))
        facts = facts or {"clock": "device" if "copies_ns" in measured[0].ran else measuring.clock}
    facts |= {
        "threads": measuring.threads or usable_cores(),
        "pairs": len(pairs),
        "calls": sum(pair.calls for pair in pairs),
        "ratios": [rounded(pair.ratio) for pair in pairs],
        "seconds": rounded(time.monotonic() - start),
        "seed": measuring.seed,
    }
    ratio = timing.located([pair.ratio for pair in pairs])
    timed = Timed(name, "live", _ms([p.a for p in pairs]), _ms([p.b for p in pairs]), ratio, facts=facts)
    return judged(timed, MIN_FLOOR, bounds)


def _pair(a: Subject, b: Subject, number: int, measuring: Measuring, folder: Path) -> tuple[Measured, Measured]:
    """Opens a fresh process of each side, in random order, and times both in turn."""
    seed = measuring.seed * 1000 + number
    threads = measuring.threads or usable_cores()
    run = Run(measuring.starter or started, threads, folder, seed, lambda _: None, WARM_SECONDS)
    order = random.Random(seed).sample([a, b], 2)  # noqa: S311 (an order, not a secret)
    try:
        run.open_all(order, twin=False)
        alive = {name: unit.call_ns for name, unit in run.units.items() if unit.alive}
        if len(alive) == 2:
            run.time_all(schedule.alternated(alive, ROUNDS, PAIR_SECONDS, seed, measuring.clock))
            if number == 0:
                run.learn_facts()
        return run.units[a.name].measured(), run.units[b.name].measured()
    finally:
        run.end()


def _broken(name: str, measured: Measured) -> Timed:
    """What cannot be timed in A is no regression; in B it is, by its own verdict."""
    verdict = measured.verdict if measured.subject.name == B else Verdict.SKIPPED
    reason = f"{name} of {measured.subject.name}: {measured.verdict} {measured.reason}"
    return Timed(name, "live", reason=reason, verdict=verdict)


def _figure(measured: Measured) -> float:
    return timing.figure(measured.calls_ns or measured.figures)


def _ms(figures: Sequence[float]) -> Estimate:
    return timing.located([ns / 1e6 for ns in figures])
