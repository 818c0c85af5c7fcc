"""An ONNX file as a model: its evaluator in float64 is the reference."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from exporter import define
from exporter.errors import ExporterError, Refused
from exporter.evaluator import evaluator, in_float64
from exporter.models import own
from exporter.request import Request
from exporter.spec import ModelDef

F = TensorProto.FLOAT


def saved(folder: Path, nodes: list[Any], shape: list[Any], weights: dict[str, Any] | None = None, **more: Any) -> Path:
    """A graph of one input ``a/x`` and one output ``y z``."""
    tensors = [numpy_helper.from_array(np.asarray(v, np.float32), name) for name, v in (weights or {}).items()]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("a/x", F, shape)],
        [helper.make_tensor_value_info("y z", F, [None] * len(shape))], tensors,
    )  # fmt: skip
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", more.get("opset", 18))]), path)
    return path


def product(folder: Path, shape: list[Any] | None = None, **more: Any) -> Path:
    nodes = [helper.make_node("MatMul", ["a/x", "w"], ["h"]), helper.make_node("Exp", ["h"], ["y z"])]
    return saved(folder, nodes, shape or [2, 4], {"w": np.linspace(-1, 1, 12).reshape(4, 3)}, **more)


def defined(path: Path, *dims: str) -> ModelDef:
    return own.defined(Request(str(path), "", dims=dims, own=True).build)


def test_names_and_shapes_are_the_graph_s(tmp_path: Path) -> None:
    it = defined(product(tmp_path))
    assert [(t.name, t.shape) for t in it.inputs] == [("a/x", (2, 4))]
    assert [(t.name, t.shape, t.dtype) for t in it.outputs] == [("y z", (2, 3), "float32")]
    open_ = defined(product(tmp_path, ["my batch", 4]), "my_batch=1:2:5")
    assert open_.inputs[0].shape == ("my_batch", 4) and open_.outputs[0].shape == ("my_batch", 3)


def test_it_computes_in_float64_where_a_module_would(tmp_path: Path) -> None:
    module, weights = define.weighted(defined(product(tmp_path)), None, 0)
    assert weights.kind == "own" and sum(p.numel() for p in module.parameters()) == 12
    x = torch.randn(2, 4)
    double = copy.deepcopy(module).double()
    (y,), (y64,) = module(x), double(x.double())
    assert (y.dtype, y64.dtype) == (torch.float32, torch.float64)
    exact = np.exp(x.double().numpy() @ np.linspace(-1, 1, 12).reshape(4, 3).astype(np.float32).astype(np.float64))
    assert np.allclose(y64.numpy(), exact, rtol=1e-14, atol=0), "weights are those of the file, the rest is exact"
    assert 0 < np.abs(y.numpy() - exact).max() < 1e-4


def test_everything_real_is_widened_and_nothing_else() -> None:
    inner = helper.make_graph(
        [helper.make_node("Cast", ["c"], ["o"], to=TensorProto.FLOAT16)], "i", [],
        [helper.make_tensor_value_info("o", TensorProto.FLOAT16, [1])],
    )  # fmt: skip
    nodes = [
        helper.make_node("Constant", [], ["c"], value_floats=[0.1]),
        helper.make_node("ConstantOfShape", ["s"], ["k"], value=numpy_helper.from_array(np.array([1.5], np.float32))),
        helper.make_node("If", ["b"], ["f"], then_branch=inner, else_branch=inner),
        helper.make_node("Cast", ["f"], ["g"], to=TensorProto.INT32),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("b", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info(n, t, None) for n, t in (("c", F), ("k", F), ("f", TensorProto.FLOAT16),
                                                                   ("g", TensorProto.INT32))],
        [numpy_helper.from_array(np.array([2], np.int64), "s")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    c, k, f, g = evaluator(in_float64(model)).run(None, {"b": np.array(True)})
    assert [x.dtype for x in (c, k, f, g)] == [np.float64, np.float64, np.float64, np.int32]
    assert float(c[0]) == float(np.float32(0.1)) and float(f[0]) == float(c[0]), "a cast to fp16 rounds nothing here"
    assert graph.node[0].attribute[0].name == "value_floats", "the graph that was given is left alone"


def test_an_older_one_is_put_in_our_words_and_its_nodes_get_names(tmp_path: Path) -> None:
    module, _ = define.weighted(defined(product(tmp_path, opset=11)), None, 0)
    module.write(tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    assert written.opset_import[0].version == 18
    assert [node.name for node in written.graph.node] == ["node_MatMul_0", "node_Exp_1"]


@pytest.mark.parametrize(
    ("make", "dims", "code", "words"),
    [
        (lambda f: product(f, ["N", 4]), (), "bad-dim", "N has no range"),
        (product, ("N=1:2:3",), "bad-dim", "names no dim"),
        (lambda f: saved(f, [helper.make_node("Nothing", ["a/x"], ["y z"])], [1]), (), "bad-graph", "Nothing"),
    ],
)
def test_what_will_not_do(make: Any, dims: tuple[str, ...], code: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=words) as caught:
        defined(make(tmp_path), *dims)
    assert caught.value.code == code and caught.value.where and caught.value.next


def test_files_that_are_cut_or_reach_out(tmp_path: Path) -> None:
    path = product(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(Refused, match="does not load"):
        defined(path)
    outside = tmp_path / "secret"
    outside.write_bytes(np.arange(12, dtype=np.float32).tobytes())
    folder = tmp_path / "in"
    folder.mkdir()
    for location in ("../secret", str(outside), "missing.bin"):
        model = onnx.load(product(folder))
        (tensor,) = model.graph.initializer
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "48")):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        (folder / "net.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ExporterError) as caught:
            defined(folder / "net.onnx")
        assert caught.value.code == "bad-external-data" and "tensor" in caught.value.what, location


def split(path: Path, threshold: int = 0) -> Path:
    """The same file with its weights beside it, those of few bytes as well."""
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=threshold)
    return path


def test_weights_beside_a_file_are_mapped_and_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        helper.make_node("MatMul", ["a/x", "w"], ["h"]), helper.make_node("Reshape", ["h", "shape"], ["r"]),
        helper.make_node("Cast", ["b"], ["c"], to=F), helper.make_node("Add", ["r", "c"], ["y z"]),
    ]  # fmt: skip
    path = saved(tmp_path, nodes, [2, 64], {"w": np.linspace(-1, 1, 64 * 48).reshape(64, 48)})
    model = onnx.load(path)
    model.graph.initializer.append(numpy_helper.from_array(np.array([8, -1]), "shape"))
    wide = helper.make_tensor("b", TensorProto.BFLOAT16, [12], np.linspace(0, 1, 12))
    model.graph.initializer.append(wide)
    onnx.save(model, path)
    whole, _ = define.weighted(defined(path), None, 0)
    digest = define.weights_digest(whole)
    split(path)
    beside, _ = define.weighted(defined(path), None, 0)
    assert define.weights_digest(beside) == digest and sum(p.numel() for p in beside.parameters()) == 64 * 48 + 12
    x = torch.randn(2, 64)
    assert torch.equal(whole(x)[0], beside(x)[0])
    monkeypatch.setenv("EXPORTER_EXTERNAL_FROM", "1")
    turning = define.Turning(beside)
    turning.to_double()
    (y64,) = beside(x.double())
    assert y64.dtype == torch.float64 and torch.equal(copy.deepcopy(whole).double()(x.double())[0], y64)
    turning.back()
    assert torch.equal(whole(x)[0], beside(x)[0]) and define.weights_digest(beside) == digest
    beside.write(tmp_path / "out.onnx")
    held = {
        t.name: bool(t.external_data)
        for t in onnx.load(tmp_path / "out.onnx", load_external_data=False).graph.initializer
    }
    assert held == {"w": True, "shape": False, "b": False}


def test_what_is_written_every_runtime_reads(tmp_path: Path) -> None:
    path = product(tmp_path)
    model = onnx.load(path)
    assert model.ir_version > 10, "what ONNX's own helper writes"
    module, _ = define.weighted(defined(path), None, 0)
    module.write(tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").ir_version == 10


@pytest.mark.parametrize(
    ("case", "code", "words"),
    [
        ("unknown", "missing-operator", "'Foo' from domain 'my.own'"),
        ("sequence", "bad-graph", "its output y is no tensor"),
        ("no input", "bad-graph", "it has no input"),
        ("no output", "bad-graph", "it has no output"),
    ],
)
def test_graphs_that_nothing_can_be_judged_by(case: str, code: str, words: str, tmp_path: Path) -> None:
    x, y = (helper.make_tensor_value_info(name, F, [2, 3]) for name in "xy")
    node, opsets = helper.make_node("Relu", ["x"], ["y"]), [helper.make_opsetid("", 18)]
    if case == "unknown":
        node, opsets = (
            helper.make_node("Foo", ["x"], ["y"], domain="my.own"),
            [*opsets, helper.make_opsetid("my.own", 1)],
        )
    if case == "sequence":
        node, y = (
            helper.make_node("SplitToSequence", ["x"], ["y"]),
            helper.make_tensor_sequence_value_info("y", F, None),
        )
    if case == "no input":
        node = helper.make_node("Constant", [], ["y"], value=numpy_helper.from_array(np.ones((2, 3), np.float32)))
    graph = helper.make_graph([node], "g", [] if case == "no input" else [x], [] if case == "no output" else [y])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "net.onnx")
    with pytest.raises(ExporterError) as caught:
        defined(tmp_path / "net.onnx")
    assert caught.value.code == code and words in caught.value.what and caught.value.next
