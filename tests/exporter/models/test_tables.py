"""Which whole numbers an input may be: as was said, as the model's tables show, else a guess that is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from exporter.errors import Refused
from exporter.models import own, tables
from exporter.models.given import GUESS
from exporter.request import Request
from exporter.spec import ModelDef


def graph_of(nodes: list[Any], weights: dict[str, np.ndarray[Any, Any]]) -> onnx.ModelProto:
    """A graph of ``ids`` and ``mask``, whole numbers, and one output ``y``."""
    ends = [helper.make_tensor_value_info(name, TensorProto.INT64, [2, "T"]) for name in ("ids", "mask")]
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 2)
    held = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends, [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [output], **attributes)


WORDS = np.ones((50, 4), np.float32)


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        pytest.param([node("Gather", ["w", "ids"], "y")], {"ids": 50}, id="a table"),
        pytest.param([node("Gather", ["w", "ids"], "y", axis=-1)], {"ids": 4}, id="along another axis"),
        pytest.param(
            [
                node("Cast", ["ids"], "small", to=TensorProto.INT32), node("Reshape", ["small", "shape"], "flat"),
                node("Gather", ["w", "flat"], "y"),
            ],
            {"ids": 50}, id="indices in another shape and type",
        ),
        pytest.param(
            [node("DequantizeLinear", ["q", "scale"], "wide"), node("Gather", ["wide", "ids"], "y")],
            {"ids": 30}, id="a table in eight bits",
        ),
        pytest.param(
            [node("Gather", ["w", "ids"], "a"), node("Gather", ["v", "ids"], "b"), node("Add", ["a", "b"], "y")],
            {"ids": 9}, id="the smaller of two",
        ),
        pytest.param(
            [node("Add", ["ids", "mask"], "sum"), node("Gather", ["w", "sum"], "y")], {}, id="other numbers",
        ),
        pytest.param(
            [node("Cast", ["mask"], "h", to=TensorProto.FLOAT), node("Gather", ["h", "ids"], "y")], {}, id="no table",
        ),
    ],
)  # fmt: skip
def test_of_a_graph(nodes: list[Any], found: dict[str, int]) -> None:
    held = {
        "w": WORDS, "v": WORDS[:9], "q": np.ones((30, 4), np.int8), "scale": np.array(0.5, np.float32),
        "shape": np.array([-1]),
    }  # fmt: skip
    assert tables.of_graph(graph_of(nodes, held)) == found


class Lookup(nn.Module):
    """Looks words up in one of many ways."""

    def __init__(self, how: str = "module") -> None:
        super().__init__()
        self.words, self.how = nn.Embedding(50, 4), how

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        table = self.words.weight
        by = {
            "module": lambda: self.words(ids),
            "function": lambda: nn.functional.embedding(ids.long().reshape(-1, 1), table),
            "brackets": lambda: table[ids],
            "select": lambda: table.index_select(0, ids[0]),
            "columns": lambda: table[:, ids],
            "shifted": lambda: self.words(ids + 1),
            "values": lambda: (table * 2)[ids],
        }
        return by[self.how]().sum(-1) + mask.sum()


@pytest.mark.parametrize(
    ("how", "entries"),
    [("module", 50), ("function", 50), ("brackets", 50), ("select", 50), ("columns", 4), ("shifted", 0), ("values", 0)],
)
def test_of_a_module(how: str, entries: int) -> None:
    zeros = {name: torch.zeros(2, 3, dtype=torch.int32 if how == "function" else torch.int64)
             for name in ("ids", "mask")}  # fmt: skip
    found = tables.of_module(Lookup(how), zeros, ((), zeros))
    assert found == ({"ids": entries} if entries else {})


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same lookup as a graph, as a program and as code."""
    folder = tmp_path_factory.mktemp("lookups")
    nodes = [
        node("Gather", ["w", "ids"], "rows"), node("ReduceSum", ["rows", "last"], "sums", keepdims=0),
        node("Cast", ["mask"], "weights", to=TensorProto.FLOAT), node("Mul", ["sums", "weights"], "y"),
    ]  # fmt: skip
    onnx.save(graph_of(nodes, {"w": WORDS, "last": np.array([-1])}), folder / "it.onnx")
    zeros = (torch.zeros(2, 3, dtype=torch.int64),) * 2
    torch.export.save(torch.export.export(Lookup(), (zeros[0], zeros[1].clone())), folder / "it.pt2")
    return folder


def defined(path: Path, *inputs: str) -> ModelDef:
    dims = ("T=2:3:5",) if path.suffix == ".onnx" else ()
    return own.defined(Request(str(path), "", inputs=inputs, dims=dims, own=True).build)


@pytest.mark.parametrize(("ending", "shape"), [("onnx", "2xT"), ("pt2", "2x3")])
def test_a_file_has_the_range_of_its_tables_and_what_is_guessed_is_told(files: Path, ending: str, shape: str) -> None:
    it = defined(files / f"it.{ending}")
    assert [(t.low, t.high, t.meaning) for t in it.inputs] == [(0, 49, "index of one of 50 entries"), (0, 1, GUESS)]
    (note,) = it.notes
    assert note.startswith("input mask: drawn from 0..1") and "--input mask=2," in note and ":i64:0:99" in note
    told = defined(files / f"it.{ending}", f"mask={shape}:i64:2:7", f"ids={shape}:i64:0:9")
    assert [(t.low, t.high) for t in told.inputs] == [(0, 9), (2, 7)] and told.notes == ()
    assert {t.meaning for t in told.inputs} == {"in the range of --input"}
    (note,) = defined(files / f"it.{ending}", f"mask={shape}:i64").notes  # nothing new is said


@pytest.mark.parametrize("text", ["mask=2x9:i64:0:7", "mask=2xT:i32:0:7", "other=2xT:i64:0:7"])
@pytest.mark.parametrize("ending", ["onnx", "pt2"])
def test_a_file_takes_no_other_inputs(files: Path, ending: str, text: str) -> None:
    with pytest.raises(Refused, match="no input of it") as caught:
        defined(files / f"it.{ending}", text)
    assert caught.value.code == "bad-input" and "ids=2," in caught.value.why
    assert caught.value.next.startswith("--input mask=2," if "mask" in text else "--input ids=2,")


def test_a_module_of_ones_own_needs_no_range_for_what_it_looks_up(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.words = torch.nn.Embedding(50, 4)\n\n    def forward(self, ids, mask):\n"
        "        return self.words(ids).sum(-1) * mask\n"
    )

    def made(*inputs: str) -> ModelDef:
        return own.defined(Request(f"{tmp_path}/net.py:Net", "", inputs=inputs, dims=("T=2:3:5",), own=True).build)

    it = made("ids=2xT:i64", "mask=2xT:i64:0:1")
    assert [(t.low, t.high) for t in it.inputs] == [(0, 49), (0, 1)]
    with pytest.raises(Refused, match="mask=2,T:i64: nothing says which whole numbers"):
        made("ids=2xT:i64", "mask=2xT:i64")
    assert made("ids=2xT:i64:3:9", "mask=2xT:i64:0:1").inputs[0].low == 3
