"""Rounding: a strongly typed graph as one that a CPU computes in float32, rounding after every node to its type.

ONNX Runtime has few half-precision kernels on CPU: it computes most nodes in float32 and may keep float32 between, so
that an overflow which every accelerator shows stays unseen. Here each value of a lower type is rounded to it by a
pair of casts, as the type says.
"""

from __future__ import annotations

import onnx
import onnx_ir as ir

from exporter.lower.types import TYPES, converted

LOW = frozenset(TYPES.values())


def rounded(model: onnx.ModelProto) -> ir.Model:
    """The model in float32, every value of a lower type rounded to that type.

    Raises:
        ValueError: a node keeps a lower type in an attribute that is not known here.
    """
    loaded = ir.from_proto(model)
    graph = loaded.graph
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.dtype in LOW:
            value.const_value = converted(tensor, ir.DataType.FLOAT)  # rounded already: float32 holds it exactly
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in list(graph):
        _widen_attributes(node)
        lowered = [value for value in node.outputs if value.dtype in LOW]
        if node.op_type == "Cast":
            _widen_cast(node)
        for value in lowered:
            _round_after(graph, node, value)
    return loaded


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in LOW:
            exact = attribute.as_tensor().numpy().astype("float32")
            node.attributes[name] = ir.AttrTensor(name, ir.Tensor(exact))
        if attribute.type == ir.AttributeType.GRAPH:
            raise ValueError(f"{node.name} holds a graph of its own")


def _widen_cast(node: ir.Node) -> None:
    """A cast to a lower type gives float32, to be rounded next."""
    if ir.DataType(node.attributes["to"].as_int()) in LOW:
        node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT.value)


def _round_after(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    kind = value.dtype
    assert kind is not None
    uses = list(value.uses())
    down = ir.node("Cast", [value], {"to": kind.value}, name=f"{value.name}.round")
    up = ir.node("Cast", [down.outputs[0]], {"to": ir.DataType.FLOAT.value}, name=f"{value.name}.widen")
    down.outputs[0].name, up.outputs[0].name = f"{value.name}.rounded", f"{value.name}.wide"
    down.outputs[0].type, up.outputs[0].type = ir.TensorType(kind), ir.TensorType(ir.DataType.FLOAT)
    down.outputs[0].shape = up.outputs[0].shape = value.shape
    value.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_after(node, [down, up])
    for user, index in uses:
        user.replace_input_with(index, up.outputs[0])
    for index, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[index] = up.outputs[0]
