"""Convolutions and pools a tap at a time, against ONNX's own evaluator and its own tests."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from exporter.evaluator import evaluator

OPERATORS = ("Conv", "ConvTranspose", "AveragePool", "MaxPool")


def one(operator: str, given: dict[str, np.ndarray], **attributes: Any) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, value.shape) for name, value in given.items()]
    output = helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)
    graph = helper.make_graph([helper.make_node(operator, list(given), ["y"], **attributes)], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def agree(operator: str, given: dict[str, np.ndarray], **attributes: Any) -> np.ndarray:
    model = one(operator, given, **attributes)
    (ours,) = evaluator(model).run(None, given)
    (theirs,) = ReferenceEvaluator(model).run(None, given)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    return ours


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape)


SLIDES = [
    {}, {"pads": [1, 0, 2, 1]}, {"strides": [2, 3]}, {"dilations": [2, 1]},
    {"pads": [2, 1, 0, 3], "strides": [3, 2], "dilations": [1, 2]},
]  # fmt: skip


@pytest.mark.parametrize("slide", SLIDES, ids=str)
@pytest.mark.parametrize("group", [1, 2, 4])
def test_convolutions(slide: dict[str, Any], group: int) -> None:
    given = {"x": drawn(2, 4, 9, 11), "w": drawn(8, 4 // group, 3, 2), "b": drawn(8)}
    assert agree("Conv", given, group=group, **slide).shape[:2] == (2, 8)


@pytest.mark.parametrize("slide", SLIDES, ids=str)
def test_transposed_convolutions(slide: dict[str, Any]) -> None:
    given = {"x": drawn(2, 4, 5, 6), "w": drawn(4, 3, 3, 2), "b": drawn(3)}
    agree("ConvTranspose", given, **slide)
    if "strides" in slide:
        agree("ConvTranspose", given, output_padding=[1, 1], **slide)


@pytest.mark.parametrize("spatial", [(7,), (5, 6, 4)])
def test_signals_of_other_ranks(spatial: tuple[int, ...]) -> None:
    kernel = (2,) * len(spatial)
    agree("Conv", {"x": drawn(2, 3, *spatial), "w": drawn(4, 3, *kernel)}, pads=[1] * 2 * len(spatial))
    agree("ConvTranspose", {"x": drawn(1, 3, *spatial), "w": drawn(3, 2, *kernel)}, strides=[2] * len(spatial))


@pytest.mark.parametrize(
    "slide", [{}, {"pads": [1, 1, 1, 1]}, {"strides": [2, 3]}, {"pads": [1, 1, 1, 1], "ceil_mode": 1}], ids=str
)
@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
def test_pools(operator: str, slide: dict[str, Any]) -> None:
    given = {"x": drawn(2, 3, 8, 9)}
    agree(operator, given, kernel_shape=[3, 2], **slide)
    if operator == "AveragePool":
        agree(operator, given, kernel_shape=[3, 2], count_include_pad=1, **slide)


def test_uneven_padding_of_the_largest_is_that_of_the_runtime() -> None:
    """The evaluator's own takes the padding of one axis for that of another."""
    given = {"x": drawn(2, 3, 8, 9)}
    model = one("MaxPool", given, kernel_shape=[3, 2], pads=[1, 0, 2, 1], strides=[2, 1])
    theirs = ort.InferenceSession(model.SerializeToString()).run(None, given)
    np.testing.assert_array_equal(evaluator(model).run(None, given), theirs)


def test_a_number_that_is_none_stays_with_the_evaluators_own() -> None:
    x = drawn(1, 1, 4, 4)
    x[0, 0, 1, 1] = np.nan
    agree("MaxPool", {"x": x}, kernel_shape=[2, 2])


@pytest.mark.parametrize(("x", "w"), [((1, 3, 5, 5), (2, 2, 3, 3)), ((1, 2, 2, 2), (2, 2, 3, 3))])
def test_what_does_not_fit_is_refused(x: tuple[int, ...], w: tuple[int, ...]) -> None:
    given = {"x": drawn(*x), "w": drawn(*w)}
    with pytest.raises(ValueError, match=r"inconsistencies|fit"):
        evaluator(one("Conv", given)).run(None, given)


@pytest.mark.parametrize("operator", OPERATORS)
def test_onnxs_own_tests(operator: str) -> None:
    importlib.import_module(f"onnx.backend.test.case.node.{operator.lower()}")
    from onnx.backend.test.case.node import _NodeTestCases

    of_it = {t.name: t for t in _NodeTestCases if [node.op_type for node in t.model.graph.node] == [operator]}
    assert len(of_it) > 3
    for name, test in of_it.items():
        for inputs, expected in test.data_sets:
            names = [value.name for value in test.model.graph.input]
            found = evaluator(test.model).run(None, dict(zip(names, inputs, strict=True)))
            for ours, theirs in zip(found, expected, strict=True):
                np.testing.assert_allclose(ours, theirs, rtol=test.rtol, atol=1e-6, err_msg=name)


def test_sums_of_half_precision_are_taken_in_more() -> None:
    """A thousand taps of float16, summed in float16, would be off in the third digit."""
    draw = np.random.default_rng(0)
    x, w = draw.standard_normal((1, 64, 9)).astype(np.float16), draw.standard_normal((4, 64, 9)).astype(np.float16)
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT16, x.shape)
    weight = helper.make_tensor_value_info("w", TensorProto.FLOAT16, w.shape)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", [given, weight], [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (y,) = evaluator(model).run(None, {"x": x, "w": w})
    exact = np.tensordot(w.astype(np.float64), x.astype(np.float64)[0], 2)
    assert y.dtype == np.float16 and np.array_equal(y.ravel(), exact.astype(np.float16))
