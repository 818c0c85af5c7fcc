"""Tracing and whole exports against the stock exporter."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import count
from pathlib import Path

from tests.bench.figure import EXPORTER, ROOT, Figure, at_most, repeated, whole

# In one process, after one throw-away trace of each kind has loaded everything: ours, stock, ours, stock, ...
SCRIPT = """
import json, sys, tempfile, time, warnings
from pathlib import Path
import torch
from exporter import define, trace
from exporter.registry import model
warnings.simplefilter("ignore")
definition = model("gtcrn")
module = define.eager({"model": "gtcrn", "options": {}, "checkpoint": None, "seed": 0})
deployed = definition.deploy(module).eval()
folder = Path(tempfile.mkdtemp())
example = torch.zeros(1, 257, 63, 2)
def ours(): trace.trace(definition, deployed, folder / "ours.onnx")
def stock():
    shapes = {"spec": {2: torch.export.Dim.DYNAMIC}}
    try: torch.onnx.export(module, (example,), folder / "stock.onnx", dynamo=True, dynamic_shapes=shapes, verbose=False)
    except Exception: torch.onnx.export(module, (example,), folder / "stock.onnx", dynamo=True, verbose=False)
times = {"ours": [], "stock": []}
for round in range(int(sys.argv[1]) + 1):
    for name, call in (("ours", ours), ("stock", stock)):
        start = time.perf_counter(); call(); times[name].append(time.perf_counter() - start)
print("TIMES" + json.dumps({name: values[1:] for name, values in times.items()}))
"""


def figures(folder: Path) -> list[Figure]:
    """Trace, and the whole export command with verification, each against the stock exporter's own time."""
    from exporter.latency import stats

    run = subprocess.run([sys.executable, "-c", SCRIPT, "3"], cwd=ROOT, capture_output=True, text=True, check=True)
    times = json.loads(run.stdout.rpartition("TIMES")[2])
    estimate = stats.ratio_interval([times["ours"]], [times["stock"]], 0)
    stock = stats.median_interval([times["stock"]], 0).value
    note = f"stock {stock:.1f} s"
    traced = at_most(
        "tracing `gtcrn` against `torch.onnx.export(dynamo=True)`, same process",
        0.5, estimate.value, interval=tuple(estimate.interval), note=note,
    )  # fmt: skip
    command = [EXPORTER, "openvino", "gtcrn", "--no-profile", "-o"]
    fresh = (f"whole-{number}.bundle" for number in count())  # a bundle that is there would be reused
    seconds, interval = repeated(lambda: whole([*command, next(fresh)], folder)[0], runs=3)
    bounds = (interval[0] / stock, interval[1] / stock)
    exported = at_most(
        "whole `exporter openvino gtcrn` with verification against that stock export alone",
        1.5, seconds / stock, interval=bounds, note=f"{seconds:.1f} s, cases to T=4000",
    )  # fmt: skip
    return [traced, exported]
