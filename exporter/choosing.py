"""Choosing: the precision that was named, or with ``auto`` the fastest that meets the budget; timed beside float32.

``auto`` makes a candidate of every precision the target has here, keeps those that pass and meet the budget, and times
them against one another in one run. A less exact one is taken only where it was shown to be faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exporter.budget import Budget
from exporter.candidate import EXACT, Candidate, Making, key_of, made, unverified
from exporter.errors import ExporterError, Incomplete, NotProven, Refused, StageFailed, nearest
from exporter.latency.result import Profile
from exporter.latency.stats import Conclusion
from exporter.latency.subjects import subject_name, timed
from exporter.manifest import Manifest
from exporter.models.rebuild import Code
from exporter.parity.ladder import UNIT_ROUNDOFF
from exporter.preflight import Opening
from exporter.request import AUTO, Request
from exporter.target import INTEGER, Target
from exporter.verdict import Hop, Precision, Verdict, worst


@dataclass(frozen=True)
class Chosen:
    """What an export leaves: the manifest with the chosen target, its hops, its latency, and what ``auto`` tried."""

    manifest: Manifest
    candidate: Candidate
    profile: Profile | None
    auto: Mapping[str, Any] | None = None


def refuse_precision(target: Target, precision: str, device: int) -> None:
    """Refuses a precision that a target has not, or not on this machine.

    Raises:
        Refused: ``unsupported-precision``.
    """
    if precision == AUTO:
        raise Refused(
            "unsupported-precision",
            "a bundle is compiled in one precision, and auto is none",
            where=f"target {target.name}",
            why="auto chooses among precisions where the model is exported",
            next=f"exporter {target.name} MODEL --precision auto, or name one of {', '.join(target.precisions)}",
        )
    if precision not in target.precisions:
        raise Refused(
            "unsupported-precision",
            f"{target.name} has no precision {precision!r}{nearest(precision, [*target.precisions, AUTO])}",
            where=f"target {target.name}",
            why=target.without.get(precision, f"it offers {', '.join(target.precisions)}"),
            next=f"--precision {next(iter(target.precisions))}",
        )
    lack = target.lacks(precision, device)
    if lack is not None:
        raise Refused(
            "unsupported-precision",
            f"{target.name} cannot compute in {precision} here: {lack.reason}",
            where=f"target {target.name}, {lack.node}",
            why="what would run instead is another precision than the one asked for",
            next=lack.remedy,
        )


def precisions_of(target: Target, request: Request) -> list[str]:
    """The precisions to make: the one that was named, or every one that the target has on this machine.

    Raises:
        Refused: ``unsupported-precision``; ``bad-option`` for ``auto`` without timing.
        Incomplete: ``runtime-absent`` for ``auto`` where nothing can be timed.
    """
    if request.precision != AUTO:
        refuse_precision(target, request.precision, request.device)
        return [request.precision]
    available = target.available()
    if not available.present:
        raise Incomplete(
            "runtime-absent",
            f"--precision auto chooses by measuring, and {target.name} cannot run here: {available.reason}",
            where=f"target {target.name}",
            why="which precision is fastest is another answer on every machine",
            next=f"name one of {', '.join(target.precisions)}, or run the same command where the runtime is",
        )
    if not request.profile:
        why = "what is not timed is not known to be fast"
        raise Refused("bad-option", "--precision auto chooses by timing, which --no-profile forbids", why=why,
                      next="leave --no-profile out, or name a precision")  # fmt: skip
    able = [p for p in target.precisions if target.lacks(p, request.device) is None]
    return sorted(able, key=lambda p: UNIT_ROUNDOFF.get(p, 1.0))  # the most exact first


def chosen(making: Making, manifest: Manifest, asked: Sequence[str], budget: Budget, own: Budget) -> Chosen:
    """Makes what was asked for and times it.

    Args:
        making: what with; its request's precision may be ``auto``.
        manifest: the bundle's, with its graphs and cases.
        asked: the precisions to make.
        budget: what the user allows.
        own: what the definition allows int8 and ``auto``.
    """
    if making.request.precision == AUTO:
        return _auto(making, manifest, asked, budget, own)
    found = made(_for(making, asked[0], budget, own), manifest)
    measured = None
    if making.request.profile and found.hop.verdict in (Verdict.PASS, Verdict.FAIL):
        measured = _beside_exact(making, found)
    return Chosen(found.manifest, found, measured)


def _for(making: Making, precision: str, budget: Budget, own: Budget) -> Making:
    """The same for one precision, with what that may cost: int8 and ``auto`` have the definition's bounds too."""
    integer = bool(INTEGER & set(making.target.lowers.get(precision, ())))
    if integer:
        budget = budget.over(own)
    elif making.request.precision == AUTO:
        budget = budget.over(Budget(losses=own.losses))
    return replace(making, request=replace(making.request, precision=precision), budget=budget)


def _beside_exact(making: Making, found: Candidate) -> Profile:
    """The latency of a candidate beside float32 of the same target, and eager.

    Where the bundle holds no float32, one is compiled for this alone; a runtime that fails on it is left out.
    """
    target, precision = making.target, making.request.precision
    keys, manifest = [key_of(target.name, precision)], found.manifest
    if precision != EXACT and EXACT in target.precisions:
        exact = key_of(target.name, EXACT)
        held = manifest.targets.get(exact)
        if held is None or held.status != "compiled":
            exactly = replace(making, request=replace(making.request, precision=EXACT), budget=Budget())
            try:
                manifest = unverified(exactly, manifest)
            except (NotProven, StageFailed, Incomplete):
                return _timed(making, manifest, keys)
        keys.append(exact)
    return _timed(making, manifest, keys)


def _timed(making: Making, manifest: Manifest, keys: Sequence[str]) -> Profile:
    request = making.request
    code = Code(request.checkpoint, request.model if request.own else "")
    return timed(
        making.path_of, manifest, keys, making.stages,
        code=code, seed=request.seed, threads=request.threads, opening=Opening(request.device),
    )  # fmt: skip


def _auto(making: Making, manifest: Manifest, asked: Sequence[str], budget: Budget, own: Budget) -> Chosen:
    before, tried = manifest.targets, dict[str, Candidate]()
    for precision in asked:
        one = _for(making, precision, budget, own)
        try:
            tried[precision] = made(one, manifest)
        except (NotProven, StageFailed, Incomplete) as error:
            tried[precision] = Candidate(manifest, (_failed(one, error),))
        manifest = tried[precision].manifest
    passed = [p for p, candidate in tried.items() if worst(hop.verdict for hop in candidate.hops) is Verdict.PASS]
    measured = None
    if passed:
        keys = [key_of(making.target.name, precision) for precision in reversed(passed)]
        measured = _timed(making, manifest, keys)
    device = making.request.device
    best = fastest(making.target.name, passed, measured) if measured else _nearest(tried)
    key = key_of(making.target.name, best)
    targets = before | ({key: manifest.targets[key]} if key in manifest.targets else {})
    held = {info.precision for info in targets.values()}
    yardsticks = {precision: file for precision, file in manifest.yardsticks.items() if precision in held}
    final = replace(manifest, targets=targets, yardsticks=yardsticks)
    told = {
        "chosen": best,
        "why": _why(making.target.name, best, passed, measured),
        "budget": str(budget.over(own)),
        "tried": [_row(making.target.name, p, candidate, manifest, measured) for p, candidate in tried.items()],
        "lacking": {p: str(lack) for p in making.target.precisions if (lack := making.target.lacks(p, device))},
    }
    return Chosen(final, tried[best], measured, told)


def _failed(making: Making, error: ExporterError) -> Hop:
    verdict = Verdict.UNSUPPORTED if isinstance(error, NotProven) else Verdict.CRASHED
    return Hop("compiled", making.target.name, verdict, error.what, Precision(making.request.precision, "-"))


def fastest(target: str, passed: Sequence[str], measured: Profile) -> str:
    """The fastest of these precisions, the most exact first; another is taken only where it was shown to be faster."""
    shown = {(ratio.of, ratio.to): ratio.conclusion for ratio in measured.ratios}
    best = passed[0]
    for precision in passed[1:]:
        pair = subject_name(target, precision), subject_name(target, best)
        if shown.get(pair) is Conclusion.FASTER or shown.get(pair[::-1]) is Conclusion.SLOWER:
            best = precision
    return best


def _nearest(tried: Mapping[str, Candidate]) -> str:
    """Where nothing meets the budget: what errs least of what could be measured."""

    def decibels(precision: str) -> float:
        found = tried[precision].hop.facts.get("spent", {}).get("decibels")
        return float("-inf") if found is None else float(found)

    return max(tried, key=decibels)


def _why(target: str, best: str, passed: Sequence[str], measured: Profile | None) -> str:
    if not passed:
        return "nothing meets the budget; this comes nearest"
    if len(passed) == 1:
        return "it alone passes and meets the budget"
    exact = subject_name(target, passed[0])
    if measured is None or not any(one.timed for one in measured.subjects if one.subject.name == exact):
        return "the most exact is taken: it could not be timed, so nothing was shown to be faster"
    slower = [p for p in passed if p != best]
    if best == passed[0]:
        return f"none of {', '.join(slower)} was shown to be faster"
    return f"of what meets the budget it was shown to be fastest, on {target}"


def _row(
    target: str, precision: str, candidate: Candidate, manifest: Manifest, measured: Profile | None
) -> dict[str, Any]:
    hop, key = candidate.hop, key_of(target, precision)
    info = manifest.targets.get(key)
    name = subject_name(target, precision)
    subject = next((s for s in measured.subjects if s.subject.name == name), None) if measured else None
    figures = subject.as_json() if subject is not None else {}
    return {
        "precision": precision,
        "way": info.way if info else "",
        "verdict": hop.verdict.value,
        "reason": hop.reason,
        "spent": hop.facts.get("spent"),
        "work": hop.facts.get("work"),
        "median_ms": figures.get("median_ms"),
        "bytes": figures.get("bytes"),
    }
