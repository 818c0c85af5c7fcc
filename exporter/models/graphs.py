"""An ONNX file as a model: what its reference evaluator computes in float64 is the reference, in float32 the yardstick.

It takes the place of a module, so that cases, noise and verdicts are those of every other model. The evaluator is
checked as every graph is: in the traced hop a fast runtime runs the same graph, and has to agree. Only children open
one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from exporter.errors import NotProven, Refused
from exporter.evaluator import apart, array_of, evaluator, in_float64
from exporter.external import refuse_bad
from exporter.graph import INSIDE, OPSET, Graph, apart_from_data, tensors_of
from exporter.lower.worker import in_opset
from exporter.models import tables
from exporter.models.derive import OWN, Asked, with_outputs
from exporter.models.given import UNSAID, dim_of, is_whole, with_ranges
from exporter.models.place import Place
from exporter.spec import Dim, ModelDef, Tensor

# What every runtime reads, and all that our operator set has: tools write their newest, and are alone with it.
IR_VERSION = 10
BFLOAT16 = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)


class Evaluated(nn.Module):
    """A graph where a module is expected: tensors in a row in, tensors in a row out, in the type of its weights.

    The large weights are in memory once, as parameters that the evaluator is given at every call; those that lie
    beside the graph are mapped until they are turned to another type.
    """

    def __init__(self, load: Callable[[], onnx.ModelProto]) -> None:
        super().__init__()
        self._load = load
        model = load()
        held = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [value.name for value in model.graph.input if value.name not in held]
        self._shown, large = apart(model)
        self.kind: torch.Tensor
        self.register_buffer("kind", torch.zeros(()))
        small = {tensor.name: array_of(tensor) for tensor in self._shown.graph.initializer}
        self._places = {name: f"weight{index}" for index, name in enumerate({**large, **small})}
        self._strange = {name: array for name, array in large.items() if not _is_known(array)}
        for name, array in {**large, **small}.items():
            value = _as_torch(array)
            if value.is_floating_point():
                self.register_parameter(self._places[name], nn.Parameter(value, requires_grad=False))
            else:
                self.register_buffer(self._places[name], value)
        self._given = tuple(large)
        self._sessions: dict[torch.dtype, Any] = {}

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the evaluator gives; ``double()`` has it compute in float64."""
        double = self.kind.dtype == torch.float64
        session = self._sessions.get(self.kind.dtype)
        if session is None:
            session = self._sessions[self.kind.dtype] = _session(in_float64(self._shown) if double else self._shown)
        feeds = {name: tensor.numpy() for name, tensor in zip(self._inputs, tensors, strict=True)}
        weights = {name: _as_numpy(getattr(self, self._places[name])) for name in self._given}
        outputs = session.run(None, {**feeds, **weights, **self._strange})
        return tuple(torch.from_numpy(np.array(output)) for output in outputs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Evaluated:
        return Evaluated(self._load)

    def write(self, path: Path) -> None:
        """The graph, in the place of a trace; its weights as they are in the file."""
        Graph.written(path, self._load())


def _session(model: onnx.ModelProto) -> Any:
    try:
        return evaluator(model)
    except NotImplementedError as error:
        raise NotProven(
            "missing-operator",
            f"ONNX's evaluator has no such operator: {str(error).partition(', known functions')[0]}",
            where=f"graph {model.graph.name or 'without a name'}",
            why="the reference of a graph is computed by ONNX's own evaluator, operator by operator",
            next="write it with ONNX's operators, or export the model that the graph was made from",
        ) from error


def _as_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A weight as PyTorch holds it; of a type that it has not, what tells it from another."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if _is_known(array):
        return torch.from_numpy(array)
    bytes_ = repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
    return torch.from_numpy(np.frombuffer(bytes_, np.uint8).copy())


def _is_known(array: np.ndarray[Any, Any]) -> bool:
    return array.dtype == BFLOAT16 or array.dtype.kind in "biufc"


def _as_numpy(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def of_graph(place: Place, asked: Asked) -> ModelDef:
    """The definition of an ONNX file: its inputs and outputs are the graph's, its dims those it names.

    Raises:
        Refused: ``bad-graph`` for a file that is none; ``bad-external-data`` for one whose weights lie where they
            should not; ``missing-operator`` for what the evaluator cannot run;
            ``bad-input``, ``bad-dim``.
    """
    load = partial(_loaded, Path(place.place))
    model = load()
    bare, dims = _interface(model, asked.dims, place)
    inputs, notes = with_ranges(bare, asked.inputs, tables.of_graph(model), place.shown)
    names = [value.name for value in model.graph.output]
    del model  # its weights, where they lie in the file itself
    definition = ModelDef(
        place.label,
        OWN,
        lambda: Evaluated(load),
        inputs,
        (),
        place.shown,
        "the user's own",
        dims=dims,
        weighted=True,
        notes=notes,
    )
    return with_outputs(definition, Evaluated(load), place, names)


def _loaded(path: Path) -> onnx.ModelProto:
    """The linked model in our words, with a name for every node and every open axis."""
    if path.is_file():
        refuse_bad(path)
    try:
        onnx.checker.check_model(str(path), full_check=False)  # by its path, for which no weights are too many
        model = Graph(path).linked()
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Refused(
            "bad-graph",
            f"{path.name} does not load: {first[:300]}",
            where=f"file {path.name}",
            why="a graph is a whole ONNX file, with its external data beside it and nowhere else",
            next=f"python -c {shlex.quote(f'import onnx; onnx.checker.check_model({str(path)!r})')}",
        ) from error
    _take_in(model)
    with suppress(NotProven):  # a newer one that cannot be put in older words stays: targets say what they lack
        model = in_opset(model, OPSET)
    needed = onnx.helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    model.ir_version = min(model.ir_version, max(needed, IR_VERSION))
    taken = set[str]()
    for index, node in enumerate(model.graph.node):
        name = node.name if node.name and node.name not in taken else f"node_{node.op_type}_{index}"
        taken.add(name)
        node.name = name
    model = apart_from_data(model, onnx.shape_inference.infer_shapes)
    _name_dims(model)
    return model


def _take_in(model: onnx.ModelProto) -> None:
    """Puts into a linked model, in place, what others may keep beside a graph and we do not: shapes, constants."""
    weights = len(model.graph.initializer)  # which come first
    for index, tensor in enumerate(tensors_of(model.graph)):
        if tensor.external_data and (index >= weights or array_of(tensor).nbytes <= INSIDE):
            tensor.CopyFrom(numpy_helper.from_array(np.array(array_of(tensor)), tensor.name))


def _name_dims(model: onnx.ModelProto) -> None:
    """Gives every open axis a name that a dim can have, in place."""
    held = {tensor.name for tensor in model.graph.initializer}
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value") and value.name not in held:
                name = re.sub(r"\W", "_", dim.dim_param or f"{value.name}_{axis}")
                dim.dim_param = name if not name[:1].isdigit() else f"d{name}"


def _interface(
    model: onnx.ModelProto, texts: Sequence[str], place: Place
) -> tuple[tuple[Tensor, ...], tuple[Dim, ...]]:
    held = {tensor.name for tensor in model.graph.initializer}
    inputs, ranges = list[Tensor](), dict(text.partition("=")[::2] for text in texts)
    for value in model.graph.input:
        if value.name in held:
            continue
        kind = value.type.tensor_type
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else ""
        if not dtype or dtype.startswith(("complex", "object", "str")):
            raise Refused(
                "bad-graph",
                f"its input {value.name} is no tensor of numbers",
                where=f"graph {place.shown}",
                why="what is compared are numbers",
                next="give the graph tensors of numbers",
            )
        shape = tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim)
        low, high = UNSAID if is_whole(dtype) else (0.0 if dtype == "bool" else -1.0, 1.0)
        inputs.append(Tensor(value.name, shape, "", dtype, low, high))
    strange = [value.name for value in model.graph.output if not value.type.tensor_type.elem_type]
    if strange or not inputs or not model.graph.output:
        missing = "it has no input" if not inputs else "it has no output"
        raise Refused(
            "bad-graph",
            f"its output {strange[0]} is no tensor" if strange else missing,
            where=f"graph {place.shown}",
            why="a graph is judged by the tensors that it makes of the tensors that it is given",
            next="give the graph tensors as inputs and outputs: of a sequence its parts, or one ConcatFromSequence",
        )
    named = list(dict.fromkeys(size for tensor in inputs for size in tensor.shape if isinstance(size, str)))
    for name in [*named, *ranges]:
        if name not in ranges or name not in named:
            what = f"dim {name} has no range" if name in named else f"--dim {name}={ranges[name]} names no dim of it"
            raise Refused(
                "bad-dim",
                what,
                where=f"graph {place.shown}",
                why=f"sizes are tested from the least to the largest; its dims are {', '.join(named) or 'none'}",
                next=" ".join(f"--dim {each}=1:4:16" for each in named) or "leave --dim out",
            )
    return tuple(inputs), tuple(dim_of(name, ranges[name]) for name in named)
