"""Times subjects against one another so that the number survives a second look.

One child per subject, one of them awake at a time; a second child of the first artifact, the A/A twin, shows what two
runs of the same thing differ by here. What a subject did wrong voids that subject alone and is listed with its reason.
The conversation is in :mod:`exporter.latency.children`, what comes of it in :mod:`exporter.latency.result`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from exporter.latency import environment as surroundings
from exporter.latency import stats
from exporter.latency.children import Progress, Run, Starter, started
from exporter.latency.environment import Environment, Warned
from exporter.latency.layered import beyond
from exporter.latency.result import TWIN, Measured, Profile, Ratio, Subject
from exporter.latency.schedule import Schedule
from exporter.latency.stats import Estimate
from exporter.work.roofline import Peaks

BUDGET_SECONDS = 6.0


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
    peaks: Callable[[int], Peaks] | None = None,
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
        peaks: measures what this machine reaches at best with so many threads, before any subject is opened.

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
    reached = None if peaks is None else peaks(threads)
    run = Run(starter or started, threads, log_folder, seed, progress or _quiet)
    try:
        run.open_all(subjects)
        plan = run.plan(budget_seconds)
        seconds = run.time_all(plan)
        devices = {"before": before, "after": conditions()} if before else {}
        run.learn_facts()
    finally:
        run.end()
    return _concluded(run, plan, facts, devices, budget_seconds=budget_seconds, seconds=seconds, peaks=reached)


def _quiet(line: str) -> None:
    """Tells nobody."""


def _concluded(
    run: Run,
    plan: Schedule,
    facts: Environment,
    devices: Mapping[str, Mapping[str, Any]],
    *,
    budget_seconds: float,
    seconds: float,
    peaks: Peaks | None,
) -> Profile:
    """What may be said of a run that is over."""
    measured = tuple(unit.measured() for name, unit in run.units.items() if name != run.twin)
    twin = run.units[run.twin].measured() if run.twin else None
    by_name = {one.subject.name: one for one in measured}
    twins = _ratio(twin, by_name[run.twin.removesuffix(TWIN)], plan.seed) if twin and run.twin else None
    ratios = _ratios(measured, stats.noise_floor(twins), plan.seed)
    warned = [*surroundings.warnings(facts, run.threads), *_on_budget(plan, budget_seconds), *_on_twin(twins, measured)]
    warned += [*_on_devices(devices), *_on_peaks(measured, peaks)]
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
        peaks=peaks,
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


def _on_peaks(measured: Sequence[Measured], peaks: Peaks | None) -> list[Warned]:
    """Peaks that a layer exceeds were measured while something else had the processor."""
    if peaks is None:
        return []
    layers = [n for m in measured for n in beyond(m.ran.get("layer_times", ()), m.subject.work, peaks)]
    if not layers:
        return []
    what = f"{len(layers)} layers, {layers[0]} first, computed faster than this machine's measured peak"
    return [Warned("peaks", what, "shares of the peaks mean little; stop other work, and repeat")]


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
