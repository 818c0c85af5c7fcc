"""The part of a graph that fails by itself, written with its inputs and what they should give."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from exporter.bundle import write_tensors
from exporter.diagnose import cuts
from exporter.diagnose.known import Known
from exporter.diagnose.oracle import walk
from exporter.diagnose.probing import as_taken, inputs_of
from exporter.graph import Graph
from exporter.parity.ladder import VACUOUS
from exporter.parity.measure import l2, relative

Array = NDArray[Any]
# So far what a node gives is followed to where it changes with the inputs.
MOST_READERS = 24


@dataclass
class Values:
    """Right values, and beside them those that only the graph at fault has a name for."""

    known: Known
    own: Mapping[str, Array]

    def __contains__(self, name: str) -> bool:
        return name in self.known

    def value(self, name: str) -> Array:
        """A value by its name."""
        return self.known.value(name) if name in self.known else self.own[name]


def inner(model: onnx.ModelProto, nodes: Collection[int], feeds: Mapping[str, Array], known: Known) -> dict[str, Array]:
    """What some nodes of a graph are given that is not known, by the graph itself."""
    made = {name for node in model.graph.node for name in node.output}
    wanted = {name for index in nodes for name in model.graph.node[index].input if name in made and name not in known}
    found: dict[str, Array] = {}
    if not wanted:
        return found
    for ran in walk(model, feeds):
        found |= {name: value for name, value in ran.outputs.items() if name in wanted}
        if ran.place + 1 >= max(nodes):  # the last of them may be one that cannot run
            break
    return found


def moving(model: onnx.ModelProto, nodes: Collection[int], values: Known, other: Known) -> list[int]:
    """Some nodes, with those that read what they give and other inputs do not change, until all they give changes.

    A size, or what is computed of one, is the same in every case: that it is right then tells nothing. Where what comes
    of it does not change either, the nodes as they are.
    """
    taken = sorted(nodes)
    for _ in range(MOST_READERS):
        given = [name for name in cuts.crossing(model.graph, taken, len(taken)) if name in values]
        still = {name for name in given if not _moves(values, other, name)}
        readers = {i for i, node in enumerate(model.graph.node) if i not in taken and still & set(node.input)}
        if not still:
            return taken
        if not readers:
            break
        taken = sorted({*taken, *readers})
    return sorted(nodes)


def _moves(values: Known, other: Known, name: str) -> bool:
    """Whether a value is another for other inputs, by more than rounding."""
    right, moved = values.value(name), other.value(name)
    if right.shape != moved.shape:
        return True
    moves = moved.astype(np.float64) - right.astype(np.float64)
    return relative(l2(moves), l2(right.astype(np.float64))) > VACUOUS * values.noise[name].relative


def written(
    model: onnx.ModelProto, nodes: Collection[int], values: Values, other: Values, folder: Path, case: str
) -> dict[str, Any]:
    """Writes some nodes of a graph as a graph of their own, with two cases.

    Args:
        model: the graph.
        nodes: the nodes, by index.
        values: what they are given and should give.
        other: the same for other inputs.
        folder: a place to write to.
        case: what the first case is called.

    Returns:
        ``{"graph": path, "cases": {name: path}, "inputs": {name: [dtype, shape, low, high]}, "outputs": {name: [dtype,
        shape]}, "nodes": how many}``. A case's file holds what a bundle's does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = cuts.part(model, nodes, values)
    path = folder / "part.onnx"
    Graph.written(path, part)
    cases = {case: values, f"{case}-halved": other} if _alike(part, values, other) else {case: values}
    files: dict[str, str] = {}
    for name, of in cases.items():
        files[name] = str(folder / f"{len(files)}.safetensors")
        write_tensors(Path(files[name]), _tensors(part, of, other if of is values else values))
    inputs = {value.name: as_taken(values.value(value.name), value) for value in inputs_of(part)}
    return {
        "graph": str(path),
        "cases": files,
        "inputs": {name: [str(value.dtype), list(value.shape), *_range(value)] for name, value in inputs.items()},
        "outputs": {v.name: [_dtype(v), list(values.value(v.name).shape)] for v in part.graph.output},
        "nodes": len(part.graph.node),
    }


def _alike(part: onnx.ModelProto, values: Values, other: Values) -> bool:
    """Whether other inputs give the part values of the same sizes."""
    names = [value.name for value in (*inputs_of(part), *part.graph.output)]
    return all(values.value(name).shape == other.value(name).shape for name in names)


def _tensors(part: onnx.ModelProto, values: Values, other: Values) -> dict[str, Array]:
    tensors = {f"input/{v.name}": as_taken(values.value(v.name), v) for v in inputs_of(part)}
    for output in part.graph.output:
        right = values.value(output.name)
        noise, moved = values.known.noise[output.name], 0.0
        if other.value(output.name).shape == right.shape:
            moves = other.value(output.name).astype(np.float64) - right.astype(np.float64)
            moved = min(relative(l2(moves), l2(right.astype(np.float64))), 1e30)
        tensors[f"reference/{output.name}"] = right
        tensors[f"noise/{output.name}"] = np.array([noise.relative, noise.largest, moved])
    return tensors


def _range(value: Array) -> tuple[float, float]:
    if value.size == 0:
        return 0.0, 0.0
    finite = value[np.isfinite(value)] if np.issubdtype(value.dtype, np.floating) else value
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _dtype(value: onnx.ValueInfoProto) -> str:
    return str(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
