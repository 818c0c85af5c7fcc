"""How much arithmetic each node is, against PyTorch's own counter."""

from __future__ import annotations

import json
from pathlib import Path

import onnx.parser
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from exporter import define
from exporter.parity.cases import Case, generated_inputs
from exporter.work import Work, count, share
from tests.fakes.lab import specimen

# Whole networks of convolutions and products. A recurrent layer PyTorch does not count, and is counted apart.
MODELS = [
    "conv-gated-ffn",
    "fusion-attention",
    "raft-conv-gru",
    pytest.param("extractor-efficientnet", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("model", MODELS)
def test_the_count_is_that_of_pytorch(model: str, tmp_path: Path) -> None:
    it = specimen(model, tmp_path)
    counts = json.loads((tmp_path / "model.work.json").read_text())
    ours = sum(count for _, count, *_ in counts.values())
    module = define.eager(it.build)
    opt = generated_inputs(it.definition, Case("opt", "generated", "normal", it.definition.opt_sizes()))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(torch.from_numpy(opt[t.name]) for t in it.definition.inputs))
    assert ours == pytest.approx(counter.get_total_flops() / 2, rel=0.02)


def test_a_recurrent_layer_is_its_gates(tmp_path: Path) -> None:
    specimen("gtcrn", tmp_path)
    counts = json.loads((tmp_path / "model.work.json").read_text())
    grus = {node: count for node, (operator, count, *_) in counts.items() if operator == "GRU"}
    assert all(module for operator, _, module, *_ in counts.values() if operator == "Conv"), (
        "each is told by its module"
    )
    # The GRU of an attention over time: one sequence of 63 frames, 16 values in and 16 out.
    assert min(grus.values()) == 63 * 3 * 16 * (16 + 16)


def test_what_a_runtime_does_not_tell_is_untold() -> None:
    work = {"a": Work("Conv", 60), "b": Work("MatMul", 30), "c": Work("GRU", 10)}
    assert share(work, {"a": "int8", "*GRU": "fp32"}) == {"int8": 0.6, "untold": 0.3, "fp32": 0.1}


def test_traffic_is_the_bytes_of_every_tensor_of_a_node(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["" : 18]>
        net (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] y) <float[4, 3, 3, 3] w = {0}> {
            [conv] a = Conv(x, w)
            [relu] y = Relu(a)
        }""".replace("= {0}", f"= {{{', '.join(['1'] * 108)}}}")
    )
    found = count.work(model, {"x": (2, 3, 8, 8)})
    assert found["conv"] == Work("Conv", 2 * 4 * 36 * 27, "", {"x": 4 * 2 * 192, "w": 4 * 108}, {"a": 4 * 2 * 144})
    assert found["relu"] == Work("Relu", 0, "", {"a": 4 * 2 * 144}, {"y": 4 * 2 * 144})


def test_what_is_picked_from_is_read_as_far_as_it_is_picked() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        net (float[1000, 8] table, int64[3] rows) => (float[3, 8] y, float[2, 8] z)
        <int64[1] start = {1}, int64[1] end = {3}> {
            [gather] y = Gather(table, rows)
            [slice] z = Slice(table, start, end)
        }""")
    found = count.work(model, {"table": (1000, 8), "rows": (3,)})
    assert found["gather"].reads == {"table": 3 * 8 * 4, "rows": 3 * 8}
    assert found["slice"].reads["table"] == 2 * 8 * 4
