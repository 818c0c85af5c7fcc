"""A compiled model at work: run, timed, and what the plugin says of its layers."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from exporter.graph import external_from
from exporter.target import HINT, MIXED, Layer, Options

from .model import input_name, output_name
from .weights import Weights

# OpenVINO's names of the types arithmetic can run in. Layers of other types (shapes, indices) are no arithmetic.
FLOATS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "f64": "fp64"}
INTEGERS = {"i8": "int8", "u8": "int8"}  # of what multiplies; integers elsewhere are no arithmetic
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
MULTIPLYING = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})
# What the frontend adds to the name of a product whose bias it adds apart.
BIASED = "/WithoutBiases"
# Layers that the plugin makes of a whole operator under a name of its own.
ANONYMOUS = {"RNNSeq": ("GRU", "LSTM", "RNN"), "RNNCell": ("GRU", "LSTM", "RNN")}


def hint(precision: str, way: str) -> str:
    """Types that stand in the graph are taken as they are: a hint would lower the nodes that were kept.

    What is kept out of int8 by way of ``mixed`` is lowered on purpose: it errs too much in eight bits, not in bf16.
    """
    return HINTS["bf16" if way == MIXED else precision if way == HINT else "fp32"]


def properties(options: Options) -> dict[str, Any]:
    """The CPU plugin's settings: the precision asked for, one stream, and the threads asked for."""
    lowest = hint(options.precision, options.way)
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": lowest, "PERFORMANCE_HINT": "LATENCY"}
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
        self._inputs = [input_name(port) for port in model.inputs]
        self._outputs = [output_name(port) for port in model.outputs]
        with self._passing():
            self._compiled = ov.Core().compile_model(model, self.device, properties(self._options))
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

        settings, model = properties(self._options) | {"PERF_COUNT": True}, self._read()
        given = {op.get_friendly_name() for op in model.get_ordered_ops()}
        compiled = ov.Core().compile_model(model, self.device, settings)
        request, spent = compiled.create_infer_request(), dict[str, list[float]]()
        for _ in range(runs):
            request.infer({index: _tensor(feeds[name]) for index, name in enumerate(self._inputs)})
            for entry in request.profiling_info:
                spent.setdefault(entry.node_name, []).append(entry.real_time.total_seconds() * 1e9)
        found = {op.get_friendly_name(): op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()}
        whole = self._options.precision == "int8"
        timed = [name for name, ns in spent.items() if name in found and any(ns)]
        return [_layer(name, found[name], median(spent[name]), given, whole) for name in timed]

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


def _layer(name: str, info: Any, ns: float, given: Collection[str], whole: bool) -> Layer:
    """What the plugin says of a layer: one that it made itself has none of the ``given`` model's nodes behind it.

    Where a ``whole`` model is in eight bits, so is what does not multiply; elsewhere such a layer gives truth values.
    """
    names = [node for node in info["originalLayersNames"].value.split(",") if node in given]
    nodes = tuple(dict.fromkeys(node.removesuffix(BIASED) for node in names))
    kind = _type_of(info)
    kind = INTEGERS.get(kind, kind) if whole else kind
    return Layer(name, info["layerType"].value, nodes, ns, FLOATS.get(kind, kind))


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
