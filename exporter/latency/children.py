"""The children of a profile and the conversation with them: one is awake at a time, what one did wrong voids it alone.

What a child may say is in :mod:`exporter.latency.worker`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from exporter.errors import ExporterError, Incomplete
from exporter.latency import environment as surroundings
from exporter.latency import schedule, stats
from exporter.latency.result import TWIN, Block, Measured, Subject
from exporter.latency.schedule import Pace, Schedule
from exporter.latency.stats import Cause, Reason
from exporter.verdict import Verdict

# At least 20 runs and 1 s, but a model of seconds per call stops once 3 s are spent (one call, at the least).
WARM_RUNS, WARM_SECONDS, WARM_MOST_SECONDS = 20, 1.0, 3.0
OPEN_SECONDS = 300.0
# A block may take so many times what the warm-up promised before its child counts as hung.
HUNG_FACTOR, HUNG_SECONDS = 20.0, 60.0
# Blocks end once they took so many times what was planned: a machine that got slower must not hold up an export.
OVERRUN = 3.0


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


Starter = Callable[[Subject, int, Path], Child]
Progress = Callable[[str], None]


class _VoidedError(Exception):
    """A subject's measurement ended; the run goes on without it."""

    def __init__(self, verdict: Verdict, reason: str, cause: Cause | None = None) -> None:
        super().__init__(reason)
        self.verdict, self.reason, self.cause = verdict, reason, cause


class Unit:
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


class Run:
    """The children of one profile."""

    def __init__(
        self,
        starter: Starter,
        threads: int,
        log_folder: Path,
        seed: int,
        progress: Progress,
        warm_seconds: float = WARM_SECONDS,
    ) -> None:
        self.starter, self.threads, self.log_folder = starter, threads, log_folder
        self.seed, self.progress, self.warm_seconds = seed, progress, warm_seconds
        self.units: dict[str, Unit] = {}
        self.twin: str | None = None
        self.order: list[tuple[int, str]] = []

    def open_all(self, subjects: Sequence[Subject], twin: bool = True) -> None:
        """Opens one after the other, each paused before the next one starts; then the twin of the first artifact."""
        for subject in subjects:
            self._open(subject)
        if not twin:
            return
        alive = (s for s in subjects if not s.baseline and self.units[s.name].alive)
        first = next(alive, None)
        if first is not None:
            self.twin = first.name + TWIN
            self._open(replace(first, name=self.twin, request={**first.request, "layers": False}))

    def _open(self, subject: Subject) -> None:
        unit = self.units[subject.name] = Unit(subject, subject.threads or self.threads, self.seed)
        if subject.skipped:
            unit.void(Verdict.SKIPPED, subject.skipped)
            return
        self.progress(f"open {subject.name}")
        self._guarded(unit, lambda: self._opened(unit))

    def _opened(self, unit: Unit) -> None:
        unit.child = self.starter(unit.subject, unit.threads, self.log_folder)
        unit.opened = unit.answer(OPEN_SECONDS)
        unit.require_right(unit.opened.get("check", {}), "in the first run")
        first_seconds = unit.opened["first_run_ns"] / 1e9
        command = {"do": "warm", "runs": WARM_RUNS, "seconds": self.warm_seconds, "most_seconds": WARM_MOST_SECONDS}
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
                self.block(number, name, plan.paces[name])
        return time.monotonic() - start

    def block(self, number: int, name: str, pace: Pace) -> None:
        """One block of one subject, and whether its last call was right."""
        unit = self.units[name]
        if unit.alive:
            self.order.append((number, name))
            self._guarded(unit, lambda: self._timed(unit, pace))

    def _timed(self, unit: Unit, pace: Pace) -> None:
        """One block, and then at once whether its last call was right."""
        expected = (pace.calls + pace.settle) * unit.call_ns / 1e9
        timeout = HUNG_SECONDS + HUNG_FACTOR * expected
        before = surroundings.throttling()
        command = {"do": "block", "calls": pace.calls, "settle": pace.settle, "each": pace.each, "clock": pace.clock}
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

    def _guarded(self, unit: Unit, work: Callable[[], None]) -> None:
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


def _learn_facts(unit: Unit) -> None:
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


def started(subject: Subject, threads: int, log_folder: Path) -> Child:
    """Starts a real child. Every runtime that listens to OpenMP's variable gets the same number of threads."""
    from exporter.isolate import Limits, start

    request = {**subject.request, "threads": threads}
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in subject.name)
    log = log_folder / f"profile-{safe}.log"
    env = {"OMP_NUM_THREADS": str(threads)}
    return start(subject.function, request, limits=Limits(), log=log, stage=f"profile {subject.name}", env=env)
