"""OpenVINO on CPU: an IR pair ``.xml`` and ``.bin``, run in the precision that was asked for and no other.

Format: https://docs.openvino.ai/2026/documentation/openvino-ir-format.html. Left to its defaults the CPU plugin runs
bf16 where the processor has it, and ``save_model`` stores f16; both are told not to here, and what ran is read back
from the compiled model.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from safetensors.numpy import load_file

from exporter.graph import Graph, external_from
from exporter.target import (
    BF16_OPSET,
    HINT,
    MIXED,
    OWN_SCALES,
    QUANTISED,
    TYPES,
    Artifact,
    Availability,
    Layer,
    Options,
    Problem,
    Progress,
    Ran,
    Target,
    silent,
)

from ._openvino.weights import Weights

# OpenVINO's names of the types arithmetic can run in. Layers of other types (shapes, indices) are no arithmetic.
FLOATS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "f64": "fp64"}
INTEGERS = {"i8": "int8", "u8": "int8"}  # of what multiplies; integers elsewhere are no arithmetic
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
MULTIPLYING = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
# OpenVINO's operators that int8 is for, and those that only move.
PRODUCTS = frozenset({"Convolution", "ConvolutionBackpropData", "GRUSequence", "GroupConvolution",
                      "GroupConvolutionBackpropData", "LSTMSequence", "MatMul"})  # fmt: skip
OUTSIDE = frozenset({"Constant", "Parameter", "Result"})
# What the ONNX frontend puts behind an output's name where it names the operator that gives it.
SINK = "/sink_port_0"
MOVING = frozenset({"Concat", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze", "VariadicSplit"})
# Layers that the plugin makes of a whole operator under a name of its own.
ANONYMOUS = {"RNNSeq": ("GRU", "LSTM", "RNN"), "RNNCell": ("GRU", "LSTM", "RNN")}


class OpenVINO(Target):
    """``exporter openvino MODEL``."""

    name = "openvino"
    extra = "openvino"
    precisions = {"fp32": ("fp32", "fp32"), "bf16": ("bf16", "bf16"), "fp16": ("fp16", "fp16"),
                  "int8": ("int8", "int8")}  # fmt: skip
    lowers = {"bf16": (HINT, TYPES), "fp16": (HINT,), "int8": (QUANTISED, MIXED)}
    rung = "compiled"
    beside = ("bin",)
    python_example = """\
import numpy as np, openvino as ov
model = ov.Core().compile_model("{file}", "CPU", {{"INFERENCE_PRECISION_HINT": "{hint}"}})
outputs = model({inputs})
result = outputs["{output}"]
"""
    cpp_example = """\
#include <openvino/openvino.hpp>
ov::Core core;
auto model = core.compile_model("{file}", "CPU", ov::hint::inference_precision(ov::element::{hint}));
auto request = model.create_infer_request();
request.set_tensor("{input}", ov::Tensor(ov::element::f32, {{{shape}}}, data));  // and every other input
request.infer();
const float* result = request.get_tensor("{output}").data<float>();
"""

    def ways(self, precision: str) -> tuple[str, ...]:
        able = not self.available().present or "BF16" in _capabilities()
        return tuple(way for way in super().ways(precision) if able or way != MIXED)

    def rest(self, precision: str, way: str) -> frozenset[str]:
        return frozenset({"fp32", "bf16"}) if way == MIXED else super().rest(precision, way)

    def opset_of(self, precision: str, way: str) -> int | None:
        return BF16_OPSET if (precision, way) == ("bf16", TYPES) else self.opset

    def example_fields(self, precision: str, way: str) -> dict[str, str]:
        return {"hint": _hint(precision, way)}

    def available(self) -> Availability:
        try:
            return Availability(True, version("openvino"))
        except PackageNotFoundError:
            return Availability(False, reason="openvino is not installed", next="pip install openvino")

    def lacks(self, precision: str, device: int) -> Problem | None:
        if precision == "int8":
            missing = find_spec("nncf") is None
            return Problem("nncf", "NNCF, which quantises, is not installed", "pip install nncf") if missing else None
        if precision not in HINTS or precision == "fp32" or not self.available().present:
            return None
        able = _capabilities()
        if precision.upper() in able:
            return None
        others = [name for name in ("bf16", "fp16") if name.upper() in able]
        reason = f"OpenVINO says that this processor computes in {', '.join(able)}"
        return Problem("CPU", reason, f"--precision {(others or ['fp32'])[0]}")

    def problems(self, graph: Graph, options: Options) -> list[Problem]:
        from openvino.frontend import FrontEndManager

        frontend = FrontEndManager().load_by_framework("onnx")
        partial = frontend.convert_partially(frontend.load(str(graph.path)))
        # What the ONNX frontend cannot convert stays in the model as a framework node.
        unknown = [op for op in partial.get_ordered_ops() if "Framework" in op.get_type_name()]
        remedy = "write it with operators of https://docs.openvino.ai, or run this model on another target"
        return [Problem(op.get_friendly_name(), "OpenVINO has no such ONNX operator", remedy) for op in unknown]

    def compile(self, graph: Graph, options: Options, folder: Path, progress: Progress = silent) -> Artifact:
        import openvino as ov

        model, left = _read(graph.path), dict[str, str]()
        if options.way in OWN_SCALES:
            progress("taking scales", 0, 0)
            model = _quantised(model, options)
            left = _not_quantised(model)
        if options.shapes:
            read = {_input(port) for port in model.inputs}
            model.reshape({name: shape for name, shape in _bounded_shapes(options).items() if name in read})
        path = folder / "model.xml"
        ov.save_model(model, str(path), compress_to_fp16=False)
        files = {"xml": path, "bin": path.with_suffix(".bin")}
        stored = options.precision if options.way in {TYPES, *OWN_SCALES} else "fp32"
        return Artifact(options.precision, files, ("xml",), {"openvino": version("openvino")}, stored, left=left)

    def open(self, artifact: Artifact, options: Options, form: str | None = None) -> BaseRunner:
        return OpenVINORunner(artifact.files["xml"], artifact.files["bin"], options)

    def ran(self, runner: BaseRunner) -> Ran:
        assert isinstance(runner, OpenVINORunner)
        types = runner.layer_types()
        known = FLOATS | {"int8": "int8"}
        layers = {known[name]: count for name, count in types.items() if name in known}
        return Ran(
            "+".join(sorted(layers)) or "none", layers, {runner.device: sum(types.values())}, nodes=runner.node_types()
        )

    def timer(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray]) -> Callable[[], Mapping[str, np.ndarray]]:
        assert isinstance(runner, OpenVINORunner)
        return runner.bound(feeds)

    def layers(self, runner: BaseRunner, feeds: Mapping[str, np.ndarray], runs: int) -> list[Layer]:
        assert isinstance(runner, OpenVINORunner)
        return runner.layers(feeds, runs)


def _capabilities() -> list[str]:
    """What this processor computes in, by the plugin's names."""
    import openvino as ov

    return list(ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _read(path: Path) -> Any:
    """The model with its operators named after the graph's nodes: the frontend names what gives an output otherwise."""
    import openvino as ov
    from openvino.frontend import FrontEndManager

    model = ov.Core().read_model(str(path))
    loaded = FrontEndManager().load_by_framework("onnx").load(str(path))  # owns its places
    _name_inputs(model, [place.get_names()[0] for place in loaded.get_inputs()])
    made = [(place.get_names(), place.get_producing_operation()) for place in loaded.get_outputs()]
    nodes = {name: node.get_names()[0] for names, node in made if node and node.get_names() for name in names}
    for result in model.get_results():
        last = result.input_value(0).get_node()
        if last.get_type_name() not in OUTSIDE and last.get_friendly_name() in nodes:
            last.set_friendly_name(nodes[last.get_friendly_name()])
    return model


def _name_inputs(model: Any, names: list[str]) -> None:
    """Gives inputs the graph's names: one that is an output as well was named after that."""
    parameters = model.get_parameters()
    if len(parameters) != len(names):  # an input that nothing reads is left out, the others keep their names
        return
    for parameter, name in zip(parameters, names, strict=True):
        if parameter.get_friendly_name() != name:
            parameter.set_friendly_name(name)
            parameter.output(0).get_tensor().add_names({name})


def _quantised(model: Any, options: Options) -> Any:
    """The model with scales for int8 taken by NNCF from what its graph is given on calibration inputs."""
    import nncf
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    logging.getLogger("nncf").setLevel(logging.ERROR)
    feeds = [load_file(path) for path in options.calibration_files]
    # The frontend makes several operators of one node, named after it: node_conv2d/WithoutBiases.
    named = [op.get_friendly_name() for op in model.get_ops()]
    kept = [name for name in named if name.partition("/")[0] in options.kept]
    attends = any(op.get_type_name() in ("Softmax", "ScaledDotProductAttention") for op in model.get_ops())
    # Products alone: what lies between them, sums and gates, loses more than it gains (docs/precision.md).
    between = sorted({op.get_type_name() for op in model.get_ops()} - PRODUCTS - OUTSIDE)
    # No smoothing: the products it puts before layers cost more than the layers gain.
    plain = nncf.AdvancedSmoothQuantParameters(matmul=-1, convolution=-1)
    # All that was seen is held: a quantile, NNCF's own choice, cuts off what rare inputs need.
    ranges = RangeEstimatorParametersSet.MINMAX
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(feeds),
            subset_size=len(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
            ignored_scope=nncf.IgnoredScope(names=kept, types=between, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=plain, activations_range_estimator_params=ranges
            ),
        )


def _not_quantised(model: Any) -> dict[str, str]:
    """The products that NNCF left as they were: it has no int8 for some, and thinks others too delicate."""
    left = {}
    for op in model.get_ordered_ops():
        if op.get_type_name() in PRODUCTS and not _from_scales(op.input_value(0).get_node()):
            left[op.get_friendly_name().partition("/")[0]] = "NNCF leaves it"
    return left


def _from_scales(node: Any, depth: int = 6) -> bool:
    """Whether a value comes from a FakeQuantize, perhaps moved on the way."""
    if node.get_type_name() == "FakeQuantize":
        return True
    moves = node.get_type_name() in MOVING
    return depth > 0 and moves and _from_scales(node.input_value(0).get_node(), depth - 1)


def _bounded_shapes(options: Options) -> dict[str, Any]:
    """Partial shapes with the declared bounds, so that the runtime refuses what was never tested."""
    import openvino as ov

    def bounds(size: int | str) -> Any:
        low, _, high = options.bounds(size)
        return ov.Dimension(low, high)

    return {name: ov.PartialShape([bounds(size) for size in shape]) for name, shape in options.shapes.items()}


def _hint(precision: str, way: str) -> str:
    """Types that stand in the graph are taken as they are: a hint would lower the nodes that were kept.

    What is kept out of int8 by way of ``mixed`` is lowered on purpose: it errs too much in eight bits, not in bf16.
    """
    return HINTS["bf16" if way == MIXED else precision if way == HINT else "fp32"]


def _properties(options: Options) -> dict[str, Any]:
    """The CPU plugin's settings: the precision asked for, one stream, and the threads asked for."""
    hint = _hint(options.precision, options.way)
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    if options.threads:
        properties["INFERENCE_NUM_THREADS"] = options.threads
    return properties


class OpenVINORunner(BaseRunner):  # type: ignore[misc]  # Polygraphy carries no types
    """Polygraphy runner of a compiled model; outputs are copies."""

    device = "CPU"

    def __init__(self, xml: Path, weights: Path, options: Options) -> None:
        super().__init__(prefix="openvino-runner")
        self._xml, self._bin, self._options = xml, weights, options
        self._large: Weights | None = None

    def activate_impl(self) -> None:
        import openvino as ov

        self._large = Weights(self._bin) if self._bin.stat().st_size >= external_from() else None
        model = self._read()
        # Before it is compiled: that may name an input after what was made of it.
        self._inputs = [_input(port) for port in model.inputs]
        self._outputs = [_output(port) for port in model.outputs]
        with self._passing():
            self._compiled = ov.Core().compile_model(model, self.device, _properties(self._options))
        del model
        self._request = self._compiled.create_infer_request()

    def _read(self) -> Any:
        import openvino as ov

        if self._large is None:
            return ov.Core().read_model(str(self._xml), str(self._bin))
        return ov.Core().read_model(self._xml.read_bytes(), self._large.tensor)

    def _passing(self) -> AbstractContextManager[None]:
        """Around what packs large weights: compiling, and the first run at every shape."""
        return nullcontext() if self._large is None else self._large.passing()

    def deactivate_impl(self) -> None:
        del self._request, self._compiled
        self._large = None

    def get_input_metadata_impl(self) -> Any:
        metadata = TensorMetadata()
        for name, port in zip(self._inputs, self._compiled.inputs, strict=True):
            shape = [d.get_length() if d.is_static else -1 for d in port.get_partial_shape()]
            metadata.add(name, port.get_element_type().to_dtype(), shape)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, np.ndarray]) -> OrderedDict[str, np.ndarray]:
        # By their places: a name may be that of an input and of an output. What the graph never reads has none.
        given = {index: feed_dict[name] for index, name in enumerate(self._inputs)}
        given = {index: _tensor(v) if v.dtype.name == "bfloat16" else v for index, v in given.items()}
        with self._passing():
            found = self._request.infer(given, share_inputs=True, share_outputs=True)
        ports = enumerate(zip(self._outputs, self._compiled.outputs, strict=True))
        return OrderedDict((name, np.array(_array(port, found[index]))) for index, (name, port) in ports)

    def bound(self, feeds: Mapping[str, np.ndarray]) -> Callable[[], Mapping[str, np.ndarray]]:
        """A native call on tensors that are set once, inputs and outputs: nothing of Python is inside but the call."""
        import openvino as ov

        request = self._compiled.create_infer_request()
        # Tensors of the runtime's own making: aligned as its kernels like them, and alive as long as the call.
        held = [_tensor(feeds[name]) for name in self._inputs]
        for index, tensor in enumerate(held):
            request.set_input_tensor(index, tensor)
        with self._passing():
            request.infer()  # the first run tells the shapes of dynamic outputs
        ports = self._compiled.outputs
        given = [request.get_output_tensor(index) for index in range(len(ports))]
        outputs = [ov.Tensor(tensor.get_element_type(), tensor.get_shape()) for tensor in given]
        for index, tensor in enumerate(outputs):
            request.set_output_tensor(index, tensor)
        found = zip(self._outputs, ports, outputs, strict=True)
        views = {name: _array(port, tensor.data) for name, port, tensor in found}
        # The outputs are in these tensors already; left to itself, infer() would copy every one of them once more.
        infer = partial(request.infer, share_outputs=True)

        def call(_held: object = (held, outputs)) -> Mapping[str, np.ndarray]:
            infer()
            return views

        return call

    def layers(self, feeds: Mapping[str, np.ndarray], runs: int) -> list[Layer]:
        """Each layer's median, in a model compiled once more with the plugin's counters on: those cost time."""
        import openvino as ov

        settings = _properties(self._options) | {"PERF_COUNT": True}
        compiled = ov.Core().compile_model(self._read(), self.device, settings)
        request, spent = compiled.create_infer_request(), dict[str, list[float]]()
        for _ in range(runs):
            request.infer({index: _tensor(feeds[name]) for index, name in enumerate(self._inputs)})
            for entry in request.profiling_info:
                spent.setdefault(entry.node_name, []).append(entry.real_time.total_seconds() * 1e9)
        found = {op.get_friendly_name(): op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()}
        return [_layer(name, found[name], median(ns)) for name, ns in spent.items() if name in found and any(ns)]

    def layer_types(self) -> dict[str, int]:
        """How many layers of the compiled model run in each type, as the plugin itself reports."""
        kinds = [op.get_rt_info() for op in self._compiled.get_runtime_model().get_ordered_ops()]
        layers = [kind for kind in kinds if kind["layerType"].value not in ("Input", "Output", "Const")]
        return dict(Counter(_type_of(layer) for layer in layers))

    def node_types(self) -> dict[str, str]:
        """The type of every node of the graph that the plugin names; of operators it does not name, as a whole."""
        found, others, whole = dict[str, str](), dict[str, str](), dict[str, set[str]]()
        for op in self._compiled.get_runtime_model().get_ordered_ops():
            info = op.get_rt_info()
            kind = FLOATS.get(info["runtimePrecision"].value)
            if info["layerType"].value in MULTIPLYING:
                kind = kind or INTEGERS.get(info["runtimePrecision"].value)
            if kind is None:
                continue
            for operator in ANONYMOUS.get(info["layerType"].value, ()):
                whole.setdefault(f"*{operator}", set()).add(kind)
            # What is made of a node beside its product (a reorder of weights, a bias) says nothing of the product.
            of = found if info["layerType"].value in MULTIPLYING else others
            for name in info["originalLayersNames"].value.split(","):
                of.setdefault(name.partition("/")[0], kind)  # node_conv2d/WithoutBiases
        return others | found | {operator: next(iter(kinds)) for operator, kinds in whole.items() if len(kinds) == 1}


def _type_of(layer: Any) -> str:
    """The plugin's name of a layer's type; of an integer product ours, to tell it from integers that only move."""
    kind = str(layer["runtimePrecision"].value)
    return INTEGERS.get(kind, kind) if layer["layerType"].value in MULTIPLYING else kind


def _layer(name: str, info: Any, ns: float) -> Layer:
    """What the plugin says of a layer: one that it made itself has no node of the graph behind it."""
    nodes = tuple(node for node in info["originalLayersNames"].value.split(",") if node)
    kind = info["runtimePrecision"].value
    return Layer(name, info["layerType"].value, nodes, ns, FLOATS.get(kind, kind))


def _input(port: Any) -> str:
    """The graph's name of an input; its tensor has those of all that it passes through unchanged, or only the last."""
    return str(port.get_node().get_friendly_name())


def _output(port: Any) -> str:
    """The graph's name of an output, among all names of its tensor."""
    own = str(port.get_node().get_friendly_name()).removesuffix(SINK)
    return own if own in port.get_names() else str(port.get_any_name())


def _tensor(array: np.ndarray) -> Any:
    """An array as a tensor; one of bfloat16 shares its memory, a type of numpy's that the binding does not know."""
    import openvino as ov

    array = np.asarray(array, order="C")
    if array.dtype.name != "bfloat16":
        return ov.Tensor(array)
    return ov.Tensor(array.view(np.uint16), array.shape, ov.Type.bf16)


def _array(port: Any, value: np.ndarray) -> np.ndarray:
    """An output in its type: the binding hands bfloat16 out as the bits of float16."""
    if port.get_element_type().get_type_name() != "bf16":
        return value
    from ml_dtypes import bfloat16

    return value.view(bfloat16)
