"""Probing: a graph compiled by the very target that is asked about, with inner values among its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from exporter.graph import Graph
from exporter.target import Options, Target

Array = NDArray[Any]
LOW = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})


@dataclass
class Workbench:
    """Compiles graphs and runs them once.

    Attributes:
        target: the target that is asked about.
        options: as its artifact was compiled with.
        form: which of its files is opened; None where graphs are run as they are.
        folder: a place to write to.
        compiles: whether it compiles; else it runs graphs as they are.
        runs: how many graphs were run so far.
    """

    target: Target
    options: Options
    form: str | None
    folder: Path
    compiles: bool = True
    runs: int = 0
    _types: dict[int, dict[str, int]] = field(default_factory=dict)

    def run(self, model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What a graph gives, compiled anew; of a graph with inputs of fixed sizes, for these sizes."""
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        folder.mkdir(parents=True)
        path = folder / "graph.onnx"
        Graph.written(path, model)
        options = replace(self.options, shapes=shapes_of(model), prepared={})
        if not self.compiles:
            opened = self.target.open_graph(Graph(path), options)
        else:
            artifact = self.target.compile(Graph(path), options, folder)
            opened = self.target.open(artifact, options, self.form)
        given = {value.name: as_taken(feeds[value.name], value) for value in inputs_of(model)}
        with opened as runner:
            return {name: np.array(value) for name, value in runner.infer(given, check_inputs=False).items()}


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """A graph's inputs, weights apart."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    """The shape of every input, a string naming a dim."""
    return {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in inputs_of(model)
    }


def as_taken(value: Array, input_: onnx.ValueInfoProto) -> Array:
    """A value in the type that an input has."""
    return np.ascontiguousarray(value, helper.tensor_dtype_to_np_dtype(input_.type.tensor_type.elem_type)).reshape(
        value.shape
    )


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    """The type of every value, as far as it can be told."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except onnx.shape_inference.InferenceError:
        graph = model.graph
    found = [*graph.value_info, *graph.output, *graph.input]
    return {value.name: value.type.tensor_type.elem_type for value in found} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }


def with_outputs(
    model: onnx.ModelProto, names: Sequence[str], types: Mapping[str, int], like: Mapping[str, Array]
) -> tuple[onnx.ModelProto, dict[str, str]]:
    """A copy that gives inner values as well.

    Args:
        model: the graph.
        names: the values.
        types: as :func:`types_of` tells them.
        like: arrays of their shapes and, where no type is told, of their types.

    Returns:
        The graph, and the name of the output that gives each value: numpy has no name for some types, which are cast.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    outputs = {name: name for name in names}
    there = {value.name for value in copy.graph.output}
    for name in dict.fromkeys(names):
        kind = types.get(name) or _type(like[name])
        if kind in LOW:
            outputs[name] = f"{name}/probe"
            copy.graph.node.append(
                helper.make_node("Cast", [name], [outputs[name]], name=outputs[name], to=TensorProto.FLOAT)
            )
            kind = TensorProto.FLOAT
        if outputs[name] not in there:
            copy.graph.output.append(helper.make_tensor_value_info(outputs[name], kind, [None] * like[name].ndim))
    return copy, outputs


def _type(like: Array) -> int:
    kind = np.dtype(np.float32) if like.dtype == np.float64 else like.dtype
    return int(helper.np_dtype_to_tensor_dtype(kind))


def size_of(values: Iterable[Array]) -> int:
    """Bytes of values, as float32 where they are float64."""
    return sum(value.size * min(value.itemsize, 4) for value in values)
