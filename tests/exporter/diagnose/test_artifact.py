"""Inside what a target compiles: a kernel that is wrong, and one that is only wrong while nobody looks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from polygraphy.backend.base import BaseRunner

from exporter.diagnose.artifact import Inside, unchanged
from exporter.diagnose.known import known
from exporter.diagnose.oracle import answered
from exporter.diagnose.probing import Workbench
from exporter.graph import Graph
from exporter.target import Artifact, Options, Target
from tests.exporter.diagnose import small
from tests.exporter.diagnose.test_graphs import WRONG, swap

Edit = Callable[[onnx.ModelProto], object]


class Numpy(BaseRunner):
    """Runs a graph in float32, node by node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(prefix="numpy")
        self._model = model

    def activate_impl(self) -> None:
        pass

    def deactivate_impl(self) -> None:
        pass

    def get_input_metadata_impl(self) -> Any:
        return None

    def infer_impl(self, feed_dict: Any) -> Any:
        return OrderedDict(answered(self._model, feed_dict, "fp32"))


class Compiler(Target):
    """Compiles whatever ``edit`` makes of a graph."""

    name, precisions = "compiler", {"fp32": ("fp32", "fp32")}

    def __init__(self, edit: Edit) -> None:
        self.edit, self.compiled = edit, list[onnx.ModelProto]()

    def available(self) -> Any:
        raise AssertionError

    def ran(self, runner: Any) -> Any:
        raise AssertionError

    def timer(self, runner: Any, feeds: Any) -> Any:
        raise AssertionError

    def compile(self, graph: Graph, options: Options, folder: Path, progress: Any = None) -> Artifact:
        model = graph.load()
        self.compiled.append(graph.load())
        self.edit(model)
        (folder / "made.onnx").write_bytes(model.SerializeToString())
        return Artifact("fp32", {"onnx": folder / "made.onnx"}, ("onnx",), {}, "fp32")

    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        return Numpy(Graph(artifact.files["onnx"]).load())


def inside(folder: Path, edit: Edit) -> tuple[Inside, Compiler]:
    target = Compiler(edit)
    bench = Workbench(target, Options(), "onnx", folder / "bench")
    right = known(small.graph(), small.feeds(), folder / "known")
    return Inside(small.graph(), small.feeds(), right, bench, lambda what, done, of: None), target


def at(name: str, change: Callable[[onnx.ModelProto, onnx.NodeProto], object]) -> Edit:
    """The change, wherever the node is."""

    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            if node.name == name:
                change(model, node)

    return edit


def unseen(name: str, value: str) -> Edit:
    """Wrong in a node that is fused with the one before, which it is unless the value between is an output."""

    def edit(model: onnx.ModelProto) -> None:
        fused = any(value in node.output for node in model.graph.node)
        if fused and value not in {output.name for output in model.graph.output}:
            at(name, swap)(model)

    return edit


def test_a_kernel_that_is_wrong_is_named_and_is_wrong_alone(tmp_path: Path) -> None:
    it, _ = inside(tmp_path, at("less", swap))
    found = it.born()
    birth = it.birth(found, "it")
    assert birth.node == "less" and birth.nodes == ("less",) and birth.source == "net/model.py:6"
    assert birth.off > 1e4 and birth.before < 4
    nodes, alone = it.fails_apart(found)
    assert alone and [it.model.graph.node[index].name for index in nodes] == ["less"]
    assert it.rest_is_right(found.first_wrong) is True


def test_the_last_node_may_be_it(tmp_path: Path) -> None:
    def halve(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
        node.op_type = "Mul"
        node.input[1] = "slope"

    it, _ = inside(tmp_path, at("last", halve))
    found = it.born()
    assert it.birth(found, "it").node == "last" and it.rest_is_right(found.first_wrong) is None


def test_an_error_that_vanishes_when_observed_is_called_so(tmp_path: Path) -> None:
    """And what fails apart is what has to be fused for it: both nodes, with the value between them unseen."""
    it, _ = inside(tmp_path, unseen("less", "c"))
    found = it.born()
    assert found.vanishes
    birth = it.birth(found, "it")
    assert "less" in birth.nodes and "soft" in birth.nodes and len(birth.nodes) < 5
    nodes, alone = it.fails_apart(found)
    assert alone and {"soft", "less"} <= {it.model.graph.node[index].name for index in nodes}


def test_a_second_kernel_that_is_wrong_is_told(tmp_path: Path) -> None:
    def both(model: onnx.ModelProto) -> None:
        at("less", swap)(model)
        for name, node in [(n.name, n) for n in model.graph.node]:
            if name == "last":
                node.op_type = "Identity"
                del node.input[1:]
                node.input[0] = "d" if any("d" in n.output for n in model.graph.node) else node.input[0]

    it, _ = inside(tmp_path, both)
    assert it.rest_is_right(5) in (True, False)
    assert it.birth(it.born(), "it").node == "less"


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that are too many to be held at once are fetched in turn."""
    it, target = inside(tmp_path, at("less", swap))
    it.look(3)
    assert {o.name for o in target.compiled[-1].graph.output} == {"y", "b", "c"}
    monkeypatch.setattr("exporter.diagnose.artifact.MOST_BYTES", 100)
    it.look(3)
    asked = [{output.name for output in model.graph.output} - {"y"} for model in target.compiled[-2:]]
    assert asked == [{"b"}, {"c"}]
    assert it.birth(it.born(), "it").node == "less"


def test_an_answer_is_unchanged_where_it_is_wrong_in_the_same_way() -> None:
    right = np.random.default_rng(0).normal(size=100)
    wrong = right + 0.01
    assert unchanged(wrong + 1e-5, wrong, right)
    assert not unchanged(right, wrong, right)
    assert not unchanged(right - 0.01, wrong, right)
    assert not unchanged(np.full(100, np.nan), wrong, right)


def test_compiled_anew_and_right_is_told(tmp_path: Path) -> None:
    it, _ = inside(tmp_path, lambda model: None)
    assert not it.answers(answered(WRONG["less"](), small.feeds(), "fp32"))
    it, _ = inside(tmp_path / "again", at("less", swap))
    assert it.answers(answered(WRONG["less"](), small.feeds(), "fp32"))
