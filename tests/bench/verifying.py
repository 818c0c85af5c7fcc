"""Verifying a bundle where PyTorch is not installed, against a bare process that does the same work."""

from __future__ import annotations

from pathlib import Path

from exporter.bundle import Bundle
from tests.bench.figure import CHECKPOINT, DEVICE, EXPORTER, Figure, at_most, repeated, whole

# The least that any check must do: import, read, compile, run every case.
BARE = """
import sys
import numpy as np
import openvino as ov
from safetensors.numpy import load_file
core = ov.Core()
settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
model = core.compile_model(core.read_model(sys.argv[1], sys.argv[2]), "CPU", settings)
for path in sys.argv[3:]:
    tensors = load_file(path)
    y = model({"spec": tensors["input/spec"]})["enhanced"]
    y64 = tensors["reference/enhanced"]
    assert np.linalg.norm((y - y64).ravel()) / np.linalg.norm(y64.ravel()) < 1e-4
"""


def figures(folder: Path) -> list[Figure]:
    """Seconds, largest process, and the ratio to the bare process, for cases to T=1500 and to T=4000."""
    return [f for longest, s, mb in ((1500, 3.0, 300.0), (4000, 6.0, 650.0)) for f in _verify(folder, longest, s, mb)]


def _verify(folder: Path, longest: int, seconds_bar: float, memory_bar: float) -> list[Figure]:
    name = f"to{longest}.bundle"
    words = ["--checkpoint", str(CHECKPOINT), "--dim", f"T=2:63:{longest}", "--no-profile", "-o", name]
    whole([EXPORTER, "openvino", "gtcrn", *words], folder)
    bundle = Bundle.open(folder / name)
    files = bundle.manifest.targets["openvino/fp32"].files
    cases = [str(bundle.file(case.file)) for case in bundle.manifest.cases]
    bare = [str(DEVICE / "python"), "-c", BARE, str(bundle.file(files["xml"])), str(bundle.file(files["bin"])), *cases]
    command = [str(DEVICE / "exporter"), "verify", name]
    memory: list[float] = []
    pairs: list[tuple[float, float]] = []

    def once() -> float:
        seconds, megabytes = whole(command, folder)
        memory.append(megabytes)
        pairs.append((seconds, whole(bare, folder)[0]))
        return seconds

    seconds, interval = repeated(once, runs=7)
    from exporter.latency import stats

    ratio = stats.ratio_interval([[a for a, _ in pairs]], [[b for _, b in pairs]], 0)
    label = f"`exporter verify` without PyTorch, one target, cases to T={longest}"
    return [
        at_most(label, seconds_bar, seconds, " s", interval=interval),
        at_most(f"{label}: largest process", memory_bar, max(memory), " MB"),
        at_most(f"{label}: against a bare process doing the same", 2.0, ratio.value, interval=tuple(ratio.interval)),
    ]
