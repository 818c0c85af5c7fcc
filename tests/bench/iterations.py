"""Selective-RAFT, iteration by iteration: the end-point error of artifacts beside eager's, on a real stereo pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import exporter
from exporter import host
from exporter.define import eager
from exporter.host.metrics import METRICS
from exporter.registry import model
from exporter.samples import prepare
from tests.bench.figure import Figure, at_most

MODEL, MOST = "selective-raft-loop", 32
TARGETS = ("openvino", "mobile")
SHOWN = (1, 2, 4, 8, 16, 32)


def figures(folder: Path) -> list[Figure]:
    """The largest difference of end-point error over 32 iterations, one figure per target."""
    import torch

    definition, bundle = model(MODEL), folder / f"{MODEL}.bundle"
    sample = next(iter(definition.samples()))  # type: ignore[misc]
    prepared = prepare(definition, sample.values, Path(sample.name))
    module = eager({"model": MODEL, "options": {}, "checkpoint": None, "seed": 0})
    tensors = [torch.from_numpy(prepared.inputs[t.name]) for t in definition.inputs]

    def epe(outputs: dict[str, np.ndarray]) -> float:
        values = host.apply(definition.after, {**prepared.context, **outputs})
        return METRICS["epe"].function(values, sample.truth)

    def by_eager(count: int) -> float:
        with torch.inference_mode():
            found = module(*tensors, iterations=count)
        return epe({t.name: y.numpy() for t, y in zip(definition.outputs, found, strict=True)})

    expected = [by_eager(count) for count in range(1, MOST + 1)]
    found = []
    for target in TARGETS:
        exporter.export(MODEL, target, bundle, profile=False)
        with exporter.open(bundle).runner(target) as runner:
            curve = [
                epe(runner.infer({**prepared.inputs, "iterations": np.array(count)}, check_inputs=False))
                for count in range(1, MOST + 1)
            ]
        shown = ", ".join(f"{count}: {curve[count - 1]:.4g} ({expected[count - 1]:.4g})" for count in SHOWN)
        what = f"`{MODEL}`, {target}, seeded weights, a real pair: end-point error after each of {MOST} iterations, "
        difference = float(np.abs(np.subtract(curve, expected)).max())
        found.append(
            at_most(
                what + "largest difference to eager", 0.001, difference, " px",
                note=f"pixels after an iteration, eager in brackets: {shown}",
            )
        )  # fmt: skip
    return found
