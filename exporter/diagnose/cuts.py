"""Cuts: which values cross a place in a graph's order, and graphs cut out there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

Array = NDArray[Any]


def needed(graph: onnx.GraphProto) -> list[int]:
    """The nodes that the outputs rest on, by index."""
    wanted = {value.name for value in graph.output}
    useful = list[int]()
    for index in reversed(range(len(graph.node))):
        if wanted & set(graph.node[index].output):
            wanted |= set(graph.node[index].input)
            useful.append(index)
    return useful[::-1]


def depending(graph: onnx.GraphProto) -> list[int]:
    """Of these, the nodes that compute something from the inputs: what a runtime folds is no place to look at."""
    known = {value.name for value in graph.input} - {tensor.name for tensor in graph.initializer}
    chosen = []
    for index in needed(graph):
        if known & set(graph.node[index].input):
            known |= set(graph.node[index].output)
            chosen.append(index)
    return chosen


def crossing(graph: onnx.GraphProto, order: Sequence[int], count: int) -> list[str]:
    """The values that the first ``count`` nodes of an order give to the rest and to the outputs."""
    given = [name for index in order[:count] for name in graph.node[index].output if name]
    first = set(order[:count])
    wanted = {name for index, node in enumerate(graph.node) if index not in first for name in node.input}
    wanted |= {value.name for value in graph.output}
    return [name for name in given if name in wanted]


class Values(Protocol):
    """Arrays of the sizes and types of a graph's values."""

    def __contains__(self, name: str) -> bool: ...
    def value(self, name: str) -> Array: ...


def part(model: onnx.ModelProto, nodes: Collection[int], values: Values) -> onnx.ModelProto:
    """Some nodes of a graph as a graph of their own, of fixed sizes.

    What they take and none of them gives becomes an input, constants apart; what comes from constants alone is taken
    along. What the rest of the graph takes of them becomes an output.

    Args:
        model: the graph.
        nodes: the nodes to take, by index.
        values: the values of its inputs and outputs.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    from_constants, folded = set[int](), set(constants)
    for index, node in enumerate(graph.node):
        if all(not name or name in folded for name in node.input):
            folded |= set(node.output)
            from_constants.add(index)
    taken = sorted({*nodes, *_constants_of(graph, nodes, from_constants)})
    kept = [graph.node[index] for index in taken]
    made = {name for node in kept for name in node.output}
    asked = list(dict.fromkeys(name for node in kept for name in node.input if name and name not in made))
    outputs = [name for name in crossing(graph, sorted(nodes), len(nodes)) if name in values]
    described = {value.name: value for value in (*graph.input, *graph.output, *graph.value_info)}
    return helper.make_model(
        helper.make_graph(
            kept,
            graph.name or "part",
            [_told(name, values.value(name), described) for name in asked if name not in constants],
            [_told(name, values.value(name), described, fixed=False) for name in outputs],
            [tensor for tensor in graph.initializer if tensor.name in asked],
        ),
        opset_imports=list(model.opset_import),
        ir_version=model.ir_version,
        functions=list(model.functions),
    )


def _constants_of(graph: onnx.GraphProto, nodes: Collection[int], constant: Collection[int]) -> set[int]:
    """The nodes that come from constants alone and that these need."""
    wanted, found = {name for index in nodes for name in graph.node[index].input}, set[int]()
    for index in sorted(constant, reverse=True):
        if wanted & set(graph.node[index].output):
            wanted |= set(graph.node[index].input)
            found.add(index)
    return found


def _told(
    name: str, like: Array, described: Mapping[str, onnx.ValueInfoProto], fixed: bool = True
) -> onnx.ValueInfoProto:
    """A value of fixed sizes, in the type that the graph says; where it says none, a float64 stands for a float32.

    What a graph at fault gives may have other sizes than it should: only those of inputs are ``fixed``.
    """
    kind = described[name].type.tensor_type.elem_type if name in described else 0
    narrow = np.dtype(np.float32) if like.dtype == np.float64 else like.dtype
    kind = kind or int(helper.np_dtype_to_tensor_dtype(narrow))
    return helper.make_tensor_value_info(name, kind, like.shape if fixed else [None] * like.ndim)
