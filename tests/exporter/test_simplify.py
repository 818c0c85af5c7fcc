"""A pass that breaks anything is dropped and named, and those after it start from the graph before it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from exporter import simplify as module
from exporter.graph import SCOPE, Graph, module_of, scope_of
from exporter.simplify import passes
from tests.fakes import sabotage
from tests.fakes.lab import Silent, Specimen


@pytest.fixture
def it(specimens: Callable[..., Specimen]) -> Specimen:
    return specimens("gtcrn")


def simplified(
    it: Specimen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *order: tuple[str, Any]
) -> tuple[dict[str, tuple[str, str]], onnx.ModelProto]:
    monkeypatch.setattr(module, "ORDER", tuple((name, apply, "for a test") for name, apply in order))
    output = tmp_path / "out.onnx"
    request = {
        **it.common, "graphs": {"model": str(it.simplified)}, "simplified": {"model": str(output)},
        "cases": [it.case("sparse"), it.case("wide-T2")], "onnx_tests": str(tmp_path / "tests"),
        "work": {"model": str(tmp_path / "work.json")},
    }  # fmt: skip
    records = module.simplify(json.loads(json.dumps(request, default=dict)), Silent())["passes"]["model"]  # type: ignore[arg-type]
    assert not list(tmp_path.glob("passes-*"))
    return {r["name"]: (r["verdict"], r["reason"]) for r in records}, Graph(output).load()


def content(model: onnx.ModelProto | ir.Model) -> bytes:
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    return proto.SerializeToString(deterministic=True)


def nothing(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


def harmless(model: onnx.ModelProto) -> onnx.ModelProto:
    model.doc_string = "changed"
    return model


def breaks_a_weight(model: onnx.ModelProto) -> onnx.ModelProto:
    return sabotage.scaled(model, next(iter(sabotage.largest_per_block(model).values())), 1.01)


def renames(model: onnx.ModelProto) -> onnx.ModelProto:
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "enhanced":
                node.output[index] = "output_0"
    model.graph.output[0].name = "output_0"
    return model


def drops_an_input(model: onnx.ModelProto) -> onnx.ModelProto:
    del model.graph.input[:]
    return model


def loses_a_dim(model: onnx.ModelProto) -> onnx.ModelProto:
    return sabotage.frozen(model, {"T": 63})


def renames_a_dim(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "T":
                dim.dim_param = "s48"
    return model


def raises(model: onnx.ModelProto) -> onnx.ModelProto:
    raise RuntimeError("no such fusion")


def unrunnable(model: onnx.ModelProto) -> onnx.ModelProto:
    model.graph.node[3].op_type = "NoSuchOperator"
    return model


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (breaks_a_weight, "parity lost on"),
        (renames, "changed output enhanced"),
        (drops_an_input, "changed input spec"),
        (loses_a_dim, "'T'"),
        (renames_a_dim, "s48"),
        (raises, "RuntimeError: no such fusion"),
        (unrunnable, "refuses it"),
    ],
)
def test_a_bad_pass_is_dropped_and_named(
    bad: Any, words: str, it: Specimen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, left = simplified(it, tmp_path, monkeypatch, ("first", harmless), ("bad", bad), ("after", nothing))
    assert records["first"][0] == "kept" and records["after"][0] == "no change"
    verdict, reason = records["bad"]
    assert verdict == "dropped" and words in reason
    expected = harmless(Graph(it.simplified).load())
    assert content(left) == content(expected)


def test_without_passes_the_graph_is_the_traced_one(
    it: Specimen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, left = simplified(it, tmp_path, monkeypatch)
    assert records == {} and left == Graph(it.simplified).load()


def test_the_passes_give_the_same_bytes_twice(it: Specimen) -> None:
    traced = Graph(it.traced).load()
    for _, apply, reason in module.ORDER:
        assert reason
        assert content(apply(passes.copied(traced))) == content(apply(passes.copied(traced)))


def test_a_pass_gets_a_copy(it: Specimen) -> None:
    traced = Graph(it.traced).load()
    kept = content(traced)
    breaks_a_weight(passes.copied(traced))
    drops_an_input(passes.copied(traced))
    assert content(traced) == kept


def test_what_is_fused_is_still_of_the_module_whose_weights_it_takes() -> None:
    """A linear layer on three axes becomes Reshape, Gemm, Reshape: a product without a name or an output of before."""
    weight, bias = np.ones((4, 3), np.float32), np.ones(3, np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "fc.weight"], ["h"], "first"),
        onnx.helper.make_node("Add", ["h", "fc.bias"], ["sum"], "second"),
        onnx.helper.make_node("Softmax", ["sum"], ["y"], "third"),
    ]
    for node, module_name in zip(nodes, ("net.fc", "net.fc", "net"), strict=True):
        node.metadata_props.add(key=SCOPE, value=str(["", module_name, "linear"]))
    kind = onnx.TensorProto.FLOAT
    x, y = (onnx.helper.make_tensor_value_info(n, kind, [2, 5, size]) for n, size in (("x", 4), ("y", 3)))
    tensors = [onnx.numpy_helper.from_array(weight, "fc.weight"), onnx.numpy_helper.from_array(bias, "fc.bias")]
    graph = onnx.helper.make_graph(nodes, "it", [x], [y], tensors)
    fused = passes.onnxsim(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)]))
    (product,) = [node for node in fused.graph.node if node.op_type in ("Gemm", "MatMul")]
    assert product.op_type == "Gemm" and product.name not in ("first", "second")
    assert module_of(scope_of(product)) == "net.fc"
