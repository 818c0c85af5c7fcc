"""ONNX's reference evaluator: numpy, node by node, as the standard words it. What it lacks is filled in here.

Source: https://onnx.ai/onnx/api/reference.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporter.graph import INSIDE, without
from exporter.sliding import Sliding, averaged, convolved, largest, transposed

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]
# ONNX's numbers of types of which several elements share a byte.
PACKED = frozenset({21, 22, 23, 25, 26})


def evaluator(model: onnx.ModelProto) -> Any:
    """A session: ``run(None, {input: array})`` gives the outputs in order."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model, new_ops=replacements())


def in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every real number in double precision: weights, constants, casts and declared types."""
    import onnx
    from onnx import TensorProto, numpy_helper

    real = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16}
    doubled = onnx.ModelProto()
    doubled.CopyFrom(model)

    def widened(tensor: onnx.TensorProto) -> None:
        if tensor.data_type in real:
            wide = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))

    for graph in _graphs(doubled.graph):
        for tensor in graph.initializer:
            widened(tensor)
        for value in [*graph.input, *graph.output, *graph.value_info]:
            if value.type.tensor_type.elem_type in real:
                value.type.tensor_type.elem_type = TensorProto.DOUBLE
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.TENSOR:
                    widened(attribute.t)
                elif attribute.name in ("to", "dtype") and attribute.i in real:
                    attribute.i = TensorProto.DOUBLE
                elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                    numbers = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                    name = "value"
                    attribute.CopyFrom(
                        onnx.helper.make_attribute(name, numpy_helper.from_array(np.array(numbers, np.float64)))
                    )
    return doubled


def apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """A model that takes its large weights as inputs, and those weights: the evaluator would copy each of them.

    What lies beside the graph is mapped, and in memory where it is read; writing to it changes no file.

    Args:
        model: as :meth:`exporter.graph.Graph.linked` gives it; its weights are taken out of it.
    """
    large = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) > INSIDE or tensor.external_data]
    weights = {tensor.name: array_of(tensor) for tensor in large}
    for tensor in large:
        tensor.ClearField("raw_data")
    return without(model, weights), weights


def array_of(tensor: onnx.TensorProto) -> Array:
    """The values of a linked model's tensor."""
    import onnx
    import onnx_ir as ir

    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if not tensor.external_data or tensor.data_type in PACKED:
        return np.array(ir.from_proto(tensor).numpy())
    said = {entry.key: entry.value for entry in tensor.external_data}
    mapped = np.memmap(said["location"], dtype, "c", int(said.get("offset", 0)), tuple(tensor.dims))
    return mapped if mapped.flags.aligned else np.array(mapped)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)


def replacements() -> list[Any]:
    """The operators that the evaluator has not in full or is slow at, for its ``new_ops``."""
    return [
        sliding_conv(),
        sliding_conv_transpose(),
        sliding_average_pool(),
        sliding_max_pool(),
        partial_gather_elements(),
    ]


def partial_gather_elements() -> Any:
    """``GatherElements`` of indices that are fewer than the data along other axes: the evaluator's own refuses them."""
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):  # type: ignore[misc]  # the class name is the operator it replaces
        op_domain = ""

        def _run(self, data: Any, indices: Any, axis: int = 0) -> tuple[Any]:
            axis %= data.ndim
            sizes = [data.shape[axis] if place == axis else size for place, size in enumerate(indices.shape)]
            return (np.take_along_axis(data[tuple(map(slice, sizes))], indices % data.shape[axis], axis),)

    return GatherElements


def sliding_conv() -> Any:
    """``Conv`` by products of matrices; padding that is told by a rule is left to the evaluator's own."""
    from onnx.reference.ops.op_conv import Conv as Gathering

    class Conv(Gathering):  # type: ignore[misc]  # the class name is the operator it replaces
        op_domain = ""

        def _run(self, x: Any, w: Any, b: Any = None, **attributes: Any) -> tuple[Any]:
            group = attributes.get("group") or 1
            if by_rule(attributes) or x.ndim < 3 or x.shape[1] != w.shape[1] * group or w.shape[0] % group:
                return (super()._run(x, w, b, **attributes)[0],)  # what does not fit is refused there
            y = convolved(x, w, slides(attributes, w.shape[2:]), group)
            return (with_bias(y, b).astype(x.dtype),)

    return Conv


def sliding_conv_transpose() -> Any:
    """``ConvTranspose`` by products of matrices, for any number of groups: the evaluator's own takes one alone."""
    from onnx.reference.ops.op_conv_transpose import ConvTranspose as OneGroup

    class ConvTranspose(OneGroup):  # type: ignore[misc]  # the class name is the operator it replaces
        op_domain = ""

        def _run(self, x: Any, w: Any, b: Any = None, **attributes: Any) -> tuple[Any]:
            group = attributes.get("group") or 1
            if by_rule(attributes) or attributes.get("output_shape") is not None:
                return (self._by_group(x, w, b, group, attributes),)
            extra = attributes.get("output_padding") or ()
            y = transposed(x, w, slides(attributes, w.shape[2:]), group, extra)
            return (with_bias(y, b).astype(x.dtype),)

        def _by_group(self, x: Any, w: Any, b: Any, group: int, attributes: dict[str, Any]) -> Any:
            parts, each = [], w.shape[1]
            for index, (part, weight) in enumerate(zip(np.split(x, group, 1), np.split(w, group, 0), strict=True)):
                bias = None if b is None else b[index * each : (index + 1) * each]
                parts.append(super()._run(part, weight, bias, **{**attributes, "group": 1})[0])
            return np.concatenate(parts, axis=1)

    return ConvTranspose


def sliding_average_pool() -> Any:
    """``AveragePool`` a tap at a time; sizes rounded up, and padding by a rule, are left to the evaluator's own."""
    from onnx.reference.ops.op_average_pool import AveragePool_19

    class AveragePool(AveragePool_19):  # type: ignore[misc]  # the class name is the operator it replaces
        op_domain = ""

        def _run(self, x: Any, **attributes: Any) -> tuple[Any]:
            if by_rule(attributes) or attributes.get("ceil_mode"):
                return (super()._run(x, **attributes)[0],)
            sliding = slides(attributes, attributes["kernel_shape"])
            return (averaged(x, sliding, bool(attributes.get("count_include_pad"))).astype(x.dtype),)

    return AveragePool


def sliding_max_pool() -> Any:
    """``MaxPool`` of floats a tap at a time; all else, and the places of what is largest, is the evaluator's own."""
    from onnx.reference.ops.op_max_pool import MaxPool as Looking

    class MaxPool(Looking):  # type: ignore[misc]  # the class name is the operator it replaces
        op_domain = ""

        def _run(self, x: Any, **attributes: Any) -> Any:
            plain = len(self.onnx_node.output) == 1 and np.issubdtype(x.dtype, np.floating) and not np.isnan(x).any()
            if by_rule(attributes) or attributes.get("ceil_mode") or not plain:
                return super()._run(x, **attributes)
            return (largest(x, slides(attributes, attributes["kernel_shape"])),)

    return MaxPool


def by_rule(attributes: Mapping[str, Any]) -> bool:
    """Whether padding is told by a rule, not by numbers."""
    return (attributes.get("auto_pad") or "NOTSET") != "NOTSET"


def slides(attributes: Mapping[str, Any], kernel: Sequence[int]) -> Sliding:
    """How the kernel of a node slides."""
    return Sliding.of(kernel, attributes.get("strides"), attributes.get("dilations"), attributes.get("pads"))


def with_bias(y: Any, bias: Any) -> Any:
    """``y (N, M, ...)`` and a bias per channel."""
    return y if bias is None else y + bias.reshape(-1, *(1,) * (y.ndim - 2))
