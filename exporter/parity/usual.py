"""What an output usually is, over cases: an output of few values is measured against that.

Why: ``docs/adr/0013-few-values-against-the-usual.md``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

from exporter.bundle import read_tensors, under
from exporter.parity.ladder import FEW
from exporter.parity.measure import l2

# The usual root mean square of an output at a scale.
Sizes = Mapping[tuple[str, str], float]


def usual_size(sizes: Iterable[float]) -> float:
    """What an output usually is, of its root mean squares over cases: one large answer makes no room for all others."""
    return median(sizes)


def usual_sizes(cases: Iterable[Mapping[str, Any]], outputs: Collection[str]) -> Sizes:
    """What the outputs of few values usually are, of the references in the files of cases.

    Args:
        cases: ``{"scale", "file"}`` each.
        outputs: the names of the outputs.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for case in cases:
        references = under(read_tensors(Path(case["file"])), "reference/")
        for name, value in references.items():
            if name in outputs and 0 < value.size < FEW:
                found.setdefault((name, case["scale"]), []).append(l2(value.astype(float)) / sqrt(value.size))
    return {key: usual_size(sizes) for key, sizes in found.items()}
