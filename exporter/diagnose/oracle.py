"""Oracle: a graph run node by node in numpy, in float64, so that it is known what any value inside should be.

By ONNX's own reference evaluator, a node at a time: nothing is fused, nothing is compiled, and no more is held in
memory than what is still needed. The same graph rounded to a precision after every node is the yardstick: what
arithmetic in that precision errs by at each value, and no defect does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from exporter.errors import NotProven
from exporter.evaluator import replacements

Array = NDArray[Any]

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
# How many bits of a float32's 23 a type has not.
DROPPED_BITS = {"bf16": 16}


class Ran(NamedTuple):
    """A node that ran, its place in the graph's order, and what it gave."""

    place: int
    node: onnx.NodeProto
    outputs: dict[str, Array]


def walk(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    precision: str = "fp64",
    instead: Mapping[str, Array] | None = None,
) -> Iterator[Ran]:
    """Runs a graph node by node.

    Args:
        model: the graph; types of floats inside it do not count, for ``precision`` says what everything is held in.
        feeds: the inputs by name.
        precision: ``fp64``; or ``fp32``, ``fp16`` or ``bf16``, to which every value is rounded.
        instead: values to go on with in the place of what nodes give, by name.

    Raises:
        NotProven: ``undiagnosable`` at a node that has graphs of its own, or that the evaluator does not know.
    """
    graph, opsets = model.graph, {entry.domain: entry.version for entry in model.opset_import}
    values = {tensor.name: held(numpy_helper.to_array(tensor), precision) for tensor in graph.initializer}
    values |= {name: held(value, precision) for name, value in feeds.items()}
    uses = Counter(name for node in graph.node for name in node.input)
    for place, node in enumerate(graph.node):
        outputs = evaluated(node, [values[name] if name else None for name in node.input], opsets, precision)
        outputs |= {name: value for name, value in (instead or {}).items() if name in outputs}
        values |= outputs
        yield Ran(place, node, outputs)
        uses.subtract(node.input)
        for name in {*node.input, *node.output}:
            if uses[name] <= 0:
                values.pop(name, None)


def answered(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    precision: str = "fp64",
    instead: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """The outputs of a graph, run node by node."""
    wanted = {value.name for value in model.graph.output}
    found: dict[str, Array] = {}
    for ran in walk(model, feeds, precision, instead):
        found |= {name: value for name, value in ran.outputs.items() if name in wanted}
    return found


def evaluated(
    node: onnx.NodeProto, inputs: Sequence[Array | None], opsets: Mapping[str, int], precision: str = "fp64"
) -> dict[str, Array]:
    """What one node gives for these inputs."""
    from onnx.reference import ReferenceEvaluator

    if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
        raise _undiagnosable(node, "it has graphs of its own inside")
    feeds = {name: value for name, value in zip(node.input, inputs, strict=True) if name and value is not None}
    try:
        with np.errstate(all="ignore"):
            session = ReferenceEvaluator(_in(node, precision), opsets=dict(opsets), new_ops=_replaced())
            outputs = session.run(None, feeds)
    except Exception as error:  # the evaluator has no type of its own for what it cannot do
        raise _undiagnosable(node, f"{type(error).__name__}: {error}") from error
    given = zip(node.output, outputs, strict=False)  # what is optional and not asked for has no name
    return {name: held(np.asarray(value), precision) for name, value in given if name and value is not None}


def held(value: Array, precision: str) -> Array:
    """A float as it is held: as float64, or as a float32 that the precision has; anything else as it is."""
    if not is_float(value):
        return value
    if precision == "fp64":
        return value.astype(np.float64)
    return rounded(value.astype(np.float32), precision)


def rounded(value: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
    """A float32 rounded to the nearest value that a precision has."""
    if precision == "fp16":
        with np.errstate(over="ignore"):
            return value.astype(np.float16).astype(np.float32)
    if precision in DROPPED_BITS:
        drop = DROPPED_BITS[precision]
        bits = np.ascontiguousarray(value).view(np.uint32)
        even = ((bits >> np.uint32(drop)) & np.uint32(1)) + np.uint32((1 << (drop - 1)) - 1)
        kept = (bits + even) & np.uint32(~((1 << drop) - 1) & 0xFFFFFFFF)
        return np.where(np.isfinite(value), kept.view(np.float32), value).reshape(value.shape)
    return value


def is_float(value: Array) -> bool:
    """Whether a value is of any floating type, those that numpy has not among them."""
    return np.issubdtype(value.dtype, np.floating) or value.dtype.name == "bfloat16"


def _in(node: onnx.NodeProto, precision: str) -> onnx.NodeProto:
    """The node, where it casts to a floating type, casting to the one that everything is held in."""
    if node.op_type != "Cast":
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for attribute in copy.attribute:
        if attribute.name == "to" and attribute.i in FLOATS:
            attribute.i = TensorProto.DOUBLE if precision == "fp64" else TensorProto.FLOAT
    return copy


@cache
def _replaced() -> list[Any]:
    return replacements()


def _undiagnosable(node: onnx.NodeProto, reason: str) -> NotProven:
    return NotProven(
        "undiagnosable",
        f"node {node.name or node.op_type} ({node.op_type}) cannot be run apart: {reason}",
        why="the first wrong node is found by running every node by itself, as the ONNX standard words it",
        next="write that node with other operators in the model, or look at the values before it by hand",
    )
