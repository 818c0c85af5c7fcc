"""Eight bits for ONNX Runtime: values and weights between Q/DQ, or weights alone behind a DequantizeLinear.

Q/DQ is ONNX Runtime's own quantiser's, asked for convolutions and products alone: asked for every operator it has, it
fails on recurrent models. Weights that it leaves are stored in eight bits all the same, each channel with a scale of
its own: a phone's file is a quarter, and what they feed is computed in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from exporter.graph import Graph

# Operators that int8 is for, and those that it would be for if the quantiser had them.
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
RECURRENT = ("GRU", "LSTM", "RNN")
# The inputs that may be weights.
WEIGHTS = {"Conv": (1,), "ConvTranspose": (1,), "GRU": (1, 2), "Gemm": (1,), "LSTM": (1, 2), "MatMul": (0, 1),
           "RNN": (1, 2)}  # fmt: skip
# A scale per channel and a node take some hundred bytes: what has fewer values is smaller as it is.
LEAST = 128
LARGEST = 127


def quantised(
    graph: Graph,
    calibration: Sequence[str],
    kept: Sequence[str],
    output: Path,
    *,
    symmetric: bool = False,
    narrow: bool = False,
) -> dict[str, str]:
    """Writes the graph with scales for int8; returns the products that are left in float32, with the reason.

    Args:
        graph: a float32 graph whose nodes have names.
        calibration: inputs to take scales from, a safetensors file each.
        kept: the nodes that are not to compute in int8.
        output: the file to write.
        symmetric: whether values have no zero points either, as TensorRT wants them.
        narrow: whether weights get seven bits, for processors that cut off sums of products of eight.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Feeds(CalibrationDataReader):  # type: ignore[misc]  # made here: its base is the runtime's own
        def __init__(self) -> None:
            self._left = iter(calibration)

        def get_next(self) -> Any:
            path = next(self._left, None)
            return None if path is None else load_file(path)

    logging.getLogger().setLevel(logging.ERROR)  # it advises, through the root logger, what was done already
    values = QuantType.QInt8 if symmetric else QuantType.QUInt8
    more = {"WeightSymmetric": True, "ActivationSymmetric": symmetric, "QuantizeBias": not symmetric}
    quantize_static(
        str(graph.path), str(output), Feeds(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=values, weight_type=QuantType.QInt8, op_types_to_quantize=list(PRODUCTS),
        nodes_to_exclude=list(kept), extra_options=more, reduce_range=narrow,
        use_external_data_format=len(graph.files) > 1,
    )  # fmt: skip
    model = Graph(output).linked()
    scaled = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    products = [node for node in graph.linked().graph.node if node.op_type in (*PRODUCTS, *RECURRENT)]
    inputs = {node.name: node.input for node in model.graph.node}
    return {n.name: "ONNX Runtime's quantiser leaves it" for n in products if not scaled & set(inputs.get(n.name, []))}


def small(given: Graph, made: Graph, graph: Graph) -> int:
    """Stores the weights of all products in eight bits, where they are not yet, and writes the file without what only
    people and tools read: the graph beside it has all of that. Returns how many weights are in eight bits."""
    model = stored_weights(given.load())
    _write(model, graph, made)
    return sum(tensor.data_type == tensor.INT8 for tensor in model.graph.initializer)


def stored_weights(model: Any) -> Any:
    """The model with the float32 weights of its products in eight bits, in place."""
    from onnx import numpy_helper

    floats = {t.name: t for t in model.graph.initializer if t.data_type == t.FLOAT}
    users: dict[str, set[int]] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name in floats:
                array_rank = len(floats[name].dims)
                axis = _axis(node, place, array_rank) if place in WEIGHTS.get(node.op_type, ()) else -1
                users.setdefault(name, set()).add(axis)
    for name, axes in users.items():
        weights = numpy_helper.to_array(floats[name])
        if len(axes) > 1 or -1 in axes or weights.size < LEAST or weights.ndim < 2:
            continue
        (axis,) = axes
        _store(model, floats[name], weights, axis)
    return model


def _axis(node: Any, place: int, rank: int) -> int:
    """The axis of a weight along which its outputs lie."""
    attributes = {a.name: a.i for a in node.attribute}
    if node.op_type == "ConvTranspose":
        return 1 if attributes.get("group", 1) == 1 else 0
    if node.op_type == "Gemm":
        return 0 if attributes.get("transB", 0) else 1
    if node.op_type == "MatMul":
        return rank - 1 if place == 1 else rank - 2
    return 1 if node.op_type in RECURRENT else 0


def _store(model: Any, tensor: Any, weights: np.ndarray, axis: int) -> None:
    """Puts a DequantizeLinear in the place of a weight, under its name."""
    from onnx import helper, numpy_helper

    name = tensor.name
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / LARGEST, 1.0).astype(np.float32)
    integers = np.clip(np.rint(weights / scale), -LARGEST, LARGEST).astype(np.int8)
    model.graph.initializer.remove(tensor)
    model.graph.initializer.extend([
        numpy_helper.from_array(integers, f"{name}.int8"), numpy_helper.from_array(scale.reshape(-1), f"{name}.scale"),
    ])  # fmt: skip
    made = helper.make_node("DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], f"{name}.float", axis=axis)
    model.graph.node.insert(0, made)


def _write(model: Any, graph: Graph, output: Graph) -> None:
    """Writes a model without what only people and tools read.

    What was put in between scales gets short names, for of a small model names are a third.
    """
    del model.graph.value_info[:]
    model.graph.doc_string = ""
    whole = graph.linked().graph
    known = _names(whole)
    short = {name: f"q{index}" for index, name in enumerate(sorted(_names(model.graph) - known))}
    for tensor in model.graph.initializer:
        tensor.name = short.get(tensor.name, tensor.name)
    nodes = {node.name for node in whole.node}
    for node in model.graph.node:
        node.doc_string = ""
        node.name = node.name if node.name in nodes else ""
        del node.metadata_props[:]
        for side in (node.input, node.output):
            side[:] = [short.get(name, name) for name in side]
    Graph.written(output.path, model)


def _names(graph: Any) -> set[str]:
    """The names of all values of a graph."""
    made = {name for node in graph.node for name in node.output if name}
    return made | {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
