"""How much arithmetic each node is, against PyTorch's own counter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from exporter import define
from exporter.parity.cases import Case, generated_inputs
from exporter.work import Work, share
from tests.fakes.lab import specimen

# Whole networks of convolutions and products. A recurrent layer PyTorch does not count, and is counted apart.
MODELS = ["conv-gated-ffn", "fusion-attention", "raft-conv-gru", "extractor-efficientnet"]


@pytest.mark.parametrize("model", MODELS)
def test_the_count_is_that_of_pytorch(model: str, tmp_path: Path) -> None:
    it = specimen(model, tmp_path)
    counts = json.loads((tmp_path / "model.work.json").read_text())
    ours = sum(count for _, count, _ in counts.values())
    module = define.eager(it.build)
    opt = generated_inputs(it.definition, Case("opt", "generated", "normal", it.definition.opt_sizes()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(torch.from_numpy(opt[t.name]) for t in it.definition.inputs))
    assert ours == pytest.approx(counter.get_total_flops() / 2, rel=0.02)


def test_a_recurrent_layer_is_its_gates(tmp_path: Path) -> None:
    specimen("gtcrn", tmp_path)
    counts = json.loads((tmp_path / "model.work.json").read_text())
    grus = {node: count for node, (operator, count, _) in counts.items() if operator == "GRU"}
    assert all(module for operator, _, module in counts.values() if operator == "Conv"), "each is told by its module"
    # The GRU of an attention over time: one sequence of 63 frames, 16 values in and 16 out.
    assert min(grus.values()) == 63 * 3 * 16 * (16 + 16)


def test_what_a_runtime_does_not_tell_is_untold() -> None:
    work = {"a": Work("Conv", 60), "b": Work("MatMul", 30), "c": Work("GRU", 10)}
    assert share(work, {"a": "int8", "*GRU": "fp32"}) == {"int8": 0.6, "untold": 0.3, "fp32": 0.1}
