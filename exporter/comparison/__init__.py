"""Compare: two bundles, or two reports of one, side by side: parity, latency, sizes, layers, operators, versions.

:mod:`~exporter.comparison.side` reads a side, :mod:`~exporter.comparison.live` times artifacts side by side,
:mod:`~exporter.comparison.difference` judges. ``docs/compare.md`` says what counts as a regression.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from exporter.comparison.difference import Comparison, compared, stored
from exporter.comparison.live import Measuring, live, runnable
from exporter.comparison.operators import with_operators
from exporter.comparison.side import Machine, Side, sided, subject_of
from exporter.comparison.values import Bounds, Timed
from exporter.errors import Refused
from exporter.isolate import Limits
from exporter.report.judgements import subject_key
from exporter.stages import STAGE_SECONDS, Progress, Stages, scratch, silent
from exporter.verification import chosen

__all__ = ["Bounds", "Comparison", "Measuring", "compare"]


def compare(
    a: str,
    b: str,
    targets: Sequence[str] = (),
    bounds: Bounds | None = None,
    across_devices: bool = False,
    measuring: Measuring | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compares what two places say of one model: ``b`` against ``a``.

    Args:
        a: what was: a bundle's folder, ``BUNDLE@REPORT``, or a JSON file of verify, profile or an export.
        b: what is.
        targets: only these; all of them when empty.
        bounds: what counts as a regression.
        across_devices: whether what different devices said may be compared.
        measuring: how artifacts that both sides hold are timed here, side by side; without it what is stored counts.
        progress: told what happens.

    Raises:
        Refused: one of them is no such thing, or is damaged; ``different-models``; ``different-devices``.
    """
    bounds = bounds or Bounds()
    before, after = (_only(sided(place), targets) for place in (a, b))
    _refuse_other_model(before, after)
    with scratch() as folder:
        stages = Stages(folder, Limits(seconds=STAGE_SECONDS), progress)
        absent = runnable(before, after) if measuring else {}
        kept = {subject_of(key) for key, reason in absent.items() if not reason}
        # What is refused is refused before anything is timed.
        notes = _verified_elsewhere(before, after, across_devices)
        timings, more = _stored(before, after, bounds, across_devices, kept)
        notes += more
        notes += [f"{key} was not timed here: {reason}" for key, reason in absent.items() if reason]
        if measuring:
            here = [key for key, reason in absent.items() if not reason]
            timings = [*(live(before, after, key, bounds, measuring, stages) for key in here), *timings]
        before, after = (with_operators(side, stages) for side in (before, after))
    return compared(before, after, bounds, timings, notes)


def _only(side: Side, targets: Sequence[str]) -> Side:
    """What a side says of these targets; of graphs, which all targets share, everything."""
    if not targets:
        return side
    if side.bundle is not None:
        wanted = set(chosen(side.bundle, targets))
    else:
        known = {subject_key(name) for name in side.timings} | {f"{t}/{p}" for _, t, p in side.hops if t}
        wanted = {key for key in known if key in targets or key.partition("/")[0] in targets}

    def kept(name: str) -> bool:
        return subject_key(name) in wanted

    return replace(
        side,
        hops={key: hop for key, hop in side.hops.items() if not key[1] or f"{key[1]}/{key[2]}" in wanted},
        timings={name: timing for name, timing in side.timings.items() if kept(name)},
        artifacts=frozenset(filter(kept, side.artifacts)),
        sizes={name: size for name, size in side.sizes.items() if kept(name)},
        layers={name: counts for name, counts in side.layers.items() if kept(name)},
    )


def _refuse_other_model(a: Side, b: Side) -> None:
    if a.model and b.model and a.model != b.model:
        raise Refused(
            "different-models",
            f"{a.name} is of {a.model}, {b.name} is of {b.model}",
            where=f"{a.name}, {b.name}",
            why="a difference between two models is no regression of either",
            next="compare two bundles of one model",
        )


def _verified_elsewhere(a: Side, b: Side, across: bool) -> list[str]:
    """What to know where errors of two devices are compared: one device's kernels are not another's."""
    if not (a.hops and b.hops) or a.device == b.device:
        return []
    of_a, of_b = (side.device or "the machine of the bundle" for side in (a, b))
    if not across:
        raise _other_device("what A and B hold", "verified", a, b, of_a, of_b)
    return [f"A was verified on {of_a}, B on {of_b}"]


def _stored(a: Side, b: Side, bounds: Bounds, across: bool, without: Collection[str]) -> tuple[list[Timed], list[str]]:
    """The latencies that reports hold, of every artifact that either side has, and what to know of them."""
    timings, notes = list[Timed](), list[str]()
    for name in dict.fromkeys([*a.timings, *b.timings]):
        before, after = a.timings.get(name), b.timings.get(name)
        if name in without:
            continue
        if before and after and not before.machine.is_surely(after.machine):
            if not across:
                raise _other_device(name, "timed", a, b, before.machine, after.machine)
            notes.append(f"{name} was timed on different devices, {before.machine} and {after.machine}")
        timings.append(stored(name, before, after, bounds))
    return timings, notes


def _other_device(what: str, how: str, a: Side, b: Side, of_a: Machine | str, of_b: Machine | str) -> Refused:
    return Refused(
        "different-devices",
        f"{what} was {how} on {of_a} in A and on {of_b} in B",
        where=f"{a.name}, {b.name}",
        why="a difference between two devices is no difference between two artifacts",
        next="verify or profile both on one device; --across-devices compares them all the same, and says so",
    )
