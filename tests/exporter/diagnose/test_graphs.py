"""One graph against another: the node is named whatever is wrong with it, whatever a pass renamed on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from exporter.diagnose.graphs import Against
from exporter.diagnose.known import known
from exporter.diagnose.result import Birth
from exporter.simplify.passes import copied
from tests.exporter.diagnose import small


def diagnosed(folder: Path, wrong: onnx.ModelProto) -> Birth:
    right = small.graph()
    against = Against(wrong, small.feeds(), known(right, small.feeds(), folder / "known"), right)
    assert against.wrong
    place, only = against.first()
    return against.birth(place, "it", only)


def edited(name: str, edit: Callable[[onnx.ModelProto, onnx.NodeProto], object]) -> onnx.ModelProto:
    model = small.graph()
    edit(model, small.named(model, name))
    return model


def weigh(model: onnx.ModelProto, name: str, factor: float) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), name))


def swap(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    node.input[0], node.input[1] = node.input[1], node.input[0]


def axis(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    node.attribute[0].i = 1


WRONG = {
    "first": lambda: edited("first", lambda model, node: weigh(model, "w0", 1.001)),
    "second": lambda: edited("second", lambda model, node: weigh(model, "w1", 1.001)),
    "twice": lambda: edited("twice", lambda model, node: weigh(model, "b0", 1.1)),
    "less": lambda: edited("less", swap),
    "soft": lambda: edited("soft", axis),
}


@pytest.mark.parametrize("node", WRONG)
def test_what_is_wrong_is_named(node: str, tmp_path: Path) -> None:
    birth = diagnosed(tmp_path, WRONG[node]())
    number = [each.name for each in small.graph().graph.node].index(node)
    assert birth.node == node and birth.nodes == (node,)
    assert (birth.module, birth.source) == (f"block.{number}", f"net/model.py:{number}")
    assert birth.only and birth.off > 100 and birth.before < 1


def test_the_error_is_told_along_the_graph(tmp_path: Path) -> None:
    growth = {point.node: point.off for point in diagnosed(tmp_path, WRONG["less"]()).growth}
    assert list(growth) == ["two", "twice", "first", "bias", "soft", "shape", "less", "second", "last"]
    assert max(growth[name] for name in ("first", "bias", "soft", "shape")) == 0.0
    assert min(growth[name] for name in ("less", "second", "last")) > 1e4


def test_a_graph_that_is_right_is_not_wrong(tmp_path: Path) -> None:
    right = small.graph()
    assert not Against(copied(right), small.feeds(), known(right, small.feeds(), tmp_path / "known")).wrong


def test_values_that_were_renamed_are_told_by_what_they_hold(tmp_path: Path) -> None:
    wrong = WRONG["second"]()
    for name in ("a", "b", "c", "d", "s"):
        for node in wrong.graph.node:
            for names in (node.input, node.output):
                for place, each in enumerate(names):
                    names[place] = f"other.{name}" if each == name else each
    assert diagnosed(tmp_path, wrong).node == "second"


def test_a_name_that_a_pass_gave_to_another_value_is_no_error(tmp_path: Path) -> None:
    """``a`` is now what ``b`` was: fused, and right. What is wrong comes later."""
    wrong = WRONG["second"]()
    small.named(wrong, "first").output[0], small.named(wrong, "bias").input[0] = "before", "before"
    small.named(wrong, "bias").output[0] = "a"
    for name, place in (("soft", 0), ("less", 0)):
        small.named(wrong, name).input[place] = "a"
    assert diagnosed(tmp_path, wrong).node == "second"


def test_between_values_that_both_have_the_node_that_changed_is_named(tmp_path: Path) -> None:
    """Two values between have no counterpart; of the nodes there one is none of the other graph's."""
    wrong = WRONG["soft"]()
    small.named(wrong, "soft").output[0] = "unknown"
    small.named(wrong, "less").input[1] = "unknown"
    birth = diagnosed(tmp_path, wrong)
    assert birth.node == "soft" and birth.nodes == ("soft", "less")


def test_a_second_error_is_told(tmp_path: Path) -> None:
    wrong = WRONG["second"]()
    swap(wrong, small.named(wrong, "less"))
    birth = diagnosed(tmp_path, wrong)
    assert birth.node == "less" and birth.only is False


def test_a_node_that_cannot_run_any_more_is_named(tmp_path: Path) -> None:
    wrong = small.graph()
    small.named(wrong, "second").input[1] = "long"
    wrong.graph.initializer.append(numpy_helper.from_array(np.ones((5, 5), np.float32), "long"))
    birth = diagnosed(tmp_path, wrong)
    assert birth.node == "second" and birth.off == np.inf


def test_a_node_too_many_is_named(tmp_path: Path) -> None:
    wrong = small.graph()
    small.named(wrong, "soft").input[0] = "twice as much"
    double = helper.make_node("Add", ["b", "b"], ["twice as much"], name="double")
    wrong.graph.node.insert(4, double)
    assert diagnosed(tmp_path, wrong).node in ("double", "soft")
