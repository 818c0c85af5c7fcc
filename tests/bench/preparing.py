"""Preparing a bundle for a GPU that is not here, against preparing one for OpenVINO: the whole command, interleaved."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from exporter import registry
from exporter.latency import stats
from tests.bench.figure import EXPORTER, Figure, at_most

MODELS = ("gtcrn", "mdta", "cross-modal-attention")
ROUNDS = 5


def figures(folder: Path) -> list[Figure]:
    """One figure per model; a machine that has the runtime would build an engine, which is another matter."""
    if registry.target("tensorrt").available().present:
        return []
    return [_figure(folder, model) for model in MODELS]


def _figure(folder: Path, model: str) -> Figure:
    spent: dict[str, list[float]] = {"tensorrt": [], "openvino": []}
    for _ in range(ROUNDS):
        for target, seconds in spent.items():
            seconds.append(_prepared(folder, target, model))
    estimate = stats.ratio_interval([spent["tensorrt"]], [spent["openvino"]], 0)
    what = f"`exporter tensorrt {model} --no-profile` without TensorRT, against `openvino`, whole process"
    low, high = estimate.interval
    seconds = sorted(spent["tensorrt"])[ROUNDS // 2]
    return at_most(what, 1.2, estimate.value, interval=(low, high), note=f"{seconds:.1f} s")


def _prepared(folder: Path, target: str, model: str) -> float:
    bundle = folder / f"{target}-{model}.bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    words = [EXPORTER, target, model, "--no-profile", "-o", str(bundle)]
    started = time.perf_counter()
    code = subprocess.run(words, capture_output=True, check=False).returncode
    assert code == (3 if target == "tensorrt" else 0), f"{' '.join(words)} ended with {code}"
    return time.perf_counter() - started
