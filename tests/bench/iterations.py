"""Selective-RAFT, iteration by iteration: the end-point error of artifacts beside eager's, on a real stereo pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

import exporter
from exporter import host
from exporter.define import eager
from exporter.host.metrics import METRICS
from exporter.registry import model
from exporter.samples import prepare
from exporter.spec import ModelDef
from tests.bench.figure import Figure, at_most

MODEL, MOST = "selective-raft-loop", 32
TARGETS = ("openvino", "mobile")
SHOWN = (1, 2, 4, 8, 16, 32)


def figures(folder: Path) -> list[Figure]:
    """Over 32 iterations: the end-point error between artifact and eager, and how far apart theirs to the truth are."""
    definition, bundle = model(MODEL), folder / f"{MODEL}.bundle"
    sample = next(iter(definition.samples()))  # type: ignore[misc]
    prepared = prepare(definition, sample.values, Path(sample.name))
    right = {**sample.truth}

    def finished(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return host.apply(definition.after, {**prepared.context, **outputs}, definition.dims)

    counts = range(1, MOST + 1)
    expected = [finished(found) for found in _by_eager(definition, prepared.inputs, counts)]
    found = []
    for target in TARGETS:
        exporter.export(MODEL, target, bundle, profile=False)
        with exporter.open(bundle).runner(target) as runner:
            given = [{**prepared.inputs, "iterations": np.array(count)} for count in counts]
            mine = [finished(copied(runner.infer(values, check_inputs=False))) for values in given]
        epe = METRICS["epe"].function
        apart = [epe(a, {"disparity": b["disparity"]}) for a, b in zip(mine, expected, strict=True)]
        to_truth, eager_to_truth = ([epe(values, right) for values in curve] for curve in (mine, expected))
        what = f"`{MODEL}`, {target}, seeded weights, a real pair, {MOST} iterations: "
        found.append(
            at_most(
                what + "largest end-point error of the artifact against eager", 0.01, max(apart), " px",
                note="after an iteration: " + ", ".join(f"{n}: {apart[n - 1]:.2g}" for n in SHOWN),
            )
        )  # fmt: skip
        curve = ", ".join(f"{n}: {to_truth[n - 1]:.4g} ({eager_to_truth[n - 1]:.4g})" for n in SHOWN)
        found.append(
            at_most(
                what + "largest difference of their end-point errors against the truth", 0.001,
                float(np.abs(np.subtract(to_truth, eager_to_truth)).max()), " px",
                note=f"pixels after an iteration, eager in brackets: {curve}",
            )
        )  # fmt: skip
    return found


def _by_eager(
    definition: ModelDef, inputs: Mapping[str, np.ndarray], counts: Iterable[int]
) -> Iterator[dict[str, np.ndarray]]:
    import torch

    module = eager({"model": MODEL, "options": {}, "checkpoint": None, "seed": 0})
    tensors = [torch.from_numpy(inputs[t.name]) for t in definition.inputs]
    for count in counts:
        with torch.inference_mode():
            outputs = module(*tensors, iterations=count)
        yield {t.name: y.numpy() for t, y in zip(definition.outputs, outputs, strict=True)}


def copied(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runners reuse their buffers."""
    return {name: np.array(value) for name, value in outputs.items()}
