"""Task metrics of real inputs: eager and the artifact, each against the truth. They never decide a verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter import host
from exporter.bundle import under
from exporter.errors import Incomplete, Refused
from exporter.host.metrics import METRICS, Metric
from exporter.host.preview import bounded, previews
from exporter.spec import Dim, HostStep

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]


# Whether a case's truth is known, or the float64 reference stands for it: a metric never mixes the two.
TRUTH, REFERENCE = "truth", "reference"


@dataclass(frozen=True)
class _Case:
    """One real input after the host steps: what is right, what eager gave, what the artifact gave."""

    against: str
    right: Arrays
    eager: Arrays
    artifact: Arrays


@dataclass
class TaskMetrics:
    """Collects what real inputs gave, and computes the metrics of a definition over them.

    Attributes:
        metrics: names in :data:`exporter.host.metrics.METRICS`; a name that this version has not is left out.
        after: the host steps that turn outputs into what the metrics read.
        dims: the model's, for options of host steps.
    """

    metrics: Sequence[str]
    after: Sequence[HostStep]
    dims: Sequence[Dim] = ()
    _cases: dict[str, _Case] = field(default_factory=dict)

    def add(self, case: str, outputs: Arrays, tensors: Arrays) -> None:
        """Takes one case.

        Args:
            case: its name.
            outputs: what the artifact gave.
            tensors: the case's file: ``truth/`` where the truth is known (else the reference stands for it),
                ``context/`` and ``eager/``.
        """
        groups = {prefix: under(tensors, prefix) for prefix in ("context/", "truth/", "eager/", "reference/")}

        def finished(values: Arrays) -> Arrays:
            return host.apply(self.after, {**groups["context/"], **values}, self.dims)

        if not groups["eager/"]:
            return
        against, right = (TRUTH, groups["truth/"]) if groups["truth/"] else (REFERENCE, finished(groups["reference/"]))
        self._cases[case] = _Case(against, right, finished(groups["eager/"]), finished(outputs))

    def previews(self) -> dict[str, Array]:
        """What a person looks at of the artifact's answers, small, as ``CASE/NAME``."""
        return bounded({name: previews(case.artifact) for name, case in self._cases.items()})

    def as_json(self) -> list[dict[str, Any]]:
        """One entry per metric that some case has the values for."""
        entries = []
        for metric in (METRICS[name] for name in self.metrics if name in METRICS):
            with suppress(Incomplete):  # its library is not installed here
                entries.append(self._entry(metric))
        return [entry for entry in entries if entry["cases"]]

    def _entry(self, metric: Metric) -> dict[str, Any]:
        rows = _each(metric, self._cases) if metric.over == "case" else _together(metric, self._cases.values())
        return {"name": metric.name, "unit": metric.unit, "better": metric.better, "cases": rows}


def _each(metric: Metric, cases: Mapping[str, _Case]) -> dict[str, Any]:
    """A row per case."""
    return {
        name: _row(case.against, metric.function, case.eager, case.artifact, case.right)
        for name, case in cases.items()
        if _has(metric, case)
    }


def _together(metric: Metric, cases: Collection[_Case]) -> dict[str, Any]:
    """A row over all cases with a truth, and one over those without: a correlation is of many."""
    rows = {}
    for against in (TRUTH, REFERENCE):
        group = [case for case in cases if case.against == against and _has(metric, case)]
        if len(group) > 1:
            eager, artifact, right = ([getattr(c, side) for c in group] for side in ("eager", "artifact", "right"))
            label = f"{len(group)} cases" + (" without truth" if against == REFERENCE else "")
            rows[label] = _row(against, metric.function, eager, artifact, right)
    return rows


def _has(metric: Metric, case: _Case) -> bool:
    return all(metric.value in values for values in (case.right, case.eager, case.artifact))


def _row(against: str, function: Callable[[Any, Any], float], eager: Any, artifact: Any, right: Any) -> dict[str, Any]:
    """One row; a truth that does not fit leaves a note, not a verdict."""
    try:
        theirs, ours = function(eager, right), function(artifact, right)
    except Refused as error:
        return {"against": against, "eager": None, "artifact": None, "difference": None, "note": error.what}
    values = {"eager": theirs, "artifact": ours, "difference": ours - theirs}
    return {"against": against, **{name: float(x) if math.isfinite(x) else None for name, x in values.items()}}
