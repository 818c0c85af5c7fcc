"""What is right is right: against NumPy by hand, and against a runtime where we replace an operator."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from exporter.diagnose.oracle import rounded, walk
from exporter.errors import NotProven
from tests.exporter.diagnose import small


def values(model: onnx.ModelProto, feeds: dict[str, Any], precision: str = "fp64", **more: Any) -> dict[str, Any]:
    return {name: value for ran in walk(model, feeds, precision, **more) for name, value in ran.outputs.items()}


def test_every_value_is_that_of_float64() -> None:
    model, x = small.graph(), small.feeds()["x"].astype(np.float64)
    held = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    found = values(model, small.feeds())
    b = x @ held["w0"] + 2 * held["b0"]
    soft = np.exp(b) / np.exp(b).sum(-1, keepdims=True)
    assert found["b"].dtype == np.float64
    np.testing.assert_allclose(found["b"], b, rtol=1e-14)
    np.testing.assert_allclose(found["y"], (b - soft) @ held["w1"], rtol=1e-12)
    assert found["s"].dtype == np.int64 and found["s"].tolist() == [2, 3, 4]


@pytest.mark.parametrize(("precision", "kind"), [("bf16", ml_dtypes.bfloat16), ("fp16", np.float16)])
def test_rounding_is_to_the_nearest_value_of_the_type(precision: str, kind: Any) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=5000) * 10.0 ** rng.uniform(-9, 9, 5000)).astype(np.float32)
    x = np.concatenate([x, np.array([0.0, -0.0, np.inf, -np.inf, np.nan], np.float32)])
    with np.errstate(over="ignore"):
        expected = x.astype(kind).astype(np.float32)
    np.testing.assert_array_equal(rounded(x, precision), expected)


def test_a_value_of_a_lower_precision_is_rounded_after_every_node() -> None:
    for value in values(small.graph(), small.feeds(), "bf16").values():
        if value.dtype == np.float32:
            np.testing.assert_array_equal(value, value.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_what_a_node_gives_can_be_put_right() -> None:
    d = np.zeros((2, 3, 4))
    assert not values(small.graph(), small.feeds(), instead={"d": d})["y"].any()


def test_casts_between_floats_change_nothing() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["low"], name="low", to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["low"], ["y"], name="back", to=TensorProto.FLOAT),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y]), opset_imports=[helper.make_opsetid("", 18)])
    given = np.array([1 / 3, 1e-9, 1e9], np.float32)
    np.testing.assert_array_equal(values(model, {"x": given})["y"], given.astype(np.float64))


def one(node: onnx.NodeProto, given: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """What a node gives by the oracle and by the runtime."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for name, v in given.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph([node], "g", inputs, [output]), opset_imports=[helper.make_opsetid("", 18)], ir_version=10
    )
    return values(model, given)["y"], ort.InferenceSession(model.SerializeToString()).run(None, given)[0]


def test_transposed_convolutions_of_groups_are_those_of_the_runtime() -> None:
    rng = np.random.default_rng(0)
    given = {
        "x": rng.normal(size=(2, 6, 5, 7)).astype(np.float32), "w": rng.normal(size=(6, 2, 3, 3)).astype(np.float32),
        "b": rng.normal(size=6).astype(np.float32),
    }  # fmt: skip
    node = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], group=3, pads=[1, 1, 1, 1], strides=[1, 2])
    ours, theirs = one(node, given)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_gathers_of_less_than_all_axes_are_those_of_the_runtime() -> None:
    rng = np.random.default_rng(0)
    given = {
        "x": rng.normal(size=(4, 5, 6)).astype(np.float32), "i": rng.integers(-6, 6, (3, 5, 2)).astype(np.int64),
    }  # fmt: skip
    ours, theirs = one(helper.make_node("GatherElements", ["x", "i"], ["y"], axis=2), given)
    np.testing.assert_array_equal(ours.astype(np.float32), theirs)


def test_what_cannot_be_run_apart_is_refused_by_its_name() -> None:
    model = small.graph()
    small.named(model, "soft").op_type = "Unheard"
    with pytest.raises(NotProven, match="node soft"):
        values(model, small.feeds())
