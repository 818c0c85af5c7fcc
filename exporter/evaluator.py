"""ONNX's reference evaluator: numpy, node by node, as the standard words it. What it lacks is filled in here.

Source: https://onnx.ai/onnx/api/reference.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exporter.graph import INSIDE, without

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
    """The operators that the evaluator has not in full, for its ``new_ops``."""
    return [grouped_conv_transpose(), partial_gather_elements()]


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


def grouped_conv_transpose() -> Any:
    """``ConvTranspose`` for any number of groups: the evaluator's own refuses more than one."""
    from onnx.reference.op_run import OpRun
    from onnx.reference.ops.op_conv_transpose import ConvTranspose as OneGroup

    class ConvTranspose(OpRun):  # type: ignore[misc]  # the class name is the operator it replaces
        op_domain = ""

        def _run(self, x: Any, w: Any, b: Any = None, group: int = 1, **attributes: Any) -> tuple[Any]:
            outputs = w.shape[1]
            parts = []
            for index, (part, weight) in enumerate(zip(np.split(x, group, 1), np.split(w, group, 0), strict=True)):
                bias = None if b is None else b[index * outputs : (index + 1) * outputs]
                parts.append(OneGroup._run(self, part, weight, bias, group=1, **attributes)[0])
            return (np.concatenate(parts, axis=1),)

    return ConvTranspose
