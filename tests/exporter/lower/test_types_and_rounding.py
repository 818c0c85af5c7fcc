"""A lowered graph has the types it says, and what they cannot hold shows on a CPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest

from exporter.lower import ranges
from exporter.lower.rounding import rounded
from exporter.lower.types import named, typed

LOW = {"fp16": onnx.TensorProto.FLOAT16, "bf16": onnx.TensorProto.BFLOAT16}


def model(body: str, inputs: str = "float[N] x", outputs: str = "float[N] y", constants: str = "") -> onnx.ModelProto:
    text = f'<ir_version: 10, opset_import: ["" : 18]> g ({inputs}) => ({outputs}) {constants} {{ {body} }}'
    return onnx.parser.parse_model(text)


def lowered(it: onnx.ModelProto, precision: str = "fp16", kept: dict[str, str] | None = None) -> onnx.ModelProto:
    low = ir.to_proto(typed(named(it), precision, kept or {}))
    onnx.checker.check_model(low, full_check=True)
    return low


def ran(it: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(it.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, inputs)
    return y


def widened(it: onnx.ModelProto) -> onnx.ModelProto:
    return ir.to_proto(rounded(it))


def types_of(it: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(it).graph
    return {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.output, *inferred.value_info)}


SQUARE_ROOT = model("s = Mul(x, x)\n y = Sqrt(s)")


def test_300_squared_overflows_and_shows() -> None:
    """What every accelerator with half precision gives; ONNX Runtime's CPU keeps float32 between and hides it."""
    x = np.array([3.0, 300.0], np.float32)
    low = lowered(SQUARE_ROOT)
    assert np.array_equal(ran(low, x=x), x), "the CPU shows the overflow by itself now: is rounding still needed?"
    assert np.array_equal(ran(widened(low), x=x), np.array([3.0, np.inf], np.float32))


def test_what_half_precision_cannot_hold_is_found_and_kept() -> None:
    it = named(SQUARE_ROOT)
    probe, names = ranges.probed(it, "fp16")
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    tables = [session.run([ranges.PROBE], {"x": np.array([3.0, 300.0], np.float32)})[0]]
    kept = ranges.keeping(it, ranges.losses(names, tables), "fp16")
    assert len(kept) == 2 and all("s reaches 9e+04, beyond 65504" in reason for reason in kept.values())
    x = np.array([3.0, 300.0], np.float32)
    assert np.array_equal(ran(widened(lowered(SQUARE_ROOT, kept=kept)), x=x), x)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_every_value_is_rounded_to_its_type(precision: str) -> None:
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    kind = ir.DataType(LOW[precision]).numpy()
    low = lowered(model("s = Mul(x, x)\n y = Add(s, x)"), precision)
    assert types_of(low)["s"] == LOW[precision]
    held = x.astype(kind).astype(np.float32)
    square = (held * held).astype(kind).astype(np.float32)
    assert np.array_equal(ran(widened(low), x=x), (square + held).astype(kind).astype(np.float32))


def test_inputs_and_outputs_keep_their_names_and_types() -> None:
    low = lowered(SQUARE_ROOT)
    assert [(v.name, v.type.tensor_type.elem_type) for v in low.graph.input] == [("x", 1)]
    assert [(v.name, v.type.tensor_type.elem_type) for v in low.graph.output] == [("y", 1)]
    assert [d.dim_param for d in low.graph.output[0].type.tensor_type.shape.dim] == ["N"]


def test_a_kept_node_computes_in_float32_and_casts_are_shared() -> None:
    it = model("s = Mul(x, x)\n a = Sqrt(s)\n b = Exp(s)\n c = Add(a, b)\n y = Neg(c)")
    (sqrt, exp) = (n.name for n in named(it).graph if n.op_type in ("Sqrt", "Exp"))
    low = lowered(it, kept={sqrt: "-", exp: "-"})
    types = types_of(low)
    assert (types["s"], types["a"], types["b"], types["c"]) == (LOW["fp16"], 1, 1, LOW["fp16"])
    # To half at the door, up once for both kept nodes, down for each, up at the end.
    assert sum(node.op_type == "Cast" for node in low.graph.node) == 5


def test_a_constant_has_each_type_it_is_used_in_once() -> None:
    it = model("a = Mul(x, w)\n b = Sqrt(a)\n y = Mul(b, w)", constants="<float[1] w = {0.1}>")
    (last,) = [n.name for n in named(it).graph if n.op_type == "Mul"][1:]
    low = lowered(it, kept={last: "-"})
    assert sorted(t.data_type for t in low.graph.initializer) == [1, LOW["fp16"]]
    everything = lowered(it)
    assert [t.data_type for t in everything.graph.initializer] == [LOW["fp16"]]


def test_what_an_operator_takes_in_float32_alone_stays_so() -> None:
    """The scales of Resize are float32 whatever it resizes."""
    it = model(
        'y = Resize <mode = "nearest"> (x, , scales)', "float[1,1,2,2] x", "float[1,1,4,4] y",
        "<float[4] scales = {1.0, 1.0, 2.0, 2.0}>",
    )  # fmt: skip
    low = lowered(it)
    assert [t.data_type for t in low.graph.initializer] == [1]
    assert ran(widened(low), x=np.ones((1, 1, 2, 2), np.float32)).shape == (1, 1, 4, 4)


def test_integers_are_left_alone() -> None:
    it = model("s = Shape(x)\n n = Gather(s, zero)\n f = Cast <to = 1> (n)\n y = Div(x, f)",
               constants="<int64 zero = {0}>")  # fmt: skip
    low = lowered(it)
    assert np.array_equal(ran(widened(low), x=np.ones(4, np.float32)), np.full(4, 0.25, np.float32))
    assert types_of(low)["f"] == LOW["fp16"] and types_of(low)["n"] == onnx.TensorProto.INT64


def test_places_and_small_constants_stay() -> None:
    it = named(
        model("p = Add(x, half)\n f = Floor(p)\n i = Cast <to = 7> (f)\n s = Mul(x, x)\n e = Add(s, eps)\n"
              "r = Sqrt(e)\n d = Div(x, r)\n g = Cast <to = 1> (i)\n y = Add(d, g)",
              constants="<float[1] half = {0.5}, float[1] eps = {1e-12}>")
    )  # fmt: skip
    kept = ranges.keeping(it, ranges.constant_losses(it, "fp16"), "fp16")
    operators = {n.name: n.op_type for n in it.graph}
    assert {operators[name] for name, why in kept.items() if "place" in why} == {"Add", "Floor", "Cast"}
    assert {operators[name] for name, why in kept.items() if "eps" in why} == {"Mul", "Add", "Sqrt", "Div"}


def test_the_same_graph_is_lowered_the_same() -> None:
    assert lowered(SQUARE_ROOT).SerializeToString() == lowered(SQUARE_ROOT).SerializeToString()
