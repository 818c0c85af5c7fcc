"""Eight bits as a search tries them: weights per channel, values between what was seen, zero exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from exporter.lower.scales import Scaled, per_channel, spans
from exporter.lower.switchboard import SWITCHES, switchable, switchboard
from exporter.lower.types import named
from exporter.target import Options

RNG = np.random.default_rng(0)
WEIGHTS = RNG.normal(size=(6, 3, 3, 3)).astype(np.float32) * np.arange(1, 7).reshape(6, 1, 1, 1).astype(np.float32)


def model() -> onnx.ModelProto:
    """A convolution, a rectifier, and a product of two values."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("MatMul", ["r", "r"], ["y"], "product"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
              for name, shape in (("x", [1, 3, 8, 8]), ("y", [1, 6, 8, 8]))]  # fmt: skip
    graph = helper.make_graph(nodes, "it", values[:1], values[1:], [numpy_helper.from_array(WEIGHTS, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def inputs(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)


@pytest.fixture
def found(tmp_path: Path) -> tuple[ir.Model, dict[str, tuple[float, float]]]:
    files = []
    for seed in range(3):
        files.append(str(tmp_path / f"{seed}.safetensors"))
        save_file({"x": inputs(seed)}, files[-1])
    loaded = named(model())
    options = Options(shapes={"x": (1, 3, 8, 8)})
    return loaded, spans(loaded, files, tmp_path, options)


def test_spans_are_the_least_and_the_largest_of_all_inputs(
    found: tuple[ir.Model, dict[str, tuple[float, float]]],
) -> None:
    _, seen = found
    every = np.stack([inputs(seed) for seed in range(3)])
    assert set(seen) == {"x", "r"} and seen["x"] == pytest.approx((every.min(), every.max()))
    assert seen["r"][0] == 0.0


def test_each_product_can_be_switched_and_errs_as_eight_bits_do(
    found: tuple[ir.Model, dict[str, tuple[float, float]]],
) -> None:
    loaded, seen = found
    rounding = Scaled(seen)
    nodes = switchable(loaded, rounding, {})
    assert nodes == ["conv", "product"] and switchable(loaded, rounding, {"conv"}) == ["product"]
    session = ort.InferenceSession(switchboard(loaded, rounding, nodes).SerializeToString())
    (exact,) = ort.InferenceSession(model().SerializeToString()).run(None, {"x": inputs(0)})

    def error(*on: bool) -> float:
        (y,) = session.run(None, {"x": inputs(0), SWITCHES: np.array(on)})
        return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))

    assert error(False, False) < 1e-6
    assert all(1e-4 < error(*on) < 0.05 for on in ((True, False), (False, True), (True, True)))


def test_a_span_that_is_half_of_what_comes_is_seen(found: tuple[ir.Model, dict[str, tuple[float, float]]]) -> None:
    loaded, seen = found
    halved = {name: (low / 2, high / 2) for name, (low, high) in seen.items()}
    (exact,) = ort.InferenceSession(model().SerializeToString()).run(None, {"x": inputs(0)})

    def error(by: dict[str, tuple[float, float]]) -> float:
        session = ort.InferenceSession(switchboard(loaded, Scaled(by), ["conv", "product"]).SerializeToString())
        (y,) = session.run(None, {"x": inputs(0), SWITCHES: np.array([True, True])})
        return float(np.linalg.norm(y - exact) / np.linalg.norm(exact))

    assert error(halved) > 0.1 > 5 * error(seen)


def test_a_channel_has_a_scale_of_its_own() -> None:
    rounded = per_channel(WEIGHTS, 0)
    for index in range(6):
        step = np.abs(WEIGHTS[index]).max() / 127
        assert np.abs(rounded[index] - WEIGHTS[index]).max() <= step / 2 * 1.0001
    together = per_channel(WEIGHTS, None)
    assert np.abs(together[0] - WEIGHTS[0]).max() > 2 * np.abs(rounded[0] - WEIGHTS[0]).max()
    assert np.array_equal(per_channel(np.zeros((2, 3), np.float32), 0), np.zeros((2, 3)))


def test_zero_stays_zero(found: tuple[ir.Model, dict[str, tuple[float, float]]]) -> None:
    loaded, _ = found
    for low, high in ((-0.3, 1.0), (0.2, 1.0), (-1.0, -0.5), (0.0, 0.0)):
        session = ort.InferenceSession(switchboard(loaded, Scaled({"x": (low, high)}), ["conv"]).SerializeToString())
        (y,) = session.run(None, {"x": np.zeros((1, 3, 8, 8), np.float32), SWITCHES: np.array([True])})
        assert not y.any()
