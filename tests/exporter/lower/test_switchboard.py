"""A switchboard with all on is the lowered graph, with all off the graph it was made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from exporter.graph import module_of
from exporter.lower.evidence import Memory
from exporter.lower.rounding import rounded
from exporter.lower.switchboard import SWITCHES, Typed, switchable, switchboard
from exporter.lower.types import named, typed


class Net(torch.nn.Module):
    """Convolutions, a normalisation, a split that moves, a value that is an output and an input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Conv2d(4, 4, 1)
        self.norm = torch.nn.GroupNorm(2, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self.norm(self.first(x)).chunk(2, 1)
        inside = torch.relu(self.second(a) * b)
        return inside, (inside.transpose(1, 2) / (1 + inside.abs().transpose(1, 2))).sum(-1)


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    program = torch.onnx.export(Net().eval(), (torch.zeros(1, 3, 8, 8),), dynamo=True, opset_version=18, verbose=False)
    assert program is not None
    return program.model_proto


def ran(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[np.ndarray]:
    outputs: list[np.ndarray] = ort.InferenceSession(proto.SerializeToString()).run(None, feeds)
    return outputs


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_all_on_is_the_lowered_graph_and_all_off_the_graph_itself(model: onnx.ModelProto, precision: str) -> None:
    loaded = named(model)
    kept = {node.name or "": "it sums" for node in loaded.graph if node.op_type == "GroupNormalization"}
    nodes = switchable(loaded, Typed(precision), kept)
    board = switchboard(loaded, Typed(precision), nodes)
    assert "node_Split_1" not in nodes and not set(nodes) & set(kept) and len(nodes) > 4
    x = {model.graph.input[0].name: np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}
    low = ir.to_proto(rounded(ir.to_proto(typed(named(model), precision, kept))))
    on, off = (ran(board, {**x, SWITCHES: np.full(len(nodes), value)}) for value in (True, False))
    assert [o.name for o in board.graph.output] == [o.name for o in model.graph.output]
    for one, lowered, zero, exact in zip(on, ran(low, x), off, ran(model, x), strict=True):
        np.testing.assert_array_equal(one, lowered)
        np.testing.assert_allclose(zero, exact, rtol=1e-5, atol=1e-6)
        assert np.abs(one - zero).max() > 1e-5


def test_every_switch_moves_the_answer_alone(model: onnx.ModelProto) -> None:
    loaded = named(model)
    nodes = switchable(loaded, Typed("bf16"), {})
    session = ort.InferenceSession(switchboard(loaded, Typed("bf16"), nodes).SerializeToString())
    x = {model.graph.input[0].name: np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)}

    def answer(*on: int) -> list[np.ndarray]:
        switches = np.zeros(len(nodes), bool)
        switches[list(on)] = True
        outputs: list[np.ndarray] = session.run(None, {**x, SWITCHES: switches})
        return outputs

    exact = answer()
    for index, node in enumerate(nodes):
        moved = max(float(np.abs(a - b).max()) for a, b in zip(answer(index), exact, strict=True))
        assert moved > 0, node


@pytest.mark.parametrize(
    ("scope", "path"),
    [("['', 'net', 'net.0', 'conv2d_1']", "net.0"), ("['', 'mul']", ""), (None, ""), ("rubbish", ""), ("['x']", "")],
)
def test_the_module_of_a_node(scope: str | None, path: str) -> None:
    assert module_of(scope) == path


def test_what_runs_found_is_remembered_and_a_line_cut_off_is_not(tmp_path: Path) -> None:
    for name in ("graph", "yardstick", "case", "other"):
        (tmp_path / name).write_text(name)
    request = {
        "graphs": {"model": str(tmp_path / "graph")}, "yardsticks": [str(tmp_path / "yardstick")],
        "cases": [{"file": str(tmp_path / "case")}], "precision": "fp16", "kept": {}, "outputs": {"y": "float32"},
        "beside": [{"file": str(tmp_path / "case")}, {"file": str(tmp_path / "other")}],
    }  # fmt: skip
    place = tmp_path / "memory"
    Memory(place, request).put([3, 1], 0.25)
    (file,) = place.iterdir()
    file.write_text(file.read_text() + json.dumps({"lowered": "x"}) + '\n{"lowered": "cut of')
    again = Memory(place, request)
    assert again.get([1, 3]) == 0.25 and again.get([1]) is None
    (tmp_path / "other").write_text("another")
    assert Memory(place, request).get([1, 3]) is None, "what outputs usually are is another"
    (tmp_path / "other").write_text("other")
    (tmp_path / "graph").write_text("another")
    assert Memory(place, request).get([1, 3]) is None, "of another graph"
