"""From measurements to verdicts. Pure: the same measurements give the same verdict on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, isnan, log10, sqrt

from exporter.parity.ladder import ELEMENT_GUARD, FEW, FOLLOWED, LARGEST_ERROR, UNIT_ROUNDOFF, VACUOUS, Rung
from exporter.parity.measure import Measurement, relative
from exporter.parity.usual import Sizes, usual_size
from exporter.verdict import Result, Verdict


@dataclass(frozen=True)
class Floor:
    """Eager's own error for one output at one scale, the largest over the cases of that scale."""

    relative: float
    max_abs: float

    def joined(self, other: Floor) -> Floor:
        """The larger of both, figure by figure; a figure that is no number stays none, to be seen."""
        return Floor(_larger(self.relative, other.relative), _larger(self.max_abs, other.max_abs))


def _larger(a: float, b: float) -> float:
    return a if isnan(a) or a >= b else b


def judge(
    measurements: Sequence[Measurement],
    expected: Sequence[tuple[str, str]],
    *,
    hop: str,
    target: str | None,
    form: str | None,
    rung: Rung,
    precision: str,
    guard: bool = False,
    usual: Sizes | None = None,
) -> list[Result]:
    """A result for every expected (case, output) and for everything measured beside them.

    Args:
        measurements: what a child measured.
        expected: every (case, output) that must be there; one that is not is a ``FAIL``, whatever the child said.
        hop: the hop's name.
        target: the target's name, or None.
        form: which of the artifact's files ran, or None.
        rung: the rung to stand on.
        precision: the precision asked for.
        guard: whether these are the few cases that guard a pass: too few to say that an output never moves.
        usual: what outputs of few values usually are, where these are some of the cases; else it is taken from them.
    """
    measurements = _against_the_usual(measurements, usual or {})
    by_key = {(m.case, m.output): m for m in measurements}
    floors = _floors(measurements)
    moved, ignores = _moved(measurements), _ignores(measurements) if rung.decibels is not None else {}
    keys = [*expected, *(key for key in by_key if key not in set(expected))]
    results = []
    for case, output in keys:
        found = by_key.get((case, output))
        if found is None:
            results.append(Result(hop, target, form, case, output, Verdict.FAIL, "it was never compared"))
            continue
        floor = floors[output, found.scale]
        verdict, reason = _verdict(found, floor, guard or moved[output], rung, precision)
        if verdict is Verdict.PASS and output in ignores:
            verdict, reason = Verdict.FAIL, ignores[output]
        results.append(_result(found, floor, verdict, reason, hop, target, form, precision))
    return results


def excess(result: Result, rung: Rung, precision: str) -> float:
    """How far off a result is, in units of the error allowed: at most 1 where it passes."""
    if result.relative_l2 is None or result.noise is None:
        return 0.0 if result.verdict is Verdict.PASS else float("inf")
    allowed = min(rung.bound * max(result.noise, UNIT_ROUNDOFF[precision]), rung.error)
    off = result.relative_l2 / allowed
    return off if result.verdict is Verdict.PASS else max(off, 1.001)


def _against_the_usual(measurements: Sequence[Measurement], known: Sizes) -> list[Measurement]:
    """The measurements, those of outputs of few values in units of what the output usually is.

    A score that happens to lie near zero has a large relative error in any arithmetic, eager's too: it would fail what
    is right, and stretch eager's own error until it hides what is wrong in the other cases.
    """
    sizes: dict[tuple[str, str], list[float]] = {}
    for m in measurements:
        if m.elements:
            sizes.setdefault((m.output, m.scale), []).append(m.reference_l2 / sqrt(m.elements))
    usual = {key: usual_size(found) for key, found in sizes.items()} | dict(known)
    return [_resized(m, usual[m.output, m.scale]) if 0 < m.elements < FEW else m for m in measurements]


def _resized(m: Measurement, usual: float) -> Measurement:
    """The measurement, in units of the usual root mean square of its scale's cases where its own is less."""
    size = max(usual * sqrt(m.elements), m.reference_l2)
    if not isfinite(size) or size == 0.0:
        return m
    # Eager's error may be that of a draw whose output was nearly zero; in all draws it was no larger than this.
    own = min(m.noise * m.reference_l2 if m.reference_l2 else inf, m.noise_max_abs * sqrt(m.elements))
    return replace(m, reference_l2=size, noise=own / size)


def _floors(measurements: Sequence[Measurement]) -> Mapping[tuple[str, str], Floor]:
    floors: dict[tuple[str, str], Floor] = {}
    for m in measurements:
        own = Floor(m.noise, m.noise_max_abs)
        floors[m.output, m.scale] = floors.get((m.output, m.scale), own).joined(own)
    return floors


def _moved(measurements: Sequence[Measurement]) -> Mapping[str, bool]:
    """Whether some case moves the output by more than its noise, or by more than any answer may be off."""
    enough = 2 * LARGEST_ERROR  # what lies half-way is off by more than the largest error from one of both
    moved: dict[str, bool] = {}
    for m in measurements:
        moves = m.moved > min(VACUOUS * max(m.noise, UNIT_ROUNDOFF["fp32"]), enough)
        moves = m.undecided < m.elements if m.integer else moves
        moved[m.output] = moved.get(m.output, False) or moves
    return moved


def _ignores(measurements: Sequence[Measurement]) -> dict[str, str]:
    """The outputs that do not follow their inputs, where the error alone is bounded: a constant may be near enough."""
    followed: dict[str, list[float]] = {}
    for m in measurements:
        if m.followed is not None:
            followed.setdefault(m.output, []).append(m.followed)
    return {
        output: f"what inputs change is off by {least:.0%} at best; {FOLLOWED:.0%} allowed, a constant is off by 100%"
        for output, found in followed.items()
        if not (least := min(found)) <= FOLLOWED
    }


def _verdict(m: Measurement, floor: Floor, moved: bool, rung: Rung, precision: str) -> tuple[Verdict, str | None]:
    """The first that applies: form, emptiness, finiteness, vacuity, then values."""
    if m.problem is not None:
        return Verdict.FAIL, m.problem
    if m.elements == 0:
        return Verdict.INVALID, "it is empty: nothing was compared"
    if m.bad_reference:
        both = " as well as in the output" if m.bad else ""
        reason = f"{m.bad_reference} elements are NaN or infinite in the reference{both}: equal NaNs are no agreement"
        return Verdict.INVALID, reason
    if m.bad:
        return Verdict.FAIL, f"{m.bad} of {m.elements} elements are NaN or infinite, the first at {m.first_bad}"
    if not moved and m.integer:
        return Verdict.INVALID, "every whole number of it hangs on rounding, in every case: nothing was compared"
    if not moved:
        return Verdict.INVALID, "no case moves this output: any constant would agree"
    if m.integer:
        return (Verdict.PASS, None) if m.exact else (Verdict.FAIL, f"{int(m.max_abs)} integers differ")
    return _value_verdict(m, floor, rung, precision)


def _value_verdict(m: Measurement, floor: Floor, rung: Rung, precision: str) -> tuple[Verdict, str | None]:
    figures = (m.error_l2, m.reference_l2, m.max_abs, m.noise, m.noise_max_abs, floor.relative, floor.max_abs)
    if not all(isfinite(x) for x in figures):
        return Verdict.INVALID, "a figure is not finite"
    error = relative(m.error_l2, m.reference_l2)
    if error == float("inf"):
        return Verdict.FAIL, f"the reference is all zero and the output is not (largest {m.max_abs:.3g})"
    amplification = error / max(floor.relative, UNIT_ROUNDOFF[precision])
    if amplification > rung.bound:
        reason = (
            f"error {error:.3g} is {amplification:.3g} times eager's own {floor.relative:.3g}; {rung.bound:g} allowed"
        )
        return Verdict.FAIL, reason
    if rung.decibels is not None:
        found = -20 * log10(error) if error else float("inf")
        below = f"the error is {found:.1f} dB below the output; {rung.decibels:g} dB were asked for"
        return (Verdict.FAIL, below) if error > rung.error else (Verdict.PASS, None)
    if error > rung.error:
        own = f"eager's own is {floor.relative:.3g}"
        return Verdict.FAIL, f"error {error:.3g} is above {rung.error:g}, whatever eager does ({own})"
    guard = ELEMENT_GUARD * max(floor.max_abs, UNIT_ROUNDOFF[precision] * m.reference_max)
    if m.max_abs > guard:
        return (
            Verdict.FAIL,
            f"one element is off by {m.max_abs:.3g}; {guard:.3g} is {ELEMENT_GUARD:g} times eager's largest",
        )
    return Verdict.PASS, None


def _result(
    m: Measurement,
    floor: Floor,
    verdict: Verdict,
    reason: str | None,
    hop: str,
    target: str | None,
    form: str | None,
    precision: str,
) -> Result:
    compared = m.problem is None and m.elements > 0 and not m.bad and not m.bad_reference and not m.integer
    error = relative(m.error_l2, m.reference_l2) if compared else None
    finite = error if error is not None and isfinite(error) else None
    amplification = None if finite is None else finite / max(floor.relative, UNIT_ROUNDOFF[precision])
    notes = ["the reference is all zero here"] if compared and m.reference_l2 == 0.0 else []
    notes += [f"{m.undecided} of {m.elements} whole numbers hang on rounding, and are left out"] if m.undecided else []
    return Result(
        hop=hop,
        target=target,
        form=form,
        case=m.case,
        output=m.output,
        verdict=verdict,
        reason=reason,
        relative_l2=finite,
        noise=floor.relative,
        amplification=amplification,
        max_abs=m.max_abs if compared else None,
        elements=m.elements,
        notes=tuple(notes),
    )
