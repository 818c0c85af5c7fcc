"""Defects planted at a node of a bundle's graphs, passes or artifacts, each as small as a real one is."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exporter import pipeline, registry, simplify
from exporter.bundle import editing
from exporter.diagnose import cuts, parent
from exporter.graph import Graph
from exporter.isolate import Limits, Outcome
from exporter.simplify import passes
from exporter.target import Artifact, Options, Target
from tests.fakes.lab import Here

Edit = Callable[[onnx.ModelProto, onnx.NodeProto], bool]
# Where a defect is planted: in what tracing, a pass, or a target's compiling made.
HOPS = ("traced", "simplified", "compiled")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
ALPHAS = {"LeakyRelu": ("alpha", 0.01), "Gemm": ("alpha", 1.0), "Elu": ("alpha", 1.0)}


ONE_AT_A_TIME = threading.RLock()


class InProcess(Here):
    """Stages that run here, so that what is planted in this process is what they see."""

    def __init__(self, folder: Path, limits: Limits, progress: Any) -> None:
        self.folder, self.limits, self.progress, self.done = folder, limits, progress, list[Any]()

    def attempt(self, stage: str, function: str, request: Mapping[str, Any]) -> Outcome:
        """One at a time: a reference changes PyTorch's default type, which a trace beside it would see."""
        with ONE_AT_A_TIME:
            return super().attempt(stage, function, request)


@contextlib.contextmanager
def in_process() -> Iterator[None]:
    """Within it, exports and diagnoses run their stages in this process."""
    with mock.patch.object(parent, "Stages", InProcess), mock.patch.object(pipeline, "Stages", InProcess):
        yield


# ------------------------------------------------------------------------------------------------- edits of a node


def weight(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """A weight tensor of another checkpoint: a twentieth off, element by element."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for place, name in enumerate(node.input):
        tensor = tensors.get(name)
        if tensor is not None and tensor.data_type in FLOATS and np.prod(tensor.dims) > 1:
            value = numpy_helper.to_array(tensor)
            change = 1 + 0.05 * np.random.default_rng(0).standard_normal(value.shape)
            copy = numpy_helper.from_array((value * change).astype(value.dtype), f"{name}.wrong")
            model.graph.initializer.append(copy)  # of this node alone, though others share the right one
            node.input[place] = copy.name
            return True
    return False


def attribute(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """An attribute that another value is as good for, by its form."""
    held = {entry.name: entry for entry in node.attribute}
    if node.op_type in ALPHAS:
        name, default = ALPHAS[node.op_type]
        now = helper.get_attribute_value(held[name]) if name in held else default
        return _set(node, name, now * 1.5)
    if node.op_type == "Conv" and "pads" in held and any(held["pads"].ints):
        pads = list(held["pads"].ints)
        half = len(pads) // 2
        axis = next(axis for axis in range(half) if pads[axis] or pads[axis + half])
        moved = 1 if pads[axis] else -1
        pads[axis], pads[axis + half] = pads[axis] - moved, pads[axis + half] + moved
        return _set(node, "pads", pads)
    if node.op_type == "GRU":
        now = held["linear_before_reset"].i if "linear_before_reset" in held else 0
        return _set(node, "linear_before_reset", 1 - now)
    if node.op_type == "LayerNormalization":
        return _set(node, "epsilon", 1e-2)
    return False


def axis(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """Another axis."""
    held = {entry.name: entry for entry in node.attribute}
    if node.op_type in ("Softmax", "LogSoftmax"):
        now = held["axis"].i if "axis" in held else -1
        return _set(node, "axis", -2 if now in (-1, 3) else -1)
    if node.op_type == "Transpose" and "perm" in held:
        perm = list(held["perm"].ints)
        perm[-1], perm[-2] = perm[-2], perm[-1]
        return _set(node, "perm", perm)
    if node.op_type == "Concat":
        return _set(node, "axis", held["axis"].i - 1 if held["axis"].i else 1)
    if node.op_type.startswith("Reduce") and len(node.input) > 1:
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        axes = tensors.get(node.input[1])
        if axes is None or axes.size != 1:
            return False
        model.graph.initializer.append(numpy_helper.from_array(axes - 1 if axes[0] else axes + 1, f"{node.name}.axes"))
        node.input[1] = f"{node.name}.axes"
        return True
    return False


def swapped(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """The first two inputs in each other's place."""
    if node.op_type not in ("Sub", "Div", "MatMul", "Concat", "Pow", "Where") or len(node.input) < 2:
        return False
    first, second = (1, 2) if node.op_type == "Where" else (0, 1)
    node.input[first], node.input[second] = node.input[second], node.input[first]
    return True


def lowered(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """A node that computes in bf16: what it takes and gives is rounded."""
    if node.op_type not in (
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "GRU",
        "LayerNormalization",
        "InstanceNormalization",
    ):
        return False
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for place, name in enumerate(node.input):
        tensor = tensors.get(name)
        if tensor is not None and tensor.data_type == TensorProto.FLOAT:
            bits = numpy_helper.to_array(tensor).view(np.uint32) & np.uint32(0xFFFF0000)
            model.graph.initializer.append(numpy_helper.from_array(bits.view(np.float32), f"{name}.{node.name}.low"))
            node.input[place] = f"{name}.{node.name}.low"
    name = node.input[0]
    index = next(i for i, other in enumerate(model.graph.node) if other is node or other.name == node.name)
    low, back = f"{name}.{node.name}.low", f"{name}.{node.name}.back"
    model.graph.node[index].input[0] = back
    model.graph.node.insert(
        index, helper.make_node("Cast", [low], [back], name=f"{node.name}.back", to=TensorProto.FLOAT)
    )
    model.graph.node.insert(
        index, helper.make_node("Cast", [name], [low], name=f"{node.name}.low", to=TensorProto.BFLOAT16)
    )
    return True


def dropped(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    """What a pass does that fuses too much: an activation is gone, or a bias."""
    if node.op_type in ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "PRelu", "Erf"):
        source = node.input[0]
        node.CopyFrom(helper.make_node("Identity", [source], list(node.output), name=node.name))
        return True
    if node.op_type in ("Conv", "Gemm", "LayerNormalization") and len(node.input) == 3:
        del node.input[2]
        return True
    return False


EDITS: Mapping[str, Edit] = {
    "wrong weight tensor": weight,
    "wrong attribute": attribute,
    "broken pass": dropped,
    "lowered precision": lowered,
    "wrong axis": axis,
    "swapped inputs": swapped,
}


def _set(node: onnx.NodeProto, name: str, value: Any) -> bool:
    kept = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    return True


# ------------------------------------------------------------------------------------------------------- planting


@dataclass(frozen=True)
class Plant:
    """A defect.

    Attributes:
        kind: a key of :data:`EDITS`.
        hop: one of :data:`HOPS`, or ``lowered``: in the graph that a target was given.
        graph: the graph it is in.
        node: the node that is planted.
        successors: the nodes that read what it gives.
    """

    kind: str
    hop: str
    graph: str
    node: str
    successors: frozenset[str]

    def named(self, node: str) -> bool:
        """Whether a diagnosis that names a node names this one, or what follows it directly."""
        return node == self.node or node in self.successors or node in (f"{self.node}.low", f"{self.node}.back")

    def into(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of a graph with the defect; itself where it has not that node."""
        copy = passes.copied(model)
        for node in copy.graph.node:
            if node.name == self.node:
                EDITS[self.kind](copy, node)
                break
        return copy


def candidates(model: onnx.ModelProto, kind: str, hop: str, graph: str, seed: int) -> Iterator[Plant]:
    """Plants of a kind at nodes of a graph, in a random order."""
    order = cuts.depending(model.graph)
    nodes = [model.graph.node[index].name for index in order]
    random.Random(seed).shuffle(nodes)
    for name in nodes:
        node = next(node for node in model.graph.node if node.name == name)
        readers = frozenset(other.name for other in model.graph.node if set(other.input) & set(node.output))
        copy = passes.copied(model)
        if EDITS[kind](copy, next(node for node in copy.graph.node if node.name == name)):
            yield Plant(kind, hop, graph, name, readers)


@contextlib.contextmanager
def planted(plant: Plant, path: Path, target: str, precision: str = "fp32") -> Iterator[None]:
    """Plants a defect in a bundle; within it, passes and targets that are wrong are wrong again."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(in_process())
        if plant.hop == "compiled":
            right = registry.target
            wrong = _wrong(right(target), plant)
            stack.enter_context(
                mock.patch.object(registry, "target", lambda name: wrong if name == target else right(name))
            )
            pipeline.compile_bundle(path, target, precision, Limits(seconds=600))
        elif plant.hop == "lowered":
            _replace_lowered(path, plant, f"{target}/{precision}")
            pipeline.compile_bundle(path, target, precision, Limits(seconds=600))
        elif plant.kind == "broken pass":
            broken = ("broken", plant.into, "planted")
            stack.enter_context(mock.patch.object(simplify, "ORDER", (*simplify.ORDER, broken)))
            _replace(path, plant, "simplified", record="broken")
        else:
            _replace(path, plant, plant.hop)
        yield


def _replace(path: Path, plant: Plant, hop: str, record: str = "") -> None:
    """Puts a graph with the defect in the place of a bundle's own."""
    with editing(path, "a test") as draft:
        assert draft.old is not None
        manifest = draft.old.manifest
        files = manifest.graphs[plant.graph]
        wrong = plant.into(Graph(draft.old.file(getattr(files, hop))).load())
        name = draft.write(f"graphs/{hop}.onnx", wrong.SerializeToString(deterministic=True))
        files = replace(files, **{hop: name})
        if record:
            files = replace(files, passes=(*files.passes, replace(files.passes[-1], name=record, verdict="kept")))
        draft.commit(replace(manifest, graphs={**manifest.graphs, plant.graph: files}))


def _replace_lowered(path: Path, plant: Plant, key: str) -> None:
    """Puts a graph with the defect in the place of the one that a target was given."""
    with editing(path, "a test") as draft:
        assert draft.old is not None
        manifest = draft.old.manifest
        info = manifest.targets[key]
        wrong = plant.into(Graph(draft.old.file(info.graphs[plant.graph])).load())
        name = draft.write(info.graphs[plant.graph], wrong.SerializeToString(deterministic=True))
        info = replace(info, graphs={**info.graphs, plant.graph: name})
        draft.commit(replace(manifest, targets={**manifest.targets, key: info}))


def _wrong(right: Target, plant: Plant) -> Target:
    """The target, with a compiler that gets one node wrong wherever it meets it."""

    def compiles(self: Target, graph: Graph, options: Options, folder: Path, *progress: Any) -> Artifact:
        path = folder / f"planted-{graph.path.name}"
        path.write_bytes(plant.into(graph.load()).SerializeToString())
        return type(right).compile(self, Graph(path), options, folder, *progress)

    wrong = object.__new__(type(type(right).__name__, (type(right),), {"compile": compiles}))
    wrong.__dict__.update(right.__dict__)
    return wrong
