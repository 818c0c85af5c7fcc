"""Ranges: which values a lower precision cannot hold, measured on cases; and which nodes therefore stay in float32.

Evidence first: a value whose rounding loses more than the precision's own unit roundoff overflows, vanishes, or lives
among the subnormals. A few rules stand beside it for what no range shows: sums of many elements, small constants that
keep a division from being one by zero, and numbers that are places in an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from exporter.lower.types import TYPES, is_float
from exporter.parity.ladder import UNIT_ROUNDOFF

PROBE = "exporter.ranges"

# Sums of many elements, and what divides by their roots: an accumulator in half precision loses the small ones.
SUMMING = frozenset({
    "CumSum", "GroupNormalization", "InstanceNormalization", "LayerNormalization", "LogSoftmax",
    "MeanVarianceNormalization", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
})  # fmt: skip
# Between a small constant and the division it guards, and before it the squares it is added to.
AFTER_EPSILON = frozenset(
    {"Clip", "Div", "Expand", "Log", "Max", "Pow", "Reciprocal", "Reshape", "Sqrt", "Squeeze", "Transpose", "Unsqueeze"}
)
BEFORE_EPSILON = frozenset({"Abs", "Add", "Mul", "Pow", "ReduceMean", "ReduceSum", "Sqrt", "Sub"})
# How a place in an image is computed: from here back to what predicts it, and forward to the weights of neighbours.
PLACING = frozenset({
    "Abs", "Add", "Cast", "Ceil", "Clip", "Concat", "Div", "Expand", "Floor", "Max", "Min", "Mod", "Mul", "Neg",
    "Range", "Reshape", "Round", "Slice", "Split", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
# Inputs that are places: an operator, and which of its inputs.
PLACES = {"GridSample": 1}


@dataclass(frozen=True)
class Loss:
    """What rounding does to a value: ``relative`` is ``|rounded - v| / |v|``, ``largest`` the largest ``|v|``."""

    relative: float
    largest: float


# ------------------------------------------------------------------------------------------------------- measuring


def probed(model: ir.Model, precision: str) -> tuple[onnx.ModelProto, list[str]]:
    """The model with one output more, :data:`PROBE`: a row per float32 value with what its rounding loses.

    Args:
        model: a float32 model as :func:`exporter.lower.types.named` gives it; it is copied.
        precision: a key of :data:`exporter.lower.types.TYPES`.

    Returns:
        The model, and the names of the values in the order of the rows: ``(|rounded - v|^2, |v|^2, max |v|)``. Nothing
        is fetched but three numbers a value, so that memory does not grow with the graph.
    """
    copy = ir.from_proto(ir.to_proto(model))
    graph, rows, names = copy.graph, list[ir.Value](), list[str]()
    values = [value for value in graph.inputs if is_float(value)]
    values += [value for node in list(graph) for value in node.outputs if is_float(value) and value.uses()]
    for value in values:
        nodes = list(_row_nodes(value, TYPES[precision]))
        graph.extend(nodes)
        rows.append(nodes[-1].outputs[0])
        names.append(value.name or "")
    table = ir.node("Concat", rows, {"axis": 0}, name=PROBE)
    table.outputs[0].name = PROBE
    table.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    table.outputs[0].shape = ir.Shape([len(rows), 3])
    graph.append(table)
    graph.outputs.append(table.outputs[0])
    return ir.to_proto(copy), names


def _row_nodes(value: ir.Value, kind: ir.DataType) -> Iterator[ir.Node]:
    """The nodes that compute one row."""

    def made(op: str, inputs: Sequence[ir.Value], label: str, **attributes: int) -> ir.Node:
        node = ir.node(op, inputs, attributes, name=f"{PROBE}/{value.name}/{label}")
        node.outputs[0].name = f"{PROBE}/{value.name}/{label}"
        return node

    down = made("Cast", [value], "down", to=kind.value)
    up = made("Cast", [down.outputs[0]], "up", to=ir.DataType.FLOAT.value)
    lost = made("Sub", [up.outputs[0], value], "lost")
    size = made("Abs", [value], "size")
    parts = [
        made("ReduceSumSquare", [lost.outputs[0]], "lost2", keepdims=0),
        made("ReduceSumSquare", [value], "size2", keepdims=0),
        made("ReduceMax", [size.outputs[0]], "largest", keepdims=0),
    ]
    one = ir.Value(name=f"{PROBE}/{value.name}/one")
    constant = ir.node("Constant", [], {"value_ints": [1]}, name=f"{PROBE}/{value.name}/one", outputs=[one])
    shaped = [made("Reshape", [p.outputs[0], one], f"part{i}") for i, p in enumerate(parts)]
    row = made("Concat", [p.outputs[0] for p in shaped], "row", axis=0)
    two = ir.Value(name=f"{PROBE}/{value.name}/two")
    shape = ir.node("Constant", [], {"value_ints": [1, 3]}, name=f"{PROBE}/{value.name}/two", outputs=[two])
    yield from (down, up, lost, size, *parts, constant, *shaped, row, shape)
    yield made("Reshape", [row.outputs[0], two], "table")


def losses(names: Sequence[str], tables: Iterable[NDArray[np.float32]]) -> dict[str, Loss]:
    """What rounding loses of every value, the worst over the cases."""
    found: dict[str, Loss] = {}
    for table in tables:
        for name, (lost2, size2, largest) in zip(names, table.astype(np.float64), strict=True):
            relative = 0.0 if size2 == 0.0 else float(np.sqrt(lost2 / size2))
            relative = relative if np.isfinite(relative) else float("inf")
            before = found.get(name, Loss(0.0, 0.0))
            found[name] = Loss(max(before.relative, relative), max(before.largest, float(largest)))
    return found


def constant_losses(model: ir.Model, precision: str) -> dict[str, Loss]:
    """The same of every constant."""
    kind, found = TYPES[precision].numpy(), {}
    for name, value in model.graph.initializers.items():
        if is_float(value) and value.const_value is not None:
            exact = value.const_value.numpy().astype(np.float64)
            with np.errstate(over="ignore"):
                lost = exact.astype(np.float32).astype(kind).astype(np.float64) - exact
            size = float(np.linalg.norm(exact.ravel()))
            relative = 0.0 if size == 0.0 else float(np.linalg.norm(lost.ravel())) / size
            largest = float(np.max(np.abs(exact), initial=0.0))
            found[name] = Loss(relative if np.isfinite(relative) else float("inf"), largest)
    return found


# ------------------------------------------------------------------------------------------------------- judging

LARGEST = {"fp16": float(np.finfo(np.float16).max), "bf16": 3.39e38}


def beyond(model: ir.Model, lost: Mapping[str, Loss], precision: str) -> dict[str, str]:
    """The nodes that give a value which a precision cannot hold at all, each with the value and how large it gets."""
    return {
        node.name or "": _reason(value.name or "", lost[value.name or ""], precision)
        for node in model.graph
        for value in node.outputs
        if value.name in lost and lost[value.name].largest > LARGEST[precision]
    }


def keeping(model: ir.Model, lost: Mapping[str, Loss], precision: str) -> dict[str, str]:
    """The nodes that stay in float32, each with the reason.

    Args:
        model: a float32 model as :func:`exporter.lower.types.named` gives it.
        lost: what rounding loses of every value and constant.
        precision: the precision to come.
    """
    kept: dict[str, str] = {}
    limit = UNIT_ROUNDOFF[precision]
    for node in model.graph:
        for value in [*node.inputs, *node.outputs]:
            loss = lost.get(value.name or "") if value is not None else None
            if loss is not None and loss.relative > limit:
                kept.setdefault(node.name or "", _reason(value.name or "", loss, precision))
        if node.op_type in SUMMING:
            kept.setdefault(node.name or "", f"{node.op_type} sums many elements")
    _keep_around_small_constants(model, lost, limit, kept)
    _keep_places(model, kept)
    return kept


def _reason(name: str, loss: Loss, precision: str) -> str:
    if loss.largest > LARGEST[precision]:
        return f"{name} reaches {loss.largest:.3g}, beyond {LARGEST[precision]:g}"
    return f"rounding {name} loses {loss.relative:.2g} of it: it is as small as {precision} can hold, or smaller"


def _keep_around_small_constants(model: ir.Model, lost: Mapping[str, Loss], limit: float, kept: dict[str, str]) -> None:
    """A constant that vanishes in the lower type guards a root or a division: all between stays."""
    for node in model.graph:
        small = [
            v.name for v in node.inputs if v is not None and v.const_value is not None and _single(v)
            and v.name in lost and lost[v.name].relative > limit
        ]  # fmt: skip
        if small:
            reason = f"the constant {small[0]} vanishes, and what it guards with it"
            for near in (*_walk(node, AFTER_EPSILON, _users, 8), *_walk(node, BEFORE_EPSILON, _producers, 3)):
                kept.setdefault(near.name or "", reason)


def _single(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.size == 1


def _keep_places(model: ir.Model, kept: dict[str, str]) -> None:
    """Places in an image keep their fractions: half precision has none left beyond 2048."""
    places: set[int] = set()
    for node in model.graph:
        if node.op_type == "Cast" and is_float(node.inputs[0]) and not is_float(node.outputs[0]):
            roots = [node.inputs[0]]
        elif node.op_type in PLACES:
            roots = [node.inputs[PLACES[node.op_type]]]
            kept.setdefault(node.name or "", f"{node.op_type} reads between pixels")
        else:
            continue
        for root in roots:
            if root is not None and root.producer() is not None:
                for near in (root.producer(), *_walk(root.producer(), PLACING, _producers, 64)):
                    if near is not None and near.op_type in PLACING:
                        places |= {id(v) for v in near.outputs}
    for node in model.graph:  # in order: what is computed of places alone is one too
        moving = [v for v in node.inputs if is_float(v) and v is not None and v.const_value is None]
        if node.op_type in PLACING and moving and all(id(v) in places for v in moving):
            places |= {id(v) for v in node.outputs}
        if any(id(v) in places for v in node.outputs):
            kept.setdefault(node.name or "", "it computes a place in an image")


def _walk(
    start: ir.Node | None, through: frozenset[str], step: Callable[[ir.Node], list[ir.Node]], depth: int
) -> list[ir.Node]:
    """The nodes reached from one through operators of these kinds."""
    found: dict[int, ir.Node] = {}
    edge = [start] if start is not None else []
    for _ in range(depth):
        edge = [n for node in edge for n in step(node) if n.op_type in through and id(n) not in found]
        found |= {id(n): n for n in edge}
        if not edge:
            break
    return list(found.values())


def _users(node: ir.Node) -> list[ir.Node]:
    return [user for value in node.outputs for user in value.consumers()]


def _producers(node: ir.Node) -> list[ir.Node]:
    made = [value.producer() for value in node.inputs if value is not None and is_float(value)]
    return [producer for producer in made if producer is not None]
