"""What differs between two sides, and what of it is a regression. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from exporter.comparison.side import Key, Side, Timing, floor_of
from exporter.comparison.timing import settled
from exporter.comparison.values import (
    BAD,
    Bounds,
    Change,
    HopDifference,
    ResultDifference,
    Timed,
    severity,
)
from exporter.latency import stats
from exporter.latency.result import rounded
from exporter.latency.stats import Conclusion, Estimate
from exporter.manifest.text import scrubbed
from exporter.verdict import Hop, Result, Verdict

SCHEMA = "exporter.compare/1"
NOTHING = "no difference shown"


@dataclass(frozen=True)
class Comparison:
    """Everything that differs.

    Attributes:
        a, b: the sides.
        bounds: what counts.
        hops: parity, edge by edge.
        timings: latency, artifact by artifact.
        sizes, layers, operators, versions: both sides' values by name, where either has one.
        facts: what should be the same and is not.
        notes: what a reader should know.
        missing: what could not be compared at all, and why; ``parity`` and ``latency`` are its keys.
        lacking: by the same keys, what A has and B or this machine has not, where the rest could be compared.
    """

    a: Side
    b: Side
    bounds: Bounds
    hops: tuple[HopDifference, ...]
    timings: tuple[Timed, ...]
    facts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    missing: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def regressions(self) -> tuple[str, ...]:
        """What is worse beyond what is allowed, in words."""
        found = [hop.reason for hop in self.hops if hop.change in BAD]
        for timed in self.timings:
            if timed.regression and timed.ratio:
                most = f"{1 + self.bounds.slowdown:.4g}x"
                found.append(f"{timed.subject} takes {said(timed.ratio)} the time, and {most} is allowed")
            elif timed.verdict not in (Verdict.PASS, Verdict.SKIPPED):
                found.append(f"{timed.subject} could be timed in A and is {timed.verdict} in B: {timed.reason}")
        return tuple(found)

    @property
    def conclusions(self) -> tuple[str, ...]:
        """What is shown, in words, the worst first."""
        changes = {hop.change for hop in self.hops}
        shown = {timed.conclusion for timed in self.timings}
        broken = any(timed.verdict not in (Verdict.PASS, Verdict.SKIPPED) for timed in self.timings)
        said = {
            "worse parity": bool(changes & BAD),
            "cannot be timed": broken,
            "slower": Conclusion.SLOWER in shown,
            "faster": Conclusion.FASTER in shown,
            "better parity": Change.BETTER in changes,
        }
        return tuple(word for word, is_so in said.items() if is_so)

    @property
    def verdict(self) -> str:
        """What is shown, in a line; that nothing is, is an answer. Where nothing could be compared it is none."""
        if self.conclusions:
            return ", ".join(self.conclusions)
        return "not compared" if len(self.missing) == 2 else NOTHING

    @property
    def exit_code(self) -> int:
        """4 where B crashed or hung when it was timed, 1 for another regression, 3 where what was asked is missing.

        Where it must be settled whether a slow-down is beyond the bound, 1 as well where it is not.
        """
        codes = {timed.verdict.exit_code for timed in self.timings if timed.verdict is not Verdict.SKIPPED}
        if 4 in codes or self.regressions:
            return 4 if 4 in codes else 1
        if self.bounds.strict and not all(timed.facts.get("settled", True) for timed in self.timings):
            return 1
        asked = {"latency": self.bounds.asked_slowdown, "parity": self.bounds.asked_error}
        return 3 if len(self.missing) == 2 or any(asked[part] for part in {*self.missing, *self.lacking}) else 0

    def as_json(self) -> dict[str, Any]:
        """The object of ``exporter compare --json``; the text of reports, which anyone may have written, is clean."""
        a, b = self.a, self.b
        value = {
            "schema": SCHEMA,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "strict": self.bounds.strict,
            "regression": bool(self.regressions),
            "regressions": list(self.regressions),
            "missing": dict(self.missing),
            "lacking": {part: list(lines) for part, lines in self.lacking.items()},
            "allowed": {"slowdown": self.bounds.slowdown, "error": self.bounds.error},
            "model": b.model or a.model,
            "a": {"name": a.name, "model": a.model, "weights": a.weights},
            "b": {"name": b.name, "model": b.model, "weights": b.weights},
            "parity": [hop.as_json() for hop in self.hops],
            "latency": [timed.as_json() for timed in self.timings],
            "sizes": both(a.sizes, b.sizes),
            "layers": both(a.layers, b.layers),
            "operators": both(a.operators, b.operators),
            "versions": both(a.versions, b.versions),
            "facts": {name: list(pair) for name, pair in self.facts.items()},
            "notes": list(self.notes),
        }
        return {name: _clean(part) for name, part in value.items()}


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return scrubbed(value)
    if isinstance(value, dict):
        return {scrubbed(key): _clean(part) for key, part in value.items()}
    return [_clean(part) for part in value] if isinstance(value, list) else value


def both(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Both sides' values by name; null where a side has none."""
    return {name: [a.get(name), b.get(name)] for name in dict.fromkeys([*a, *b])}


def compared(a: Side, b: Side, bounds: Bounds, timings: Sequence[Timed], notes: Sequence[str] = ()) -> Comparison:
    """What differs between two sides.

    Args:
        a: what was.
        b: what is.
        bounds: what counts as a regression.
        timings: the latencies, however they were had.
        notes: what a reader should know of how.
    """
    hops = hop_differences(a, b, bounds.error) if a.hops and b.hops else ()
    missing = dict[str, str]()
    if not hops:
        missing["parity"] = _never(not a.hops, not b.hops, "verified")
    if not any(timed.ratio for timed in timings):
        reasons = list(dict.fromkeys(timed.reason for timed in timings if timed.reason))
        missing["latency"] = "; ".join(reasons) or _never(not a.timings, not b.timings, "profiled")
    names = [name for name in dict.fromkeys([*a.facts, *b.facts]) if a.facts and b.facts]
    facts = {name: (a.facts.get(name, "none"), b.facts.get(name, "none")) for name in names}
    different = {name: pair for name, pair in facts.items() if pair[0] != pair[1]}
    found = {"parity": _without_error(hops), "latency": _without_ratio(a, timings)}
    lacking = {part: lines for part, lines in found.items() if lines and part not in missing}
    return Comparison(a, b, bounds, hops, tuple(timings), different, tuple(notes), missing, lacking)


def _without_error(hops: Sequence[HopDifference]) -> tuple[str, ...]:
    """Hops whose errors are known in A and not in B: whether they grew cannot be said."""
    lines = list[str]()
    for hop in hops:
        known = [r for r in (hop.a.results if hop.a else ()) if r.relative_l2 is not None]
        in_b = {(r.form, r.case, r.output) for r in (hop.b.results if hop.b else ()) if r.relative_l2 is not None}
        without = sum((r.form, r.case, r.output) not in in_b for r in known)
        if hop.b and without:
            lines.append(f"{hop.label} has no error in B for {without} of {len(known)} results of A")
    return tuple(lines)


def _without_ratio(a: Side, timings: Sequence[Timed]) -> tuple[str, ...]:
    """Artifacts of A whose latency was not compared."""
    told = {timed.subject: timed for timed in timings}
    return tuple(
        told[name].reason if name in told else f"{name} was not timed on both sides"
        for name in sorted(a.artifacts) if name not in told or told[name].ratio is None
    )  # fmt: skip


def _never(a: bool, b: bool, done: str) -> str:
    """Which side lacks something."""
    return f"neither side was ever {done}" if a and b else f"{'A' if a else 'B'} was never {done}"


def hop_differences(a: Side, b: Side, factor: float) -> tuple[HopDifference, ...]:
    """Every edge that either side has, in A's order."""
    keys = dict.fromkeys([*a.hops, *b.hops])
    return tuple(hop_difference(key, a.hops.get(key), b.hops.get(key), factor) for key in keys)


def hop_difference(key: Key, a: Hop | None, b: Hop | None, factor: float) -> HopDifference:
    """One edge. Where one side holds its verdict alone, without results, verdicts alone are compared."""
    if a is None or b is None:
        return HopDifference(key, a, b, Change.GONE if b is None else _appeared(b.verdict))
    results: tuple[ResultDifference, ...] = ()
    if a.results and b.results:
        before, after = ({(r.form, r.case, r.output): r for r in hop.results} for hop in (a, b))
        names = dict.fromkeys([*before, *after])
        results = tuple(result_difference(before.get(name), after.get(name), factor) for name in names)
    return HopDifference(key, a, b, _overall(_by_verdict(a.verdict, b.verdict), results), results)


def _overall(verdicts: Change, results: Sequence[ResultDifference]) -> Change:
    """Worse where anything is; better where something is and nothing is worse."""
    changes = {verdicts, *(each.change for each in results)}
    if changes & BAD:
        return Change.WORSE
    return Change.BETTER if Change.BETTER in changes else Change.SAME


def result_difference(a: Result | None, b: Result | None, factor: float) -> ResultDifference:
    """One result: by its verdict, then by its error. What is below eager's own rounding is all the same."""
    if a is None or b is None:
        return ResultDifference(a, b, Change.GONE if b is None else _appeared(b.verdict))
    change = _by_verdict(a.verdict, b.verdict)
    if change is Change.SAME and a.relative_l2 is not None and b.relative_l2 is not None:
        own = max(a.noise or 0.0, b.noise or 0.0)
        if b.relative_l2 > factor * max(a.relative_l2, own):
            change = Change.WORSE
        elif a.relative_l2 > factor * max(b.relative_l2, own):
            change = Change.BETTER
    return ResultDifference(a, b, change)


def _appeared(verdict: Verdict) -> Change:
    """What is new and wrong was not wrong before."""
    return Change.NEW if severity(verdict) >= severity(Verdict.SKIPPED) else Change.WORSE


def _by_verdict(a: Verdict, b: Verdict) -> Change:
    """A verdict that is no longer PASS, or a worse one than it was; better is PASS alone, unknown is never success."""
    if severity(b) < severity(a):
        return Change.WORSE
    return Change.BETTER if b is Verdict.PASS and a is not b else Change.SAME


def stored(subject: str, a: Timing | None, b: Timing | None, bounds: Bounds) -> Timed:
    """The latencies of two reports. One process on each side, at different times: no less than their floor shows."""
    if a is None or b is None:
        why = f"{subject}: {_never(a is None, b is None, 'profiled')}"
        return Timed(subject, reason=why, verdict=Verdict.SKIPPED)
    good_a, good_b = (t.median is not None and t.verdict is Verdict.PASS for t in (a, b))
    if not good_a or not good_b:
        side, timing = ("A", a) if not good_a else ("B", b)
        verdict = b.verdict if good_a else Verdict.SKIPPED
        why = f"{subject} has no figure in {side}: {timing.verdict} {timing.reason}".strip()
        return Timed(subject, "stored", a.median, b.median, reason=why, verdict=verdict)
    if a.threads != b.threads:
        why = f"{subject} had {a.threads} threads in A and {b.threads} in B"
        return Timed(subject, "stored", a.median, b.median, reason=why, verdict=Verdict.SKIPPED)
    assert a.median is not None
    assert b.median is not None
    if floor_of(a, b) is None:
        why = f"{subject} has no noise floor in {'A' if a.floor is None else 'B'}: nothing can be claimed of it"
        return Timed(subject, "stored", a.median, b.median, reason=why, verdict=Verdict.SKIPPED)
    ratio = stats.unpaired_ratio(b.median, a.median)
    facts = {"noise_floor": rounded(floor_of(a, b)), "stability": [a.stability, b.stability],
             "reports": [a.report, b.report]}  # fmt: skip
    return judged(Timed(subject, "stored", a.median, b.median, ratio, facts=facts), floor_of(a, b), bounds)


def judged(timed: Timed, floor: float | None, bounds: Bounds) -> Timed:
    """The same with what its ratio shows, and whether that is a regression."""
    assert timed.ratio is not None
    conclusion = stats.concluded(timed.ratio, floor)
    worse = conclusion is Conclusion.SLOWER and timed.ratio.value > 1 + bounds.slowdown
    facts = {**timed.facts, "settled": settled(timed.ratio, bounds.slowdown)}
    return replace(timed, conclusion=conclusion, regression=worse, facts=facts)


def said(ratio: Estimate) -> str:
    """A ratio with its interval."""
    return f"{ratio.value:.3f}x ({ratio.low:.3f} to {ratio.high:.3f})"
