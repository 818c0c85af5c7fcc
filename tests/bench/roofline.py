"""The counts behind a roofline against PyTorch's own counter, and the copies against a benchmark in C."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from exporter import define
from exporter.latency import stats
from exporter.latency.peaks import TOUCHED, copies
from exporter.parity.cases import Case, generated_inputs
from tests.bench.figure import ROOT, Figure, at_most
from tests.fakes.lab import specimen

# Networks of every family; PyTorch's counter knows no recurrent layer, so those without one.
MODELS = (
    "conv-gated-ffn", "mdta", "extractor-efficientnet", "extractor-vit", "raft-conv-gru", "selective-conv-gru",
    "cost-aggregation", "fusion-attention",
)  # fmt: skip
ROUNDS, THREADS = 40, (1, 2)


def figures(folder: Path) -> list[Figure]:
    """How far the counts and the copies are from those of others."""
    return [_counts(folder / "counts"), *(_copies(folder, threads) for threads in THREADS)]


def _counts(folder: Path) -> Figure:
    """Operations of whole models at their opt sizes, ours against ``torch.utils.flop_counter``."""
    ratios = {model: _operations(model, folder / model) for model in MODELS}
    worst = max(ratios, key=lambda model: abs(ratios[model] - 1))
    note = f"{len(MODELS)} models of every family; the worst is `{worst}`, {ratios[worst]:.4f}x"
    return at_most("operations counted, off PyTorch's own counter", 0.05, abs(ratios[worst] - 1), "", note=note)


def _operations(model: str, folder: Path) -> float:
    folder.mkdir(parents=True)
    # What a processor's attention does in one piece, the counter does not know: it is asked for in products.
    torch.backends.mha.set_fastpath_enabled(False)
    it = specimen(model, folder)
    counts = json.loads((folder / "model.work.json").read_text())
    inputs = generated_inputs(it.definition, Case("opt", "generated", "normal", it.definition.opt_sizes()))
    # Without gradients altogether: the counter follows modules by hooks on tensors that want one.
    module = define.eager(it.build).requires_grad_(False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(torch.from_numpy(inputs[tensor.name]) for tensor in it.definition.inputs))
    return float(2 * sum(count for _, count, *_ in counts.values()) / counter.get_total_flops())


def _copies(folder: Path, threads: int) -> Figure:
    """The copies of :mod:`exporter.latency.peaks` against memcpy in C, in turns, at the size that fits no cache."""
    folder.mkdir(exist_ok=True)
    program = folder / "copy"
    subprocess.run(["cc", "-O2", "-pthread", str(ROOT / "tests/bench/copy.c"), "-o", str(program)], check=True)
    ours, others = [], []
    for _ in range(ROUNDS):
        ours.append(copies(TOUCHED[-1], threads))
        others.append(float(subprocess.check_output([program, str(threads), str(TOUCHED[-1])], text=True)))
    # Medians of many short turns: the bandwidth of a shared machine itself comes and goes by a half.
    estimate = stats.ratio_interval([ours], [others], 0)
    low, high = estimate.interval
    off = f"{estimate.value:.3f}x ({low:.3f} to {high:.3f}) of it, medians of {ROUNDS} turns"
    note = f"{off}; {np.median(ours):.4g} GB/s, the turns {min(ours):.4g} to {max(ours):.4g}"
    what = f"speed of copies, {threads} thread{'s' * (threads > 1)}, off a benchmark in C"
    return at_most(what, 0.05, abs(estimate.value - 1), "", note=note)
