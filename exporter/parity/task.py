"""Task metrics of real inputs: eager and the artifact, each against the truth. They never decide a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter import host
from exporter.errors import Incomplete
from exporter.host.metrics import METRICS, Metric
from exporter.spec import HostStep

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]


@dataclass
class TaskMetrics:
    """Collects what real inputs gave, and computes the metrics of a definition over them.

    Attributes:
        metrics: names in :data:`exporter.host.metrics.METRICS`; a name that this version has not is left out.
        after: the host steps that turn outputs into what the metrics read.
    """

    metrics: Sequence[str]
    after: Sequence[HostStep]
    _cases: dict[str, tuple[str, Arrays, Arrays, Arrays]] = field(default_factory=dict)

    def add(self, case: str, outputs: Arrays, tensors: Arrays) -> None:
        """Takes one case.

        Args:
            case: its name.
            outputs: what the artifact gave.
            tensors: the case's file: ``truth/`` where the truth is known (else the reference stands for it),
                ``context/`` and ``eager/``.
        """
        groups = {prefix: _under(tensors, prefix) for prefix in ("context/", "truth/", "eager/", "reference/")}

        def finished(values: Arrays) -> Arrays:
            return host.apply(self.after, {**groups["context/"], **values})

        if not groups["eager/"]:
            return
        against = "truth" if groups["truth/"] else "reference"
        truth = groups["truth/"] or finished(groups["reference/"])
        self._cases[case] = (against, truth, finished(groups["eager/"]), finished(outputs))

    def as_json(self) -> list[dict[str, Any]]:
        """One entry per metric that some case has the values for."""
        entries = []
        for metric in (METRICS[name] for name in self.metrics if name in METRICS):
            with suppress(Incomplete):  # its library is not installed here
                entries.append(self._entry(metric))
        return [entry for entry in entries if entry["cases"]]

    def _entry(self, metric: Metric) -> dict[str, Any]:
        cases = {
            name: (against, truth, eager, mine)
            for name, (against, truth, eager, mine) in self._cases.items()
            if all(metric.value in values for values in (truth, eager, mine))
        }
        found = dict[str, dict[str, float | None]]()
        if metric.over == "case":
            for name, (_, truth, eager, mine) in cases.items():
                found[name] = _row(metric.function(eager, truth), metric.function(mine, truth))
        elif len(cases) > 1:
            truths, eagers, mines = ([case[i] for case in cases.values()] for i in (1, 2, 3))
            found[f"{len(cases)} cases"] = _row(metric.function(eagers, truths), metric.function(mines, truths))
        against = "+".join(sorted({case[0] for case in cases.values()}))
        return {
            "name": metric.name, "unit": metric.unit, "better": metric.better, "against": against, "cases": found,
        }  # fmt: skip


def _row(eager: float, artifact: float) -> dict[str, float | None]:
    values = {"eager": eager, "artifact": artifact, "difference": artifact - eager}
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def _under(tensors: Arrays, prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
