"""Scales: what eight bits do to the values of a product, so that it can be tried before anything is quantised.

Weights have eight bits per channel of their outputs, symmetric; values eight bits between the least and the largest
that calibration inputs give, zero included. Quantisers choose their scales more cleverly; which layers suffer is the
same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from safetensors.numpy import load_file

from exporter import registry
from exporter.graph import Graph
from exporter.lower.types import is_float
from exporter.target import Options

PROBE = "exporter.spans"
# Per operator that int8 is for: the inputs that are rounded. A bias is not.
ROUNDED = {
    "Conv": (0, 1),
    "ConvTranspose": (0, 1),
    "GRU": (0, 1, 2),
    "Gemm": (0, 1),
    "LSTM": (0, 1, 2),
    "MatMul": (0, 1),
}
LEVELS = 255

Spans = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Scaled:
    """Rounding the inputs of products to eight bits, between the ``spans`` that were seen of every value."""

    spans: Spans

    def sides(self, model: ir.Model, node: ir.Node) -> tuple[list[bool], list[bool]]:  # noqa: ARG002
        """The values and weights of a product, as far as a span of them is known."""
        wanted = ROUNDED.get(node.op_type, ())
        takes = [i in wanted and self._known(value) for i, value in enumerate(node.inputs)]
        return takes, [False] * len(node.outputs)

    def rounded(self, model: ir.Model, value: ir.Value, label: str) -> tuple[list[ir.Node], ir.Value]:
        """A constant as eight bits have it; else the nodes that round a value."""
        if value.const_value is not None:
            return [], _constant(model, f"{label}/weights", per_channel(value.const_value.numpy(), channel_of(value)))
        low, high = self.spans[value.name or ""]
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / LEVELS) or np.float32(1.0)
        zero = np.uint8(np.clip(np.rint(-low / scale), 0, LEVELS))
        scales = _constant(model, f"{label}/scale", np.array(scale, np.float32))
        zeros = _constant(model, f"{label}/zero", np.array(zero, np.uint8))
        down = ir.node("QuantizeLinear", [value, scales, zeros], name=f"{label}/down")
        up = ir.node("DequantizeLinear", [down.outputs[0], scales, zeros], name=f"{label}/up")
        return [down, up], up.outputs[0]

    def _known(self, value: ir.Value | None) -> bool:
        return value is not None and is_float(value) and (value.const_value is not None or value.name in self.spans)


def channel_of(value: ir.Value) -> int | None:
    """The axis of a weight along which its outputs lie; None where its users differ."""
    found = {_axis(node, place, len(value.const_value.shape) if value.const_value is not None else 0)
             for node, place in value.uses()}  # fmt: skip
    return found.pop() if len(found) == 1 else None


def _axis(node: ir.Node, place: int, rank: int) -> int:
    if node.op_type == "ConvTranspose":
        return 1 if node.attributes.get_int("group", 1) == 1 else 0
    if node.op_type in ("GRU", "LSTM"):
        return 1
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    if node.op_type == "MatMul":
        return rank - 1 if place == 1 else max(rank - 2, 0)
    return 0


def per_channel(weights: NDArray[np.float32], axis: int | None) -> NDArray[np.float32]:
    """Weights as eight symmetric bits have them, each channel along ``axis`` with a scale of its own."""
    others = tuple(i for i in range(weights.ndim) if i != axis) if axis is not None else None
    largest = np.abs(weights).max(axis=others, keepdims=True, initial=0.0)
    scale = np.where(largest > 0, largest / 127, 1.0)
    return (np.clip(np.rint(weights / scale), -127, 127) * scale).astype(np.float32)


def _constant(model: ir.Model, name: str, array: NDArray[np.generic]) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def spans(model: ir.Model, files: Sequence[str], folder: Path, options: Options) -> dict[str, tuple[float, float]]:
    """The least and the largest that every value of a product takes over calibration inputs.

    Args:
        model: a float32 model as :func:`exporter.lower.types.named` gives it.
        files: inputs of it, a safetensors file each.
        folder: a place to write to.
        options: how to run it.
    """
    probe, names = _probed(model)
    if not names:
        return {}
    path = folder / f"{model.graph.name or 'graph'}.spans.onnx"
    probing = Graph.written(path, probe)
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    with registry.graph_runners()[0].open_graph(probing, options) as runner:
        for file in files:
            table = np.asarray(runner.infer(load_file(file), check_inputs=False)[PROBE], np.float64)
            low, high = np.minimum(low, table[:, 0]), np.maximum(high, table[:, 1])
    for made in probing.files:
        made.unlink()
    return {
        name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True) if np.isfinite([a, b]).all()
    }


def _probed(model: ir.Model) -> tuple[onnx.ModelProto, list[str]]:
    """The model with one output more: a row of least and largest per value that goes into a product."""
    copy = ir.from_proto(ir.to_proto(model))
    graph = copy.graph
    wanted = {
        value.name: value
        for node in graph
        for place in ROUNDED.get(node.op_type, ())
        for value in node.inputs[place : place + 1]
        if value is not None and is_float(value) and value.const_value is None
    }
    rows = []
    for value in wanted.values():
        nodes = list(_row(value))
        graph.extend(nodes)
        rows.append(nodes[-1].outputs[0])
    if rows:
        table = ir.node("Concat", rows, {"axis": 0}, name=PROBE)
        table.outputs[0].name = PROBE
        table.outputs[0].type, table.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([len(rows), 2])
        graph.append(table)
        graph.outputs.append(table.outputs[0])
    return ir.to_proto(copy), [name or "" for name in wanted]


def _row(value: ir.Value) -> Iterator[ir.Node]:
    label = f"{PROBE}/{value.name}"
    one = ir.node("Constant", [], {"value_ints": [1, 1]}, name=f"{label}/shape")
    ends = [ir.node(op, [value], {"keepdims": 0}, name=f"{label}/{op}") for op in ("ReduceMin", "ReduceMax")]
    shaped = [ir.node("Reshape", [end.outputs[0], one.outputs[0]], name=f"{label}/{end.op_type}/row") for end in ends]
    yield from (one, *ends, *shaped)
    yield ir.node("Concat", [node.outputs[0] for node in shaped], {"axis": 1}, name=label)
