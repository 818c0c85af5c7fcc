"""What a profile found, as values: what was timed, what each gave, how they compare, and what may be believed."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.latency import stats
from exporter.latency.environment import Environment, Warned
from exporter.latency.layered import layered
from exporter.latency.schedule import Schedule
from exporter.latency.stats import Cause, Conclusion, Estimate, Percentile, Reason, Stability
from exporter.verdict import Precision, Verdict, worst
from exporter.work import Work
from exporter.work.roofline import Peaks

if TYPE_CHECKING:
    from exporter.latency.sustained import Sustained

SCHEMA = "exporter.profile/1"
ARTIFACT = "exporter.latency.worker:artifact"
EAGER = "exporter.latency.worker:eager"
TWIN = " (again)"
QUANTILES = 101


@dataclass(frozen=True)
class Subject:
    """Something to be timed.

    Attributes:
        name: what the result calls it; unique.
        function: the child's function, ``ARTIFACT`` or ``EAGER``.
        request: what that function is asked, without ``threads``.
        asked: the precision asked for.
        stored: the precision its weights are stored in.
        baseline: whether the others are compared with it (eager); it gets no twin.
        skipped: why it cannot run here; then it is listed with this reason and nothing is started.
        device: what it computes on; subjects of different devices are not compared with each other's baseline.
        advice: what was decided before it was opened.
        options: options of the target that were chosen for this run.
        bytes: the size of what is deployed, where that is a file.
        work: of one run of each node, where layers are timed; and how often each graph runs.
        threads: its own CPU threads, where they differ from the others'.
        sizes: its own sizes of dims, where they differ from the others'.
    """

    name: str
    function: str
    request: Mapping[str, Any]
    asked: str
    stored: str
    baseline: bool = False
    skipped: str = ""
    device: str = "cpu"
    advice: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    bytes: int | None = None
    work: Mapping[str, Work] = field(default_factory=dict)
    often: Mapping[str, int] = field(default_factory=dict)
    threads: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Block:
    """Timings of one block: of each call, or the total where calls were too short to time alone."""

    calls: int
    ns: tuple[int, ...]

    @property
    def each(self) -> bool:
        """Whether the timings are of single calls."""
        return len(self.ns) == self.calls

    @property
    def figure(self) -> float:
        """Nanoseconds per call: the median of the calls, or the mean of a block timed as a whole."""
        return float(statistics.median(self.ns)) if self.each else sum(self.ns) / self.calls


@dataclass(frozen=True)
class Measured:
    """One subject and all that was learnt of it.

    Attributes:
        subject: what was timed.
        threads: with how many threads.
        verdict: ``PASS`` when it was timed and its outputs were right throughout.
        reason: why it is not ``PASS``.
        blocks: its blocks in the order they ran.
        warm_ns: the calls of the warm-up, recorded and not counted.
        opened: what the child said when it was open.
        ran: what the child said of what ran.
        reasons: what speaks against its timings.
        seed: seeds the draws of its interval.
    """

    subject: Subject
    threads: int
    verdict: Verdict = Verdict.PASS
    reason: str | None = None
    blocks: tuple[Block, ...] = ()
    warm_ns: tuple[int, ...] = ()
    opened: Mapping[str, Any] = field(default_factory=dict)
    ran: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[Reason, ...] = ()
    seed: int = 0

    @property
    def timed(self) -> bool:
        """Whether there is a figure that means anything."""
        return self.verdict is Verdict.PASS and bool(self.blocks)

    @property
    def stability(self) -> Stability:
        """Whether the figure deserves to be read."""
        return stats.stability(self.reasons) if self.timed else Stability.INVALID

    @property
    def figures(self) -> list[float]:
        """Nanoseconds per call, one figure per block."""
        return [block.figure for block in self.blocks]

    @property
    def calls_ns(self) -> list[int]:
        """Nanoseconds of single calls; empty where blocks were timed as a whole."""
        return [ns for block in self.blocks if block.each for ns in block.ns]

    @property
    def median(self) -> Estimate | None:
        """Nanoseconds per call with a 95 % interval."""
        return stats.median_interval([self.figures], self.seed) if self.timed else None

    def percentile(self, p: float) -> Percentile | None:
        """A percentile of single calls with its bound, where there are calls enough."""
        return stats.percentile(self.calls_ns, p) if self.timed else None

    def as_json(self, raw: bool = False, spread: bool = False, peaks: Peaks | None = None) -> dict[str, Any]:
        """The subject as ``--json`` prints it; a figure that was not measured is null."""
        median, p95 = self.median, self.percentile(0.95)
        precision = Precision(self.subject.asked, self.subject.stored, self.ran.get("precision"))
        value: dict[str, Any] = {
            "name": self.subject.name,
            "baseline": self.subject.baseline,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "precision": precision.as_json(),
            "stability": self.stability.value,
            "reasons": [reason.as_json() for reason in self.reasons],
            "median_ms": ms(median.value) if median else None,
            "interval_ms": [ms(end) for end in median.interval] if median else None,
            "p95_ms": ms(p95.value) if p95 else None,
            "p95_upper_ms": ms(p95.upper) if p95 else None,
            "n": sum(block.calls for block in self.blocks) if self.timed else 0,
            "load_ms": ms(self.opened.get("load_ns")),
            "first_run_ms": ms(self.opened.get("first_run_ns")),
            "peak_rss_mb": rounded(self.opened.get("peak_rss_bytes"), 2**20),
            "threads": self.threads,
            "sizes": dict(self.subject.sizes),
            "layers": self.ran.get("layers", {}),
            "providers": self.ran.get("providers", {}),
            "errors": self.opened.get("check", {}).get("errors", {}),
            "device": self.subject.device,
            "clock": "device" if "copies_ns" in self.ran else "host",
            "copies_ms": {way: ms(ns) for way, ns in self.ran.get("copies_ns", {}).items()},
            "host_ms": ms(self.ran.get("host_ns")),
            "advice": list(self.subject.advice),
            "options": dict(self.subject.options),
            "bytes": self.subject.bytes,
        }
        if "layer_times" in self.ran:
            ran_ns = median.value if median else None
            value |= layered(self.ran["layer_times"], self.subject.work, self.subject.often, ran_ns, peaks)
        value |= {"distribution": spread_of(self.calls_ns, self.figures)} if spread and self.timed else {}
        return value | ({"raw": self._raw()} if raw else {})

    def _raw(self) -> dict[str, Any]:
        blocks = [{"calls": block.calls, "ns": list(block.ns)} for block in self.blocks]
        return {"warm_ns": list(self.warm_ns), "blocks": blocks}


def spread_of(calls_ns: Sequence[float], figures: Sequence[float]) -> dict[str, list[float | None]]:
    """How timings are spread: 101 quantiles of single calls, and a figure per block in the order they ran."""
    calls = np.quantile(calls_ns, np.linspace(0, 1, QUANTILES)) if calls_ns else ()
    return {"quantiles_ms": [ms(float(ns)) for ns in calls], "blocks_ms": [ms(ns) for ns in figures]}


@dataclass(frozen=True)
class Ratio:
    """How long one subject takes as a part of another, and what that shows."""

    of: str
    to: str
    estimate: Estimate
    conclusion: Conclusion

    def as_json(self) -> dict[str, Any]:
        """The ratio as ``--json`` prints it."""
        return {
            "of": self.of,
            "to": self.to,
            "median": rounded(self.estimate.value),
            "interval": [rounded(end) for end in self.estimate.interval],
            "conclusion": self.conclusion.value,
        }


@dataclass(frozen=True)
class Profile:
    """The result of profiling.

    Attributes:
        subjects: every subject asked for, in that order, whether it could be timed or not.
        twin: the second child of the first artifact.
        twins: the ratio of that pair.
        ratios: every artifact to the baseline, and artifacts to one another.
        plan: the blocks that were planned.
        order: the blocks that ran, ``(round, name)``.
        environment: the machine before the first child.
        warnings: what of it makes timings worse.
        reasons: what speaks against the run as a whole.
        budget_seconds: what was allowed for blocks.
        seconds: what blocks took.
        devices: clocks and throttling of the subjects' devices before the first child and after the last block.
        peaks: what this machine reaches at best, where layers were timed.
        sustained: what each artifact did without a pause, where that was asked for.
        sweep: what was varied, ``{"by": {name: values}, "points": [..]}``; the subjects are its points.
    """

    subjects: tuple[Measured, ...]
    twin: Measured | None
    twins: Estimate | None
    ratios: tuple[Ratio, ...]
    plan: Schedule
    order: tuple[tuple[int, str], ...]
    environment: Environment
    warnings: tuple[Warned, ...]
    reasons: tuple[Reason, ...]
    budget_seconds: float
    seconds: float
    devices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    peaks: Peaks | None = None
    sustained: tuple[Sustained, ...] = ()
    sweep: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noise_floor(self) -> float | None:
        """The factor below which a ratio is noise; None without an A/A pair."""
        return stats.noise_floor(self.twins)

    @property
    def stability(self) -> Stability:
        """The worst of everything that was timed; a subject that never ran does not make the others worse."""
        timed = [measured for measured in (*self.subjects, self.twin) if measured is not None and measured.timed]
        wrong = any(is_wrong(measured) for measured in self.subjects)
        if wrong or not timed:
            return Stability.INVALID
        return stats.stability([*self.reasons, *(reason for measured in timed for reason in measured.reasons)])

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the subjects: whether everything asked for was timed."""
        return worst(measured.verdict for measured in (*self.subjects, *(one.measured for one in self.sustained)))

    def as_json(self, raw: bool = False, spread: bool = False) -> dict[str, Any]:
        """The profile as ``--json`` prints it.

        Args:
            raw: adds every timing, the twin's included, and the order in which blocks ran.
            spread: adds how timings are spread: what a report in a bundle needs where it does not keep all of them.
        """
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "stability": self.stability.value,
            "reasons": [reason.as_json() for reason in self.reasons],
            "noise_floor": rounded(self.noise_floor),
            "twins": _twins_json(self.twin, self.twins),
            "seed": self.plan.seed,
            "blocks": max((len(measured.blocks) for measured in self.subjects), default=0),
            "budget_seconds": self.budget_seconds,
            "seconds": rounded(self.seconds),
            "subjects": [measured.as_json(raw, spread, self.peaks) for measured in self.subjects],
            "ratios": [ratio.as_json() for ratio in self.ratios],
            "environment": self.environment.as_json() | {"devices": self.devices},
            "warnings": [warned.as_json() for warned in self.warnings],
        }
        if self.peaks is not None:
            value["peaks"] = self.peaks.as_json()
        if self.sweep:
            value["sweep"] = self.sweep
        if self.sustained:
            value["sustained"] = [one.as_json() for one in self.sustained]
        if raw:
            twin = self.twin.as_json(raw) if self.twin else None
            value |= {"twin": twin, "order": [list(entry) for entry in self.order]}
        return value


def is_wrong(measured: Measured) -> bool:
    return any(reason.cause is Cause.WRONG_OUTPUT for reason in measured.reasons)


def _twins_json(twin: Measured | None, twins: Estimate | None) -> dict[str, Any] | None:
    """The A/A pair: of which artifact, and its ratio where both could be timed."""
    if twin is None:
        return None
    of = twin.subject.name.removesuffix(TWIN)
    ratio = {"median": rounded(twins.value), "interval": [rounded(e) for e in twins.interval]} if twins else {}
    return {"of": of, "verdict": twin.verdict.value, "reason": twin.reason, "median": None, "interval": None} | ratio


def ms(ns: float | None) -> float | None:
    return rounded(ns, 1e6)


def rounded(value: float | None, unit: float = 1.0) -> float | None:
    """A figure to six digits: more than any interval here supports, fewer than float prints."""
    return None if value is None else float(f"{value / unit:.6g}")
