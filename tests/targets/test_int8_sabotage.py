"""int8 that is silently wrong: a scale off by two, scales of constant inputs, a layer of other weights: all caught."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from exporter.bundle import write_tensors
from exporter.parity import cases as planning
from exporter.parity.cases import Case
from exporter.target import MIXED, QUANTISED, Artifact
from exporter.verdict import Hop, Verdict
from tests.fakes.lab import Specimen, specimen

MODEL = "raft-conv-gru"


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return specimen(MODEL, tmp_path_factory.mktemp("int8"))


def feeds(it: Specimen, change: Callable[[np.ndarray], np.ndarray] = lambda x: x) -> list[str]:
    """Inputs to calibrate on."""
    files = []
    for index in range(4):
        case = Case(f"calibration-{index}", "generated", "normal", it.definition.opt_sizes())
        values = planning.generated_inputs(it.definition, case)
        files.append(str(it.folder / f"{index}-{id(change)}.safetensors"))
        write_tensors(Path(files[-1]), {name: change(value) for name, value in values.items()})
    return files


def quantised(it: Specimen, target: str, files: list[str], folder: Path, way: str = QUANTISED) -> Artifact:
    options = dataclasses.replace(it.options, precision="int8", way=way, calibration={"model": files})
    return it.compiled(target, it.simplified_graphs, folder / target, options)


def judged(it: Specimen, target: str, artifact: Artifact, way: str = QUANTISED) -> Hop:
    return it.verify(target, artifact, way=way)


@pytest.fixture(scope="module")
def right(it: Specimen, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return quantised(it, "mobile", feeds(it), tmp_path_factory.mktemp("right"))


WAYS = [("mobile", QUANTISED), ("openvino", QUANTISED), ("openvino", MIXED)]


@pytest.mark.parametrize(("target", "way"), WAYS)
def test_what_is_right_passes(it: Specimen, target: str, way: str, tmp_path: Path) -> None:
    hop = judged(it, target, quantised(it, target, feeds(it), tmp_path, way), way)
    assert hop.verdict is Verdict.PASS, hop.reason
    assert hop.facts["work"]["int8"] > 0.99 and hop.facts["spent"]["decibels"] > 25


@pytest.mark.parametrize(("target", "way"), WAYS)
@pytest.mark.parametrize("value", [0.0, 1e-3])
def test_scales_of_constant_inputs(it: Specimen, target: str, way: str, value: float, tmp_path: Path) -> None:
    constant = feeds(it, lambda x: np.full_like(x, value))
    hop = judged(it, target, quantised(it, target, constant, tmp_path, way), way)
    assert hop.verdict is Verdict.FAIL, hop.facts["spent"]


def edited(right: Artifact, folder: Path, edit: Callable[[onnx.ModelProto], None]) -> Artifact:
    """The artifact with its graph changed; the one form that is read from it."""
    model = onnx.load(str(right.files["onnx"]))
    edit(model)
    path = folder / "edited.onnx"
    path.write_bytes(model.SerializeToString())
    return dataclasses.replace(right, files={**right.files, "onnx": path}, forms=("onnx",))


def scales_of(right: Artifact) -> list[str]:
    """The scales of the values that go into products."""
    model = onnx.load(str(right.files["onnx"]))
    made = {output: node for node in model.graph.node for output in node.output}
    products = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    found = {made[name].input[1] for node in products for name in node.input[:2]
             if name in made and made[name].op_type == "DequantizeLinear"}  # fmt: skip
    return sorted(found)


def multiplied(name: str, factor: float) -> Callable[[onnx.ModelProto], None]:
    def edit(model: onnx.ModelProto) -> None:
        (tensor,) = [t for t in model.graph.initializer if t.name == name]
        tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) * factor).astype(np.float32), name))

    return edit


def test_a_scale_that_is_half_of_what_it_should_be(it: Specimen, right: Artifact, tmp_path: Path) -> None:
    """Of a value it cuts off what is larger; of a weight it halves it. One that no output shows is not there."""
    scales = scales_of(right)
    assert len(scales) >= 4
    for name in scales:
        hop = judged(it, "mobile", edited(right, tmp_path, multiplied(name, 0.5)))
        assert hop.verdict is Verdict.FAIL, (name, hop.facts["spent"])


def test_a_weight_s_scale_that_is_twice_what_it_should_be(it: Specimen, right: Artifact, tmp_path: Path) -> None:
    model = onnx.load(str(right.files["onnx"]))
    kinds = {t.name: t.data_type for t in model.graph.initializer}
    weights = {node.input[1] for node in model.graph.node
               if node.op_type == "DequantizeLinear" and kinds.get(node.input[0]) == onnx.TensorProto.INT8}  # fmt: skip
    assert len(weights) >= 2
    for name in sorted(weights):
        hop = judged(it, "mobile", edited(right, tmp_path, multiplied(name, 2.0)))
        assert hop.verdict is Verdict.FAIL, (name, hop.facts["spent"])


def test_a_value_that_comes_back_twice_what_it_was(it: Specimen, right: Artifact, tmp_path: Path) -> None:
    """The scale of DequantizeLinear alone. Of both it would cost one bit of eight, which a bound may allow."""

    def doubled(product: str) -> Callable[[onnx.ModelProto], None]:
        def edit(model: onnx.ModelProto) -> None:
            (node,) = [node for node in model.graph.node if node.name == product]
            (back,) = [made for made in model.graph.node if node.input[0] in made.output]
            (scale,) = [t for t in model.graph.initializer if t.name == back.input[1]]
            wrong = numpy_helper.from_array((numpy_helper.to_array(scale) * 2).astype(np.float32), f"{scale.name}_2")
            model.graph.initializer.append(wrong)
            back.input[1] = wrong.name

        return edit

    products = [node.name for node in onnx.load(str(right.files["onnx"])).graph.node if node.op_type == "Conv"]
    assert len(products) >= 2
    for name in products:
        hop = judged(it, "mobile", edited(right, tmp_path, doubled(name)))
        assert hop.verdict is Verdict.FAIL, (name, hop.facts["spent"])


def test_one_layer_of_other_weights(it: Specimen, right: Artifact, tmp_path: Path) -> None:
    def edit(model: onnx.ModelProto) -> None:
        tensor = max((t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8),
                     key=lambda t: len(t.raw_data))  # fmt: skip
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(np.roll(values, 1, axis=0), tensor.name))

    assert judged(it, "mobile", edited(right, tmp_path, edit)).verdict is Verdict.FAIL


@pytest.mark.parametrize("way", [QUANTISED, MIXED])
@pytest.mark.parametrize("what", ["values come back twice as large", "values come back half as large", "a weight"])
def test_an_ir_with_one_wrong_number(it: Specimen, way: str, what: str, tmp_path: Path) -> None:
    import openvino as ov

    right = quantised(it, "openvino", feeds(it), tmp_path, way)
    model = ov.Core().read_model(str(right.files["xml"]), str(right.files["bin"]))
    steps = [op for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]
    products = [op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
    assert len(steps) >= 2 and len(products) >= 2
    for number in range(2):
        copy = model.clone()
        named = {op.get_friendly_name(): op for op in copy.get_ops()}
        if what == "a weight":
            port = named[products[number].get_friendly_name()].input(1)
            _times(port, -1.0)
        else:
            for index in (3, 4):  # what the least and the largest value become
                _times(named[steps[number].get_friendly_name()].input(index), 2.0 if "twice" in what else 0.5)
        path = tmp_path / f"{number}.xml"
        ov.save_model(copy, str(path), compress_to_fp16=False)
        wrong = dataclasses.replace(right, files={"xml": path, "bin": path.with_suffix(".bin")})
        hop = judged(it, "openvino", wrong, way)
        assert hop.verdict is Verdict.FAIL, (number, hop.facts["spent"])


def _times(port: Any, factor: float) -> None:
    """Multiplies what goes into an operator."""
    from openvino import opset13 as ops

    source = port.get_source_output()
    kind = source.get_element_type().to_dtype()
    port.replace_source_output(ops.multiply(source, ops.constant(np.array(factor, kind))).output(0))


def test_an_answer_that_is_always_the_same(it: Specimen, right: Artifact, tmp_path: Path) -> None:
    """The mean of all answers may lie within any bound on the error: what it changes by does not."""

    def edit(model: onnx.ModelProto) -> None:
        (output,) = model.graph.output
        (last,) = [node for node in model.graph.node if output.name in node.output]
        last.output[0] = "before"
        zero, one = (numpy_helper.from_array(np.array(v, np.float32), n) for v, n in ((0.0, "zero"), (1.0, "one")))
        model.graph.initializer.extend([zero, one])
        model.graph.node.append(onnx.helper.make_node("Mul", ["before", "zero"], ["nothing"]))
        model.graph.node.append(onnx.helper.make_node("Add", ["nothing", "one"], [output.name]))

    hop = judged(it, "mobile", edited(right, tmp_path, edit))
    assert hop.verdict is Verdict.FAIL


def test_int8_that_computes_in_float32(it: Specimen) -> None:
    """Asked for int8, and the float32 graph runs: its values are right, and it is not what was asked for."""
    plain = dataclasses.replace(it.artifact("mobile"), precision="int8", stored="int8")
    hop = judged(it, "mobile", plain)
    assert hop.verdict is Verdict.FAIL and "asked for int8" in str(hop.reason)
