"""Who runs when, and how often: decided before the first block from a recorded seed, as a value a test can assert.

Whoever runs second inherits heat, caches and boost, so every round is a random order of all subjects
(google/benchmark's random interleaving). A block is long enough that the switch of processes is a small part of it
and short enough that many fit into the budget; what changes slowly then changes for all.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.latency.clock import PROCESSOR, WALL

BLOCK_NS = 40_000_000
# So long a subject runs after a switch before its clock starts, at least one call. Measured on two cores with two
# threads: for 40 ms after a child is let go the kernel may keep both threads on one core, and up to half of the calls
# take twice as long; after 60 ms hardly any does. Caches and clocks settle sooner.
SETTLE_NS = 60_000_000
# By the processor's clock nothing of that counts; what is left are caches that the other subject filled.
COOL_NS = 10_000_000
# One step of the processor's clock, which the kernel has to be asked for.
PROCESSOR_TICK_NS = 1_000
# A call longer than this hides what is left of that.
SETTLED_NS = 1_000_000_000
# Under this, two readings of the clock are a visible part of a call: time the block as a whole, without percentiles.
SHORT_CALL_NS = 20_000
# One step of the clock may be this part of a call that is timed alone.
TICKS_PER_CALL = 200
MIN_ROUNDS, MAX_ROUNDS = 9, 120
# A slow model may take this many budgets to reach MIN_ROUNDS; beyond, rounds fall to the fewest for which a median
# has a 95 % bound at all, and the result says so.
PATIENCE = 5.0
FEWEST_ROUNDS = 5


@dataclass(frozen=True)
class Pace:
    """How one subject's block runs.

    Attributes:
        calls: timed calls in a block.
        settle: untimed calls before them.
        each: whether every call is timed alone; otherwise the block as a whole.
        clock: by which clock (:mod:`exporter.latency.clock`).
    """

    calls: int
    settle: int
    each: bool
    clock: str = WALL


@dataclass(frozen=True)
class Schedule:
    """Every block of a run, in order.

    Attributes:
        seed: what the order was drawn from.
        rounds: for each round the subjects in the order they run.
        paces: how each subject's blocks run.
        expected_seconds: how long all blocks should take.
    """

    seed: int
    rounds: tuple[tuple[str, ...], ...]
    paces: Mapping[str, Pace]
    expected_seconds: float


def pace(call_ns: float, tick_ns: float = 0.0, block_ns: float = BLOCK_NS, clock: str = WALL) -> Pace:
    """How a block of a subject runs whose call takes ``call_ns`` on a clock with steps of ``tick_ns``."""
    call_ns = max(1.0, call_ns)
    calls = max(1, round(block_ns / call_ns))
    settling = COOL_NS if clock == PROCESSOR else SETTLE_NS
    settle = 0 if call_ns >= SETTLED_NS else max(1, round(settling / call_ns))
    return Pace(calls, settle, call_ns >= max(SHORT_CALL_NS, TICKS_PER_CALL * tick_ns), clock)


def interleaved(names: Sequence[str], rounds: int, seed: int) -> tuple[tuple[str, ...], ...]:
    """So many rounds, each a random order of all names; the same seed gives the same order on every machine."""
    draw = random.Random(seed)  # noqa: S311 (an order, not a secret)
    return tuple(tuple(draw.sample(list(names), len(names))) for _ in range(rounds))


def alternated(call_ns: Mapping[str, float], rounds: int, seconds: float, seed: int, clock: str) -> Schedule:
    """So many rounds of a few subjects by one clock; where calls are slow as many as fit, two at least.

    Args:
        call_ns: what a call of each subject took at the end of its warm-up.
        rounds: how many there are where calls are short.
        seconds: how long all of them may take.
        seed: seeds the order.
        clock: by which clock calls are timed.
    """
    tick = PROCESSOR_TICK_NS if clock == PROCESSOR else 0.0
    paces = {name: pace(ns, tick, clock=clock) for name, ns in call_ns.items()}
    one = sum((p.calls + p.settle) * call_ns[name] for name, p in paces.items()) / 1e9
    count = max(2, min(rounds, math.floor(seconds / one)))
    return Schedule(seed, interleaved(list(call_ns), count, seed), paces, count * one)


def rounds_within(round_seconds: float, budget_seconds: float) -> int:
    """How many rounds a budget allows: as many as fit, at least nine, fewer only where nine would take far too long."""
    if round_seconds <= 0:
        return MAX_ROUNDS
    fitting = math.floor(budget_seconds / round_seconds)
    patient = math.floor(PATIENCE * budget_seconds / round_seconds)
    return max(FEWEST_ROUNDS, min(MAX_ROUNDS, max(fitting, min(MIN_ROUNDS, patient))))


def scheduled(
    call_ns: Mapping[str, float],
    *,
    budget_seconds: float,
    seed: int,
    tick_ns: Mapping[str, float] | None = None,
    check_ns: Mapping[str, float] | None = None,
) -> Schedule:
    """The blocks of a run.

    Args:
        call_ns: what a call of each subject took at the end of its warm-up.
        budget_seconds: how long all blocks together should take.
        seed: seeds the order.
        tick_ns: one step of each subject's clock.
        check_ns: what comparing a subject's outputs after a block takes.
    """
    ticks, checks = tick_ns or {}, check_ns or {}
    paces = {name: pace(ns, ticks.get(name, 0.0)) for name, ns in call_ns.items()}
    costs = ((p.calls + p.settle) * call_ns[name] + checks.get(name, 0.0) for name, p in paces.items())
    round_seconds = sum(costs) / 1e9
    count = rounds_within(round_seconds, budget_seconds)
    return Schedule(seed, interleaved(list(call_ns), count, seed), paces, count * round_seconds)
