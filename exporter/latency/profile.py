"""Times subjects against one another so that the number survives a second look.

One child per subject, one of them awake at a time; a second child of the first artifact, the A/A twin, shows what two
runs of the same thing differ by here. What a subject did wrong voids that subject alone and is listed with its reason.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from exporter.errors import ExporterError, Incomplete
from exporter.latency import environment as surroundings
from exporter.latency import schedule, stats
from exporter.latency.environment import Environment, Warned
from exporter.latency.schedule import Pace, Schedule
from exporter.latency.stats import Cause, Conclusion, Estimate, Percentile, Reason, Stability
from exporter.verdict import Precision, Verdict, worst

SCHEMA = "exporter.profile/1"
ARTIFACT = "exporter.latency.worker:artifact"
EAGER = "exporter.latency.worker:eager"

BUDGET_SECONDS = 6.0
# At least 20 runs and 1 s, but a model of seconds per call stops once 3 s are spent (one call, at the least).
WARM_RUNS, WARM_SECONDS, WARM_MOST_SECONDS = 20, 1.0, 3.0
OPEN_SECONDS = 300.0
# A block may take so many times what the warm-up promised before its child counts as hung.
HUNG_FACTOR, HUNG_SECONDS = 20.0, 60.0
# Blocks end once they took so many times what was planned: a machine that got slower must not hold up an export.
OVERRUN = 3.0
TWIN = " (again)"


class Child(Protocol):
    """The parent's side of a child (``exporter.isolate.Child``)."""

    def send(self, value: Any) -> None:
        """Sends one JSON value."""

    def receive(self, timeout: float | None = None) -> Any:
        """The next event."""

    def pause(self) -> None:
        """Stops its whole process group."""

    def resume(self) -> None:
        """Lets it go on."""

    def close(self) -> None:
        """Ends it."""


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


Starter = Callable[[Subject, int, Path], Child]
Progress = Callable[[str], None]


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

    def as_json(self, raw: bool = False) -> dict[str, Any]:
        """The subject as ``--json`` prints it; a figure that was not measured is null."""
        median, p95 = self.median, self.percentile(0.95)
        precision = Precision(self.subject.asked, self.subject.stored, self.ran.get("precision"))
        value: dict[str, Any] = {
            "name": self.subject.name,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "precision": precision.as_json(),
            "stability": self.stability.value,
            "reasons": [reason.as_json() for reason in self.reasons],
            "median_ms": _ms(median.value) if median else None,
            "interval_ms": [_ms(end) for end in median.interval] if median else None,
            "p95_ms": _ms(p95.value) if p95 else None,
            "p95_upper_ms": _ms(p95.upper) if p95 else None,
            "n": sum(block.calls for block in self.blocks) if self.timed else 0,
            "load_ms": _ms(self.opened.get("load_ns")),
            "first_run_ms": _ms(self.opened.get("first_run_ns")),
            "peak_rss_mb": _rounded(self.opened.get("peak_rss_bytes"), 2**20),
            "threads": self.threads,
            "layers": self.ran.get("layers", {}),
            "providers": self.ran.get("providers", {}),
            "errors": self.opened.get("check", {}).get("errors", {}),
            "device": self.subject.device,
            "clock": "device" if "copies_ns" in self.ran else "host",
            "copies_ms": {way: _ms(ns) for way, ns in self.ran.get("copies_ns", {}).items()},
            "host_ms": _ms(self.ran.get("host_ns")),
            "advice": list(self.subject.advice),
            "options": dict(self.subject.options),
        }
        if "layer_times" in self.ran:
            value["layer_times"] = [_layer_json(layer) for layer in self.ran["layer_times"]]
        return value | ({"raw": self._raw()} if raw else {})

    def _raw(self) -> dict[str, Any]:
        blocks = [{"calls": block.calls, "ns": list(block.ns)} for block in self.blocks]
        return {"warm_ns": list(self.warm_ns), "blocks": blocks}


def _layer_json(layer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in layer.items() if name != "ns"} | {"ms": _ms(layer["ns"])}


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
            "median": _rounded(self.estimate.value),
            "interval": [_rounded(end) for end in self.estimate.interval],
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

    @property
    def noise_floor(self) -> float | None:
        """The factor below which a ratio is noise; None without an A/A pair."""
        return stats.noise_floor(self.twins)

    @property
    def stability(self) -> Stability:
        """The worst of everything that was timed; a subject that never ran does not make the others worse."""
        timed = [measured for measured in (*self.subjects, self.twin) if measured is not None and measured.timed]
        wrong = any(_is_wrong(measured) for measured in self.subjects)
        if wrong or not timed:
            return Stability.INVALID
        return stats.stability([*self.reasons, *(reason for measured in timed for reason in measured.reasons)])

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the subjects: whether everything asked for was timed."""
        return worst(measured.verdict for measured in self.subjects)

    def as_json(self, raw: bool = False) -> dict[str, Any]:
        """The profile as ``--json`` prints it.

        Args:
            raw: adds every timing, the twin's included, and the order in which blocks ran.
        """
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "stability": self.stability.value,
            "reasons": [reason.as_json() for reason in self.reasons],
            "noise_floor": _rounded(self.noise_floor),
            "twins": _twins_json(self.twin, self.twins),
            "seed": self.plan.seed,
            "blocks": max((len(measured.blocks) for measured in self.subjects), default=0),
            "budget_seconds": self.budget_seconds,
            "seconds": _rounded(self.seconds),
            "subjects": [measured.as_json(raw) for measured in self.subjects],
            "ratios": [ratio.as_json() for ratio in self.ratios],
            "environment": self.environment.as_json() | {"devices": self.devices},
            "warnings": [warned.as_json() for warned in self.warnings],
        }
        if raw:
            twin = self.twin.as_json(raw) if self.twin else None
            value |= {"twin": twin, "order": [list(entry) for entry in self.order]}
        return value


def profile(
    subjects: Sequence[Subject],
    *,
    seed: int,
    threads: int,
    log_folder: Path,
    budget_seconds: float = BUDGET_SECONDS,
    progress: Progress | None = None,
    packages: Sequence[str] = (),
    starter: Starter | None = None,
    conditions: Callable[[], Mapping[str, Any]] = dict,
) -> Profile:
    """Times subjects against one another.

    Args:
        subjects: what to time, the first artifact gets the twin.
        seed: seeds the order of blocks and the draws of intervals.
        threads: CPU threads of every subject; 0 means as many as this process may run on.
        log_folder: gets one log per child.
        budget_seconds: how long blocks should take in all; opening and warming up come on top, and a slow model may
            take up to five times as long to reach nine blocks.
        progress: told in a line what happens next.
        packages: distributions whose versions belong into the result.
        starter: starts a child; tests fake it.
        conditions: reads clocks and throttling of the devices that subjects compute on, by target.

    Returns:
        A profile in which every subject asked for is listed.

    Raises:
        ValueError: when two subjects share a name.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) != len(names):
        raise ValueError(f"subjects need names of their own: {names}")
    threads = threads or surroundings.usable_cores()
    facts, before = surroundings.read(packages), conditions()
    run = _Run(starter or _start, threads, log_folder, seed, progress or _quiet)
    try:
        run.open_all(subjects)
        plan = run.plan(budget_seconds)
        seconds = run.time_all(plan)
        devices = {"before": before, "after": conditions()} if before else {}
        run.learn_facts()
    finally:
        run.end()
    return _concluded(run, plan, facts, devices, budget_seconds=budget_seconds, seconds=seconds)


def _quiet(line: str) -> None:
    """Tells nobody."""


def _concluded(
    run: _Run,
    plan: Schedule,
    facts: Environment,
    devices: Mapping[str, Mapping[str, Any]],
    *,
    budget_seconds: float,
    seconds: float,
) -> Profile:
    """What may be said of a run that is over."""
    measured = tuple(unit.measured() for name, unit in run.units.items() if name != run.twin)
    twin = run.units[run.twin].measured() if run.twin else None
    by_name = {one.subject.name: one for one in measured}
    twins = _ratio(twin, by_name[run.twin.removesuffix(TWIN)], plan.seed) if twin and run.twin else None
    ratios = _ratios(measured, stats.noise_floor(twins), plan.seed)
    warned = [*surroundings.warnings(facts, run.threads), *_on_budget(plan, budget_seconds), *_on_twin(twins, measured)]
    warned += _on_devices(devices)
    return Profile(
        subjects=measured,
        twin=twin,
        twins=twins,
        ratios=ratios,
        plan=plan,
        order=tuple(run.order),
        environment=facts,
        warnings=tuple(warned),
        reasons=stats.twin_reasons(twins),
        budget_seconds=budget_seconds,
        seconds=seconds,
        devices=devices,
    )


def _on_devices(devices: Mapping[str, Mapping[str, Any]]) -> list[Warned]:
    """What a target says of its device's clocks, before or after, once."""
    said = {
        (target, what): advice
        for moment in devices.values()
        for target, conditions in moment.items()
        for what, advice in conditions.get("problems", [])
    }
    return [Warned("device", f"{target}: {what}", advice) for (target, what), advice in said.items()]


def _ratios(measured: Sequence[Measured], floor: float | None, seed: int) -> tuple[Ratio, ...]:
    """Every artifact to the baseline, then artifacts to one another."""
    base = [one for one in measured if one.subject.baseline]
    rest = [one for one in measured if not one.subject.baseline]
    found = []
    # Eager on one device says nothing of an artifact on another.
    with_base = ((a, b) for b in base for a in rest if a.subject.device == b.subject.device)
    for of, to in [*with_base, *combinations(rest, 2)]:
        estimate = _ratio(of, to, seed)
        if estimate is not None:
            found.append(Ratio(of.subject.name, to.subject.name, estimate, stats.concluded(estimate, floor)))
    return tuple(found)


def _ratio(of: Measured, to: Measured, seed: int) -> Estimate | None:
    """The ratio of two subjects over the rounds that both have, or None where one of them has no figure."""
    if not (of.timed and to.timed):
        return None
    rounds = min(len(of.blocks), len(to.blocks))
    return stats.ratio_interval([of.figures[:rounds]], [to.figures[:rounds]], seed)


def _on_budget(plan: Schedule, budget: float) -> list[Warned]:
    if plan.expected_seconds <= 1.5 * budget:
        return []
    what = f"{len(plan.rounds)} blocks of each subject need {plan.expected_seconds:.0f} s, the budget is {budget:g} s"
    return [Warned("budget", what, "give a slow model a larger budget for narrower intervals")]


def _on_twin(twins: Estimate | None, measured: Sequence[Measured]) -> list[Warned]:
    if twins is not None or not any(one.timed and not one.subject.baseline for one in measured):
        return []
    what = "the A/A pair could not be timed, so no difference can be claimed"
    return [Warned("no-noise-floor", what, "see the logs of the children, and repeat")]


def _is_wrong(measured: Measured) -> bool:
    return any(reason.cause is Cause.WRONG_OUTPUT for reason in measured.reasons)


def _twins_json(twin: Measured | None, twins: Estimate | None) -> dict[str, Any] | None:
    """The A/A pair: of which artifact, and its ratio where both could be timed."""
    if twin is None:
        return None
    of = twin.subject.name.removesuffix(TWIN)
    ratio = {"median": _rounded(twins.value), "interval": [_rounded(e) for e in twins.interval]} if twins else {}
    return {"of": of, "verdict": twin.verdict.value, "reason": twin.reason, "median": None, "interval": None} | ratio


# ------------------------------------------------------------------------------------------------ the conversation


class _VoidedError(Exception):
    """A subject's measurement ended; the run goes on without it."""

    def __init__(self, verdict: Verdict, reason: str, cause: Cause | None = None) -> None:
        super().__init__(reason)
        self.verdict, self.reason, self.cause = verdict, reason, cause


class _Unit:
    """One child and what it has said; the only thing here that changes."""

    def __init__(self, subject: Subject, threads: int, seed: int) -> None:
        self.subject, self.threads, self.seed = subject, threads, seed
        self.child: Child | None = None
        self.verdict, self.reason = Verdict.PASS, ""
        self.voiding: list[Reason] = []
        self.blocks: list[Block] = []
        self.opened: dict[str, Any] = {}
        self.warm_ns: list[int] = []
        self.ran: dict[str, Any] = {}
        self.throttled_us = 0.0

    @property
    def alive(self) -> bool:
        return self.child is not None

    @property
    def call_ns(self) -> float:
        """What a call took at the end of the warm-up: its second half, the first being what warming up is for."""
        return float(statistics.median(self.warm_ns[len(self.warm_ns) // 2 :]))

    def ask(self, command: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Sends a command to the child and waits for what it answers."""
        assert self.child is not None
        self.child.send(command)
        return self.answer(timeout)

    def answer(self, timeout: float) -> dict[str, Any]:
        """The child's next message; one that ended instead is voided."""
        assert self.child is not None
        answer = self.child.receive(timeout)
        if answer is None:
            raise _VoidedError(Verdict.CRASHED, "the child ended in the middle of the conversation")
        return dict(answer)

    def require_right(self, check: Mapping[str, Any], when: str) -> None:
        """Voids the subject unless its outputs were right."""
        if check.get("ok") is not True:
            reason = f"wrong outputs {when}: {check.get('reason') or 'the check did not say yes'}"
            raise _VoidedError(Verdict.INVALID, reason, Cause.WRONG_OUTPUT)

    def void(self, verdict: Verdict, reason: str, cause: Cause | None = None) -> None:
        self.verdict, self.reason = verdict, reason
        self.voiding += [Reason(cause, reason)] if cause else []
        self.end()

    def end(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            child.close()

    def measured(self) -> Measured:
        """What is known of the subject, as a value."""
        reasons = tuple(self.voiding)
        if not reasons and self.blocks:
            tick = self.opened.get("tick_ns", 0)
            block = self.blocks[0]
            figures, calls = [b.figure for b in self.blocks], [ns for b in self.blocks if b.each for ns in b.ns]
            step = tick if block.each else tick / block.calls
            reasons = stats.reasons_against(figures, calls, tick_ns=step, throttled_us=self.throttled_us)
        verdict, reason = self.verdict, self.reason or None
        if verdict is Verdict.PASS and not self.blocks:
            verdict, reason = Verdict.INVALID, "no block was timed"
        return Measured(
            self.subject,
            self.threads,
            verdict,
            reason,
            tuple(self.blocks),
            tuple(self.warm_ns),
            self.opened,
            self.ran,
            reasons,
            self.seed,
        )


class _Run:
    """The children of one profile."""

    def __init__(self, starter: Starter, threads: int, log_folder: Path, seed: int, progress: Progress) -> None:
        self.starter, self.threads, self.log_folder = starter, threads, log_folder
        self.seed, self.progress = seed, progress
        self.units: dict[str, _Unit] = {}
        self.twin: str | None = None
        self.order: list[tuple[int, str]] = []

    def open_all(self, subjects: Sequence[Subject]) -> None:
        """Opens one after the other, each paused before the next one starts; then the twin of the first artifact."""
        for subject in subjects:
            self._open(subject)
        alive = (s for s in subjects if not s.baseline and self.units[s.name].alive)
        first = next(alive, None)
        if first is not None:
            self.twin = first.name + TWIN
            self._open(replace(first, name=self.twin, request={**first.request, "layers": False}))

    def _open(self, subject: Subject) -> None:
        unit = self.units[subject.name] = _Unit(subject, self.threads, self.seed)
        if subject.skipped:
            unit.void(Verdict.SKIPPED, subject.skipped)
            return
        self.progress(f"open {subject.name}")
        self._guarded(unit, lambda: self._opened(unit))

    def _opened(self, unit: _Unit) -> None:
        unit.child = self.starter(unit.subject, self.threads, self.log_folder)
        unit.opened = unit.answer(OPEN_SECONDS)
        unit.require_right(unit.opened.get("check", {}), "in the first run")
        first_seconds = unit.opened["first_run_ns"] / 1e9
        command = {"do": "warm", "runs": WARM_RUNS, "seconds": WARM_SECONDS, "most_seconds": WARM_MOST_SECONDS}
        warm = unit.ask(command, HUNG_SECONDS + HUNG_FACTOR * first_seconds)
        unit.warm_ns = list(warm["ns"])

    def plan(self, budget_seconds: float) -> Schedule:
        """The blocks of everything that could be opened."""
        alive = {name: unit for name, unit in self.units.items() if unit.alive}
        return schedule.scheduled(
            {name: unit.call_ns for name, unit in alive.items()},
            budget_seconds=budget_seconds,
            seed=self.seed,
            tick_ns={name: unit.opened["tick_ns"] for name, unit in alive.items()},
            check_ns={name: unit.opened["check_ns"] for name, unit in alive.items()},
        )

    def time_all(self, plan: Schedule) -> float:
        """Runs the blocks; gives the seconds they took."""
        count = len(plan.rounds)
        start = time.monotonic()
        patience = OVERRUN * plan.expected_seconds + 1.0
        for number, names in enumerate(plan.rounds):
            if number >= schedule.FEWEST_ROUNDS and time.monotonic() - start > patience:
                break
            if number % max(1, count // 10) == 0:
                self.progress(f"block {number + 1} of {count}")
            for name in names:
                self._block(number, name, plan.paces[name])
        return time.monotonic() - start

    def _block(self, number: int, name: str, pace: Pace) -> None:
        unit = self.units[name]
        if unit.alive:
            self.order.append((number, name))
            self._guarded(unit, lambda: self._timed(unit, pace))

    def _timed(self, unit: _Unit, pace: Pace) -> None:
        """One block, and then at once whether its last call was right."""
        expected = (pace.calls + pace.settle) * unit.call_ns / 1e9
        timeout = HUNG_SECONDS + HUNG_FACTOR * expected
        before = surroundings.throttling()
        command = {"do": "block", "calls": pace.calls, "settle": pace.settle, "each": pace.each}
        answer = unit.ask(command, timeout)
        unit.throttled_us += surroundings.throttled_us(before, surroundings.throttling())
        unit.require_right(unit.ask({"do": "check"}, timeout), "while it was timed")
        unit.blocks.append(_block(answer, pace))

    def learn_facts(self) -> None:
        """Asks every child what ran."""
        for unit in self.units.values():
            if unit.alive:
                self._guarded(unit, partial(_learn_facts, unit))

    def end(self) -> None:
        """Lets every child go."""
        for unit in self.units.values():
            unit.end()

    def _guarded(self, unit: _Unit, work: Callable[[], None]) -> None:
        """Does something with one child awake; whatever goes wrong there is that subject's verdict."""
        try:
            if unit.child is not None:
                unit.child.resume()
            work()
            if unit.child is not None:
                unit.child.pause()
        except _VoidedError as voided:
            unit.void(voided.verdict, voided.reason, voided.cause)
        except ExporterError as error:
            unit.void(_verdict_of(error), error.what)


def _learn_facts(unit: _Unit) -> None:
    unit.ran = unit.ask({"do": "facts"}, HUNG_SECONDS)


def _block(answer: Mapping[str, Any], pace: Pace) -> Block:
    """The timings of a block, refused where they cannot be what was asked for."""
    ns = tuple(answer.get("ns", ()))
    if len(ns) != (pace.calls if pace.each else 1) or not all(_is_time(value) for value in ns):
        raise _VoidedError(Verdict.INVALID, "the child sent timings that no clock gives")
    block = Block(pace.calls, ns)
    if block.figure <= 0:
        raise _VoidedError(Verdict.INVALID, "the calls took no time that this clock can tell")
    return block


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value >= 0


def _verdict_of(error: ExporterError) -> Verdict:
    """What an error of a child says of its subject."""
    if isinstance(error, Incomplete):
        return Verdict.SKIPPED
    return Verdict.TIMED_OUT if error.code == "stage-timed-out" else Verdict.CRASHED


def _start(subject: Subject, threads: int, log_folder: Path) -> Child:
    """Starts a real child. Every runtime that listens to OpenMP's variable gets the same number of threads."""
    from exporter.isolate import Limits, start

    request = {**subject.request, "threads": threads}
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in subject.name)
    log = log_folder / f"profile-{safe}.log"
    env = {"OMP_NUM_THREADS": str(threads)}
    return start(subject.function, request, limits=Limits(), log=log, stage=f"profile {subject.name}", env=env)


def _ms(ns: float | None) -> float | None:
    return _rounded(ns, 1e6)


def _rounded(value: float | None, unit: float = 1.0) -> float | None:
    """A figure to six digits: more than any interval here supports, fewer than float prints."""
    return None if value is None else float(f"{value / unit:.6g}")
