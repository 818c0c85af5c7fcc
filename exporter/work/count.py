"""Work: how many multiplications each node of a graph takes, and how many bytes it reads and writes.

Only what multiplies matrices counts as arithmetic, as in every count of FLOPs: convolutions, products, recurrent
layers. What moves and adds is a hundredth of it in arithmetic; what it takes in time is its traffic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod

import onnx
import onnx_ir as ir

from exporter.graph import SCOPE, module_of
from exporter.work import Work

# What gives a part of its first input may leave the rest of it alone.
PICKING = frozenset({"Gather", "GatherElements", "GatherND", "GridSample", "Resize", "Slice"})
# How many gates a recurrent layer computes per step.
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def work(model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]) -> dict[str, Work]:
    """What each node takes, at the sizes of the inputs that are given.

    Args:
        model: a float32 graph whose nodes have names.
        sizes: the shape of every input.

    Returns:
        By node name. What hangs on shapes that cannot be told is left out.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        if value.name in sizes:
            del value.type.tensor_type.shape.dim[:]
            value.type.tensor_type.shape.dim.extend(
                onnx.TensorShapeProto.Dimension(dim_value=size) for size in sizes[value.name]
            )
    for value in (*fixed.graph.output, *fixed.graph.value_info):
        value.type.tensor_type.ClearField("shape")
    del fixed.graph.value_info[:]
    scopes = {node.name: {p.key: p.value for p in node.metadata_props}.get(SCOPE) for node in model.graph.node}
    return {node.name: _taken(node, scopes.get(node.name)) for node in _folded(fixed).graph if node.name}


def _taken(node: ir.Node, scope: str | None) -> Work:
    count = _COUNTS[node.op_type](node) if node.op_type in _COUNTS else 0
    reads, writes = _sizes(node.inputs), _sizes(node.outputs)
    source = node.inputs[0].name if node.inputs and node.inputs[0] is not None else None
    if node.op_type in PICKING and source in reads:
        reads[source] = min(reads[source], sum(writes.values()))
    return Work(node.op_type, count, module_of(scope), reads, writes)


def _sizes(values: Sequence[ir.Value | None]) -> dict[str, int]:
    """Bytes of the values whose shape and type are known."""
    found = {}
    for value in values:
        shape, kind = _shape(value), None if value is None else value.dtype
        if value is not None and value.name and shape is not None and kind is not None:
            found[value.name] = ceil(prod(shape) * kind.itemsize)
    return found


def _folded(model: onnx.ModelProto) -> ir.Model:
    """The model with every shape known that follows from the inputs': shape arithmetic is computed on the way."""
    from onnxscript import optimizer

    loaded = ir.from_proto(model)
    optimizer.fold_constants(loaded, onnx_shape_inference=True, input_size_limit=1 << 12, output_size_limit=1 << 12)
    return loaded


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a value where all of it is known."""
    if value is None:
        return None
    shape = value.shape if value.const_value is None else value.const_value.shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    return tuple(int(size) for size in shape)


def _conv(node: ir.Node) -> int:
    given, weight = _shape(node.outputs[0]), _shape(node.inputs[1])
    return prod(given) * prod(weight[1:]) if given and weight else 0


def _conv_transpose(node: ir.Node) -> int:
    taken, weight = _shape(node.inputs[0]), _shape(node.inputs[1])
    return prod(taken) * prod(weight[1:]) if taken and weight else 0


def _matmul(node: ir.Node) -> int:
    given, taken = _shape(node.outputs[0]), _shape(node.inputs[0])
    return prod(given) * taken[-1] if given is not None and taken else 0


def _gemm(node: ir.Node) -> int:
    given, taken = _shape(node.outputs[0]), _shape(node.inputs[0])
    transposed = node.attributes.get_int("transA", 0)
    return prod(given) * taken[0 if transposed else 1] if given and taken else 0


def _recurrent(node: ir.Node) -> int:
    taken, recurrence = _shape(node.inputs[0]), _shape(node.inputs[2])
    if not taken or not recurrence:
        return 0
    steps, batch, size = taken
    directions, hidden = recurrence[0], recurrence[2]
    return steps * batch * directions * GATES[node.op_type] * hidden * (size + hidden)


def _einsum(node: ir.Node) -> int:
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    shapes = [_shape(value) for value in node.inputs]
    if "." in equation or not all(shapes):
        return 0
    sizes: dict[str, int] = {}
    for letters, shape in zip(equation.partition("->")[0].split(","), shapes, strict=True):
        assert shape is not None
        sizes |= dict(zip(letters, shape, strict=True))
    return prod(sizes.values()) if len(shapes) > 1 else 0


_COUNTS: Mapping[str, Callable[[ir.Node], int]] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "MatMul": _matmul, "Gemm": _gemm, "Einsum": _einsum,
    "GRU": _recurrent, "LSTM": _recurrent, "RNN": _recurrent,
}  # fmt: skip
