"""What measurements say beside verdicts, for people: drift, ties, how errors are spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.parity.measure import FIRST_POWER, PIECES, Measurement


def drift(measured: Sequence[Measurement]) -> dict[str, Any]:
    """The drift curves of sequences: the error after each step, and eager's own."""
    curves = {m.case: {"output": m.output, "error": m.drift, "eager": m.drift_noise} for m in measured if m.drift}
    return {"drift": curves} if curves else {}


def undecided(measured: Sequence[Measurement]) -> dict[str, Any]:
    """How many whole numbers were left out, since they hang on rounding alone, of how many."""
    left = sum(m.undecided for m in measured)
    return {"undecided": {"left": left, "of": sum(m.elements for m in measured if m.integer)}} if left else {}


def histograms(measured: Sequence[Measurement]) -> dict[str, Any]:
    """Per output, over all cases: how many elements are exact, and how many are off by how much."""
    found: dict[str, list[int]] = {}
    for m in measured:
        if m.histogram:
            before = found.get(m.output, [0] * len(m.histogram))
            found[m.output] = [a + b for a, b in zip(before, m.histogram, strict=True)]
    return {
        output: {"first_power": FIRST_POWER, "step": 1 / PIECES, "exact": exact, "counts": counts}
        for output, (exact, *counts) in found.items()
    }
